"""A Keras model as `ptychonnx.export.artifact.export_module` needs it: run, and converted."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ptychonnx.train.tensorflow  # noqa: F401 - imports TensorFlow quietly, so it comes before the others

import keras  # isort: skip
import tensorflow as tf  # isort: skip

from ptychonnx.export.graph.opset import to_opset
from ptychonnx.export.lowering.converted_graph import Converted
from ptychonnx.export.lowering.module_input import (
    PARTS,
    ModuleInput,
    ModuleOutput,
    described_output,
    leaves,
    output_names,
    output_tensors,
    unique_names,
)
from ptychonnx.export.lowering.tensorflow.convert import convert_function
from ptychonnx.export.lowering.trial_inputs import module_inputs, with_bounds
from ptychonnx.runtime.errors import InputError, UnsupportedError, first_line
from ptychonnx.runtime.paths import check_file
from ptychonnx.train.run import LayerOutput
from ptychonnx.train.tensorflow.network import KerasNetwork

__all__ = ["KerasModule", "read_keras_file"]

# Arguments of `call` that are no inputs.
_SETTINGS = ("self", "training", "mask")


def read_keras_file(path: Path) -> keras.Model:
    """Read a ``.keras`` file in safe mode, which runs no code from it.

    Raises InputError if the file is missing or damaged, or needs code, such as a lambda or a layer that is not part of
    Keras.
    """
    check_file(path, "a Keras model")
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises a dozen different types
        raise InputError(
            f"{path}: not a Keras file that loads without code of its own ({first_line(error)})"
        ) from error


class KerasModule:
    """A model, its inputs and its outputs, with the arguments of `TorchModule`.

    A functional or sequential model knows its inputs; a subclassed one, or axes of any size, need them. Their order is
    that of the model's inputs, unless all have names. None is shared: inputs of Keras have a batch.

    Raises InputError if the model does not run on such inputs. Raises UnsupportedError if it cannot be exported.
    """

    framework = "tensorflow"
    packages = ("tensorflow", "keras", "tf2onnx", "onnx", "ptychonnx")

    def __init__(
        self,
        model: Any,
        inputs: Sequence[Any],
        keywords: Mapping[str, Any] | None = None,
        batch: int | None = None,
        shared: Collection[str] = (),
    ) -> None:
        self.notes: list[str] = []
        self._model, self._batch = model, batch
        described = _described(model, [*inputs, *([dict(keywords)] if keywords else [])])
        if shared or any(one.shared for one in described.values()):
            raise UnsupportedError("inputs of a Keras model have a batch axis, expected none that is shared")
        self._names_given = all(one.name for one in described.values())
        self.inputs = described
        self.inputs = with_bounds(described, lambda arrays: self._call([*map(tf.constant, arrays)]))
        example = module_inputs(list(self.inputs.values()))[0]
        self.outputs = self._described_outputs(example.batch(0, batch or 2), example.batch(0, batch or 3))
        self.parameters = int(model.count_params())

    def _call(self, tensors: Sequence[Any]) -> Any:
        """Output of the model, from real tensors."""
        values = [
            tf.complex(tensor[..., 0], tensor[..., 1]) if one.complex_values else tensor
            for one, tensor in zip(self.inputs.values(), tensors, strict=True)
        ]
        if _knows_inputs(self._model) or (len(values) == 1 and not self._names_given):
            return self._model(values if len(values) > 1 else values[0], training=False)
        arguments = [name for name in inspect.signature(self._model.call).parameters if name not in _SETTINGS]
        if self._names_given and not set(self.inputs) <= set(arguments):
            return self._model(dict(zip(self.inputs, values, strict=True)), training=False)
        several = values if len(arguments) >= len(values) else [values]
        return self._model(*several, training=False)

    def _outputs_of(self, tensors: Sequence[Any]) -> list[tuple[tuple[Any, ...], Any]]:
        return output_tensors(self._call(tensors), tf.is_tensor, "model")

    def _flat(self, *tensors: Any) -> list[Any]:
        """All outputs as real tensors."""
        return [
            tf.stack([tf.math.real(value), tf.math.imag(value)], axis=-1) if value.dtype.is_complex else value
            for _, value in self._outputs_of(tensors)
        ]

    def _described_outputs(self, arrays: Sequence[NDArray], larger: Sequence[NDArray]) -> list[ModuleOutput]:
        try:
            found = self._outputs_of([tf.constant(array) for array in arrays])
            others = self._outputs_of([tf.constant(array) for array in larger])
        except InputError:
            raise
        except Exception as error:  # whatever the author's code raises
            shapes = ", ".join(str(list(array.shape)) for array in arrays)
            raise InputError(
                f"the model does not run on inputs of shape {shapes}: {first_line(error)}"
            ) from error
        names = output_names([path for path, _ in found])
        own = list(getattr(self._model, "output_names", []) or [])
        if len(names) > 1 and len(own) == len(names) == len(set(own)) and isinstance(found[0][0][0], int):
            names = unique_names([(name,) for name in own])
        described = []
        for name, (_, value), (_, other) in zip(names, found, others, strict=True):
            # Slices, since a number has no first axis.
            sizes = (value.shape[:1].as_list(), other.shape[:1].as_list())
            batched = sizes == ([len(arrays[0])], [len(larger[0])])
            described.append(described_output(name, value.dtype.name, batched, self.inputs))
        return described

    def predict(self, *inputs: NDArray) -> list[NDArray]:
        return [value.numpy() for value in self._flat(*map(tf.constant, inputs))]

    exact = predict

    def layers(self, *inputs: NDArray) -> list[LayerOutput]:
        """Outputs of all layers of a functional model."""
        if not _knows_inputs(self._model) or any(one.complex_values for one in self.inputs.values()):
            return []
        return KerasNetwork(self._model).layers(*inputs)

    def convert(self, opset: int) -> Converted:
        signature = [
            tf.TensorSpec([self._batch, *one.real_shape], one.dtype, name=name)
            for name, one in self.inputs.items()
        ]
        converted = convert_function(self._flat, signature, [output.name for output in self.outputs])
        return replace(converted, model=to_opset(converted.model, opset))


def _knows_inputs(model: Any) -> bool:
    return isinstance(model, keras.Sequential) or hasattr(model, "_inputs_struct")


def _own_inputs(model: Any) -> list[Any]:
    """Inputs that the model declares; empty for a subclassed or unbuilt one."""
    try:
        return list(model.inputs or []) if _knows_inputs(model) else []
    except (AttributeError, ValueError):
        return []


def _described(model: Any, trees: Sequence[Any]) -> dict[str, ModuleInput]:
    """Inputs by name: those of the model, with the shapes and examples that are given."""
    given = []
    for path, leaf in leaves(list(trees), lambda value: isinstance(value, ModuleInput)):
        if isinstance(leaf, ModuleInput):
            key = path[-1] if len(path) > 1 and isinstance(path[-1], str) else leaf.name
            given.append(replace(leaf, name=key))
    own = _own_inputs(model)
    if not own:
        if not given:
            raise InputError("the model does not know its inputs: expected a shape or an example for each")
        names = [one.name or f"input_{index}" for index, one in enumerate(given)]
        return dict(zip(unique_names([(name,) for name in names]), given, strict=True))
    names = unique_names([(tensor.name,) for tensor in own])
    if given and len(given) != len(own):
        raise InputError(f"the model takes {', '.join(names)}, got {len(given)} inputs")
    if given and all(one.name in names for one in given):
        given.sort(key=lambda one: names.index(str(one.name)))
    return {
        name: _merged(name, tensor, given[index] if given else None)
        for index, (name, tensor) in enumerate(zip(names, own, strict=True))
    }


def _merged(name: str, tensor: Any, given: ModuleInput | None) -> ModuleInput:
    """An input of the model with the given sizes and values."""
    shape = tuple(tensor.shape[1:])
    is_complex = tensor.dtype.startswith("complex")
    dtype = PARTS.get(tensor.dtype, tensor.dtype)
    if given is None:
        if None in shape:
            raise InputError(
                f"input {name!r} of the model is {list(shape)}, expected --shape with fixed sizes"
            )
        return ModuleInput(shape, is_complex, dtype, name=name)
    fits = len(shape) == len(given.shape) and all(
        size in (None, other) for size, other in zip(shape, given.shape, strict=True)
    )
    if not fits:
        raise InputError(f"input {name!r} of the model is {list(shape)}, got {list(given.shape)}")
    example = None if given.example is None else np.asarray(given.example, dtype)
    return replace(given, complex_values=is_complex, dtype=dtype, example=example, name=name)
