"""Image quality metrics on a declared region after a declared alignment."""
