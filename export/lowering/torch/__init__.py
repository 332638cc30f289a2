"""PyTorch networks: spectral convolutions become products of real matrices, the exporter writes the rest."""
