"""Constants of a module in real arithmetic, stored once each."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["Constants"]


class Constants(nn.Module):
    """Buffers named by their content, so that equal constants are one.

    They are created by an ordinary forward pass; a trace then finds all of them.
    """

    def tensor(self, values: NDArray, dtype: torch.dtype) -> Tensor:
        """The constant with these values, rounded to a type."""
        values = np.ascontiguousarray(values, dtype=str(dtype).removeprefix("torch."))
        key = hashlib.sha256(repr((values.shape, values.dtype.str)).encode() + values.tobytes())
        name = f"constant_{key.hexdigest()[:16]}"
        if name not in self._buffers:
            self.register_buffer(name, torch.from_numpy(values.copy()).reshape(values.shape))
        return self.get_buffer(name)
