"""Reconstruction while a scan runs: frames and positions arrive, are joined by number, and the object grows."""
