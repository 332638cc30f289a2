"""Sources of positions, one module for each protocol."""
