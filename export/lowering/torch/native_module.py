"""A torch module as `ptychonnx.export.artifact.export_module` needs it: run, run in float64, and converted."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptychonnx.export.lowering.converted_graph import Converted
from ptychonnx.export.lowering.module_input import OUTPUT
from ptychonnx.export.lowering.torch.arguments import Arguments, bind_arguments
from ptychonnx.export.lowering.torch.convert import convert_lowered
from ptychonnx.export.lowering.torch.preparation import prepare
from ptychonnx.export.lowering.torch.signature import RealValuedModule, module_outputs
from ptychonnx.export.lowering.torch.spectral import Lowering, at_full_precision, lower_spectral
from ptychonnx.export.lowering.trial_inputs import module_inputs, with_bounds
from ptychonnx.train.run import LayerOutput
from ptychonnx.train.torch.network import layer_outputs

__all__ = ["TorchModule"]


class TorchModule:
    """A module, its inputs and its outputs.

    Raises InputError if the module does not run on such inputs. Raises UnsupportedError if it cannot be exported.

    * `module`: left as it is.
    * `inputs`, `keywords`: arguments of `forward` with a `ModuleInput` in the place of each tensor, see
      `arguments.bind_arguments`.
    * `batch`: the only batch size; None if any.
    * `shared`: names of inputs without a batch axis.
    """

    framework = "torch"
    packages = ("torch", "neuraloperator", "onnx", "onnxscript", "ptychonnx")

    def __init__(
        self,
        module: nn.Module,
        inputs: Sequence[Any],
        keywords: Mapping[str, Any] | None = None,
        batch: int | None = None,
        shared: Collection[str] = (),
    ) -> None:
        prepared, self.notes = prepare(module)
        self._module, self._layer_notes = at_full_precision(prepared)
        self._batch = batch
        arguments = bind_arguments(self._module, inputs, keywords, shared)
        self._arguments = replace(arguments, inputs=with_bounds(arguments.inputs, self._trial(arguments)))
        self.inputs = dict(self._arguments.inputs)
        self._example = self._tensors(batch or 2)
        self.outputs = module_outputs(
            self._module, self._arguments, self._example, None if batch else self._tensors(3)
        )
        self.parameters = sum(parameter.numel() for parameter in self._module.parameters())
        self._real = RealValuedModule(self._module, self._arguments).eval()

    def _trial(self, arguments: Arguments) -> Callable[[list[NDArray]], object]:
        def run(arrays: list[NDArray]) -> object:
            with torch.inference_mode():
                return arguments.call(self._module, [*map(_tensor, arrays)])

        return run

    def _tensors(self, batch: int) -> list[Tensor]:
        kind = module_inputs(list(self.inputs.values()))[0]
        return [torch.from_numpy(array) for array in kind.batch(0, batch)]

    def predict(self, *inputs: NDArray) -> list[NDArray]:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [value.numpy() for value in self._real(*map(_tensor, inputs))]

    def exact(self, *inputs: NDArray) -> list[NDArray]:
        """The same in float64; in float32 if the module does not run in float64."""
        try:
            with _float64(), torch.inference_mode():
                wide = (array.astype(np.float64) if array.dtype.kind == "f" else array for array in inputs)
                return [value.numpy() for value in self._double(*map(_tensor, wide))]
        except Exception:  # types written in the author's code, for example
            return self.predict(*inputs)

    @cached_property
    def _double(self) -> nn.Module:
        def widened(value: Tensor) -> Tensor:
            if value.is_complex():
                return value.to(torch.complex128)
            return value.double() if value.is_floating_point() else value

        return copy.deepcopy(self._real)._apply(widened)

    def layers(self, *inputs: NDArray) -> list[LayerOutput]:
        return [
            LayerOutput(layer.name.removeprefix("module."), layer.output, layer.after)
            for layer in layer_outputs(self._real, *map(_tensor, inputs))
        ]

    def convert(self, opset: int) -> Converted:
        return convert_lowered(
            self._lowered(),
            *self._example,
            opset=opset,
            inputs=list(self.inputs),
            outputs=[output.name for output in self.outputs],
            batch=self._batch,
            shared=[one.shared for one in self.inputs.values()],
        )

    def _lowered(self) -> Lowering:
        """The module as real operators, with real tensors as inputs and outputs."""
        positional, keywords = self._arguments.filled(self._example)
        lowering = lower_spectral(self._module, *positional, **keywords)
        (first, *others) = self.outputs
        is_plain = (
            first.name == OUTPUT and not others and not first.complex_values and self._arguments.is_plain
        )
        # The wrapper would prefix every name in the graph, so it is left out where it changes nothing.
        lowered = lowering.module
        if not is_plain or lowered._forward_hooks or lowered._forward_pre_hooks:
            lowered = RealValuedModule(lowered, self._arguments).eval()
        return Lowering(lowered, lowering.layers, self._layer_notes)


def _tensor(array: NDArray) -> Tensor:
    """A copy, which a module may change in place."""
    return torch.from_numpy(array.copy())


@contextmanager
def _float64() -> Iterator[None]:
    """Tensors that `forward` creates are float64 too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(before)
