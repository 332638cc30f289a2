"""Open NPZ archives, HDF5 files and stacks of patterns; errors name the file and the key."""
