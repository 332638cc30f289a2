"""Iterative reconstruction (mPIE and rPIE), alone or after a network."""
