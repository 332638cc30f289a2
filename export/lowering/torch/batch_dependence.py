"""Why a module cannot be exported for any batch: it transforms or shifts along the batch, as forward passes show."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["transform_along_batch"]


class _Transforms(TorchDispatchMode):
    """Notes the sizes of all axes that are transformed or shifted, and the author's line of each."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[list[int]] = []
        self.lines: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name.startswith("_fft_") or (name == "roll" and len(args) > 2):
            axes = args[2] if name == "roll" else args[1]
            self.sizes.append([args[0].shape[axis] for axis in axes])
            # This file lies in a folder of that name too.
            frame = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename][-1]
            self.lines.append(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} `{frame.line}`")
        return function(*args, **(kwargs or {}))


def transform_along_batch(
    module: nn.Module, example: Sequence[Tensor], shared: Sequence[bool] = ()
) -> str | None:
    """Place and text of the first line that transforms or shifts along the batch; None if none does.

    Parameters
    ----------
    example
        Inputs, the batch first.
    shared
        Which inputs have no batch axis; none if empty.
    """
    larger = [
        x if is_shared else torch.cat([x, x[:1]])
        for x, is_shared in zip(example, shared or (False,) * len(example), strict=True)
    ]
    seen = []
    for inputs in (example, larger):
        with _Transforms() as mode, torch.no_grad():
            try:
                module(*inputs)
            except Exception:  # it takes no other batch
                return None
        seen.append(mode)
    first, other = seen
    pairs = zip(first.sizes, other.sizes, first.lines, strict=False)
    return next((line for sizes, others, line in pairs if sizes != others), None)
