"""What the torch modules have in common: seeded weights, and functions as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.exporter_cases.case import Cases

__all__ = ["new_cases", "spectral_weight"]


class Function(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def new_cases() -> Cases:
    """An empty collection for torch modules."""
    return Cases(Function, torch.manual_seed)


def spectral_weight(*shape: int) -> nn.Parameter:
    """A complex weight."""
    return nn.Parameter(torch.randn(*shape, dtype=torch.complex64) / shape[0] ** 0.5)
