"""Signature of a module in a graph: named real tensors as inputs and outputs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ptychonnx.export.lowering.module_input import (
    ModuleOutput,
    described_output,
    output_names,
    output_tensors,
)
from ptychonnx.export.lowering.torch.arguments import Arguments
from ptychonnx.export.lowering.torch.author_line import author_line_of_traceback
from ptychonnx.runtime.errors import InputError, UnsupportedError, first_line

__all__ = ["RealValuedModule", "module_outputs"]

# Way out for a module that runs in one batch and not in another.
_FIXED = "; --batch N exports it for batches of N alone"


class RealValuedModule(nn.Module):
    """A module with real tensors as inputs and a flat tuple of real tensors as output.

    Complex tensors become pairs of numbers.
    """

    def __init__(self, module: nn.Module, arguments: Arguments) -> None:
        super().__init__()
        self.module = module
        self.arguments = arguments

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = _tensors(self.arguments.call(self.module, inputs))
        return tuple(
            torch.view_as_real(value.resolve_conj()) if value.is_complex() else value for _, value in outputs
        )


def _tensors(output: Any) -> list[tuple[tuple[Any, ...], Tensor]]:
    return output_tensors(output, torch.is_tensor, "module")


def module_outputs(
    module: nn.Module, arguments: Arguments, example: Sequence[Tensor], larger: Sequence[Tensor] | None = None
) -> list[ModuleOutput]:
    """Names and types of all outputs, by forward passes on an example.

    Raises InputError if the module does not run. Raises UnsupportedError if it returns something else than tensors, or
    its output is random or depends on earlier calls.

    `larger`: the example in another batch, which tells the batch axis from others; None for a fixed batch.
    """
    outputs = _run(module, arguments, example)
    _refuse_random(module, arguments, example, outputs)
    batch = _batch_of(arguments, example)
    others = outputs if larger is None else _run(module, arguments, larger, _FIXED)
    other_batch = batch if larger is None else _batch_of(arguments, larger)
    if [path for path, _ in outputs] != [path for path, _ in others]:
        raise UnsupportedError("the module returns other outputs for another batch, expected the same ones")
    names = output_names([path for path, _ in outputs])
    described = []
    for name, (_, value), (_, other) in zip(names, outputs, others, strict=True):
        batched = value.ndim > 0 and other.ndim > 0 and (len(value), len(other)) == (batch, other_batch)
        dtype = str(value.dtype).removeprefix("torch.")
        described.append(described_output(name, dtype, batched, arguments.inputs))
    return described


def _batch_of(arguments: Arguments, tensors: Sequence[Tensor]) -> int | None:
    sizes = (
        len(tensor) for one, tensor in zip(arguments.inputs.values(), tensors, strict=True) if not one.shared
    )
    return next(sizes, None)


def _run(
    module: nn.Module, arguments: Arguments, tensors: Sequence[Tensor], way_out: str = ""
) -> list[tuple[tuple[Any, ...], Tensor]]:
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _tensors(arguments.call(module, [tensor.clone() for tensor in tensors]))
    except InputError:
        raise
    except Exception as error:  # whatever the author's code raises
        shapes = [
            list(tensor.shape[:-1] if one.complex_values else tensor.shape)
            for one, tensor in zip(arguments.inputs.values(), tensors, strict=True)
        ]
        line = author_line_of_traceback(error.__traceback__)
        why = f"{first_line(error)}{f' at {line}' if line else ''}{way_out}"
        raise InputError(
            f"the module does not run on inputs of shape {', '.join(map(str, shapes))}: {why}"
        ) from error


def _refuse_random(
    module: nn.Module,
    arguments: Arguments,
    tensors: Sequence[Tensor],
    outputs: Sequence[tuple[tuple[Any, ...], Tensor]],
) -> None:
    """Refuse a module whose second run differs from its first: nothing could be compared with it."""
    values = [value.clone() for _, value in outputs]
    again = [value for _, value in _run(module, arguments, tensors)]
    if len(values) == len(again) and all(map(_agree, values, again)):
        return
    raise UnsupportedError(
        "the module returns different outputs for the same inputs, in evaluation mode: it draws random numbers in "
        "`forward` (such as functional.dropout without training=self.training) or keeps a state between calls"
    )


def _agree(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not (one.is_floating_point() or one.is_complex()):
        return torch.equal(one, other)
    return torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True)
