"""Iterative reconstruction (rPIE), alone or after a network."""
