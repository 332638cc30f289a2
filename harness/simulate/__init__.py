"""Simulated scans of known objects."""
