"""Trained artifacts that come with the package."""
