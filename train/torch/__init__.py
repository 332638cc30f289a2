"""Architectures and training in PyTorch Lightning."""
