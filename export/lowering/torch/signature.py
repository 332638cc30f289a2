"""A module as a graph shows it: named real tensors in, named real tensors out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ptychonnx.export.lowering.torch.exporter_errors import first_line
from ptychonnx.runtime.errors import InputError

__all__ = ["OUTPUT", "ModuleInput", "RealValuedModule", "input_names", "output_names"]

# Name of the output of a module that gives a tensor.
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
    """A module as a graph shows it: real tensors in, a tuple of real tensors out.

    Complex tensors become pairs of numbers, nested outputs a flat tuple.
    """

    def __init__(self, module: nn.Module, inputs: Sequence[ModuleInput]) -> None:
        super().__init__()
        self.module = module
        self.complex_inputs = [given.complex_values for given in inputs]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given = [
            torch.view_as_complex(value) if pairs else value
            for value, pairs in zip(inputs, self.complex_inputs, strict=True)
        ]
        flat = [value for _, value in _named_outputs(self.module(*given))]
        return tuple(torch.view_as_real(value) if value.is_complex() else value for value in flat)


def _named_outputs(output: object, name: str = "") -> list[tuple[str, Tensor]]:
    """All tensors in what a module gives, with names; that of a module which gives a tensor is `OUTPUT`."""
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
    raise InputError(f"the module gives {type(output).__name__}, expected tensors")


def input_names(module: nn.Module, count: int) -> list[str]:
    """Names of the first arguments of `forward`."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(inspect.signature(module.forward).parameters.values())
    names = [parameter.name for parameter in parameters if parameter.kind in kinds][:count]
    if len(names) < count:
        takes_more = any(parameter.kind == inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
        if not takes_more:
            raise InputError(f"the module takes {len(names)} inputs, {count} shapes were given")
        names += [f"input_{index}" for index in range(len(names), count)]
    return names


def output_names(
    module: nn.Module, given: Sequence[Tensor], taken: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Names of all outputs, and of those that are complex, by one forward pass."""
    shown = ", ".join(str(list(value.shape)) for value in given)
    try:
        with torch.inference_mode():
            found = _named_outputs(module(*given))
    except InputError:
        raise
    except Exception as error:  # whatever the author's code raises
        raise InputError(
            f"the module does not run on inputs of shape {shown}: {first_line(error)}"
        ) from error
    for name, value in found:
        if value.dtype not in (torch.float32, torch.complex64):
            raise InputError(f"output {name!r} of the module is {value.dtype}, expected torch.float32")
        if value.ndim == 0 or len(value) != len(given[0]):
            shape = list(value.shape)
            raise InputError(f"output {name!r} is {shape}, expected a batch of {len(given[0])} in front")
    names = [f"{name}_out" if name in taken else name for name, _ in found]
    return names, [name for name, (_, value) in zip(names, found, strict=True) if value.is_complex()]
