"""Evaluate any number of artifacts on any number of scans, and hold the results."""
