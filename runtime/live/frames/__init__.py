"""Sources of detector frames, one module for each protocol."""
