"""Why a module cannot be exported for any batch: the operator and the line that transform along it, or fix it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ptychonnx.export.lowering.torch.author_line import running_author_line

__all__ = ["fixed_batch", "transform_along_batch"]


class _Transforms(TorchDispatchMode):
    """Notes the sizes of all axes that are transformed or shifted, and the author's line of each."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[list[int]] = []
        self.lines: list[str | None] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name.startswith("_fft_") or (name == "roll" and len(args) > 2):
            axes = args[2] if name == "roll" else args[1]
            self.sizes.append([args[0].shape[axis] for axis in axes])
            self.lines.append(running_author_line())
        return function(*args, **(kwargs or {}))


def transform_along_batch(
    module: nn.Module, example: Sequence[Tensor], shared: Sequence[bool] = ()
) -> str | None:
    """Place and text of the first line that transforms or shifts along the batch; None if none does.

    `shared`: which inputs of the example have no batch axis; none if empty.
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


class _Calls(TorchFunctionMode):
    """Knows the function of torch that is running."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[str] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.running.append(getattr(function, "__name__", ""))
        try:
            return function(*args, **(kwargs or {}))
        finally:
            self.running.pop()


def fixed_batch(module: nn.Module, example: Sequence[Tensor], dynamic_shapes: Any) -> str | None:
    """The first operator that needs the batch as a number, with its line; None if `torch.export.export` meets none."""
    places: list[str] = []
    calls = _Calls()
    original = ShapeEnv._set_replacement

    def noted(self: ShapeEnv, symbol: Any, value: Any, message: str) -> None:
        if value.is_number and not places:
            operator = next((name.strip("_") for name in calls.running), "Python code")
            line = running_author_line()
            place = f" at {line}" if line else ""
            places.append(f"{operator} needs the batch as a number{place}")
        original(self, symbol, value, message)

    # torch says that the batch is fixed, but not where.
    ShapeEnv._set_replacement = noted  # type: ignore[assignment, method-assign]
    try:
        with calls, torch.no_grad():
            torch.export.export(module, tuple(example), dynamic_shapes=dynamic_shapes, strict=False)
    except Exception:  # the caller knows the error
        pass
    finally:
        ShapeEnv._set_replacement = original  # type: ignore[method-assign]
    return places[0] if places else None
