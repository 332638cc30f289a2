"""Write reconstructions as files of other programs."""
