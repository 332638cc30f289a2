"""Simulated scans with a known object: probes, objects, and the cached lines dataset."""
