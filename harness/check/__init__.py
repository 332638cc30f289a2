"""A verdict on a scan before anything is reconstructed from it."""
