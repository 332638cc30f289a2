"""Layers of neuraloperator that the exporter cannot convert for complex data, with pairs of numbers inside."""

from __future__ import annotations

import torch
from neuralop.layers.embeddings import GridEmbedding2D, GridEmbeddingND
from neuralop.layers.padding import DomainPadding
from torch import Tensor, nn

__all__ = ["PairedDomainPadding", "PairedGridEmbedding", "pair_complex_layers"]


class PairedGridEmbedding(nn.Module):
    """Coordinates as additional channels; the exporter cannot repeat complex ones along the batch."""

    def __init__(self, embedding: GridEmbedding2D | GridEmbeddingND) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, data: Tensor, batched: bool = True) -> Tensor:
        """[B, C, n_1 .. n_d] to [B, C + d, n_1 .. n_d], coordinates last."""
        if not (data.is_complex() and batched):
            return self.embedding(data, batched)
        grids = self.embedding.grid(data.shape[2:], data.device, data.dtype)
        coordinates = torch.view_as_real(torch.cat([*grids], dim=1))
        coordinates = coordinates.expand(data.shape[0], *coordinates.shape[1:])
        return torch.view_as_complex(torch.cat([torch.view_as_real(data), coordinates], dim=1))


class PairedDomainPadding(nn.Module):
    """Zeros around the domain; the exporter cannot pad complex tensors."""

    def __init__(self, padding: DomainPadding) -> None:
        super().__init__()
        self.padding = padding

    def pad(self, x: Tensor) -> Tensor:
        """[B, C, n_1 .. n_d] to a larger size."""
        if not x.is_complex():
            return self.padding.pad(x)
        parts = [self.padding.pad(part) for part in torch.view_as_real(x).unbind(-1)]
        return torch.view_as_complex(torch.stack(parts, dim=-1))

    def unpad(self, x: Tensor) -> Tensor:
        """Back to the size without padding."""
        return self.padding.unpad(x)


def pair_complex_layers(module: nn.Module) -> None:
    """Replace such layers of `module`, in place; nothing changes for real data."""
    for name, layer in list(module.named_modules()):
        if name and isinstance(layer, GridEmbedding2D | GridEmbeddingND):
            module.set_submodule(name, PairedGridEmbedding(layer))
        if name and isinstance(layer, DomainPadding):
            module.set_submodule(name, PairedDomainPadding(layer))
