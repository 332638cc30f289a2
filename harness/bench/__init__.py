"""Benchmarks: speed of artifacts against their native networks, and networks here or on servers under load."""
