"""Signature of a module in a graph: named real tensors as inputs and outputs."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ptychonnx.runtime.errors import InputError, UnsupportedError, first_line

__all__ = ["OUTPUT", "ModuleInput", "RealValuedModule", "input_names", "output_names"]

# Name of the output of a module that returns a tensor.
OUTPUT = "output"


@dataclass(frozen=True)
class ModuleInput:
    """One input of a module.

    Attributes
    ----------
    shape
        Without the batch.
    complex_values
        The module takes complex64; the graph then takes float32 [batch, *shape, 2], real and imaginary part.
    """

    shape: tuple[int, ...]
    complex_values: bool = False

    @property
    def real_shape(self) -> tuple[int, ...]:
        """Shape in the graph, without the batch."""
        return (*self.shape, 2) if self.complex_values else self.shape


class RealValuedModule(nn.Module):
    """A module with real tensors as inputs and a flat tuple of real tensors as output.

    Complex tensors become pairs of numbers.
    """

    def __init__(self, module: nn.Module, inputs: Sequence[ModuleInput]) -> None:
        super().__init__()
        self.module = module
        self.complex_inputs = [one.complex_values for one in inputs]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        arguments = [
            torch.view_as_complex(value) if pairs else value
            for value, pairs in zip(inputs, self.complex_inputs, strict=True)
        ]
        flat = [value for _, value in _named_outputs(self.module(*arguments))]
        return tuple(torch.view_as_real(value) if value.is_complex() else value for value in flat)


def _named_outputs(output: object, name: str = "") -> list[tuple[str, Tensor]]:
    """All tensors in the output of a module, with names; a single tensor is called `OUTPUT`."""
    if isinstance(output, Tensor):
        return [(name or OUTPUT, output)]
    if isinstance(output, dict):
        return [pair for key, value in output.items() for pair in _named_outputs(value, str(key))]
    if isinstance(output, tuple | list):
        return [
            pair
            for index, value in enumerate(output)
            for pair in _named_outputs(value, f"{name or OUTPUT}_{index}")
        ]
    raise UnsupportedError(f"the module returns {type(output).__name__}, expected tensors")


def input_names(module: nn.Module, count: int) -> list[str]:
    """Names of the first arguments of `forward`."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(inspect.signature(module.forward).parameters.values())
    names = [parameter.name for parameter in parameters if parameter.kind in kinds][:count]
    if len(names) < count:
        takes_more = any(parameter.kind == inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
        if not takes_more:
            raise InputError(f"the module takes {len(names)} inputs, got {count} shapes")
        names += [f"input_{index}" for index in range(len(names), count)]
    return names


def output_names(
    module: nn.Module, arguments: Sequence[Tensor], taken: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Names of all outputs, and of the complex ones, by one forward pass."""
    shown = ", ".join(str(list(value.shape)) for value in arguments)
    try:
        with torch.inference_mode():
            outputs = _named_outputs(module(*arguments))
    except InputError:
        raise
    except Exception as error:  # whatever the author's code raises
        raise InputError(
            f"the module does not run on inputs of shape {shown}: {first_line(error)}"
        ) from error
    for name, value in outputs:
        if value.dtype not in (torch.float32, torch.complex64):
            raise UnsupportedError(f"output {name!r} of the module is {value.dtype}, expected torch.float32")
        if value.ndim == 0 or len(value) != len(arguments[0]):
            shape = list(value.shape)
            raise UnsupportedError(
                f"output {name!r} is {shape}, expected a batch of {len(arguments[0])} as the first axis"
            )
    names = [f"{name}_out" if name in taken else name for name, _ in outputs]
    return names, [name for name, (_, value) in zip(names, outputs, strict=True) if value.is_complex()]
