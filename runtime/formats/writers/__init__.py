"""Write reconstructions in the formats of other programs."""
