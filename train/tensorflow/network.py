"""Keras networks: built from settings, with weights in HDF5."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import RetrievalConstants
from ptychonnx.train.registry import Architecture
from ptychonnx.train.run import LayerOutput
from ptychonnx.train.tensorflow.beam import BeamPreparation, beam_in_use
from ptychonnx.train.tensorflow.layers import Features, Inputs, Refinement, refined
from ptychonnx.train.trained_network import check_output

__all__ = ["CHECKPOINT_NAME", "GeneralKerasNetwork", "KerasNetwork", "build_network", "save_weights"]

CHECKPOINT_NAME = "checkpoint.weights.h5"


class KerasNetwork:
    """A `keras.Model` from amplitudes [B, C, N, N], and perhaps offsets [B, C, 2], to object parts [B, N, N, C, 2]."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model

    def call(
        self, inputs: Sequence[tf.Tensor], beam: Sequence[tf.Tensor] = (), training: bool = False
    ) -> tf.Tensor:
        """Object parts for the inputs of the network; only `general` networks take a beam."""
        return self.model(_joined(inputs), training=training)

    def predict(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(self.call(inputs), dtype=np.float32)

    def general(self) -> GeneralKerasNetwork:
        """The network with three more inputs, shared by the whole batch: probe, mask and scale, see `tensorflow.beam`.

        Raises InputError if the network cannot take a beam.
        """
        return GeneralKerasNetwork(self.model)

    def tensors(self) -> dict[str, NDArray]:
        return {variable.path: variable.numpy() for variable in self.model.trainable_variables}

    def layers(self, *inputs: NDArray[np.float32]) -> list[LayerOutput]:
        inside = [layer for layer in self.model.layers if not isinstance(layer, keras.layers.InputLayer)]
        every = keras.Model(self.model.inputs, [layer.output for layer in inside])
        outputs = every(_joined(inputs), training=False)
        return [
            LayerOutput(layer.name, np.asarray(part), _read_from(layer))
            for layer, output in zip(inside, outputs, strict=True)
            for part in keras.tree.flatten(output)
        ]

    def spectral_operator(self) -> str | None:
        """Keras networks hold no Fourier layer."""
        return None

    def save(self, folder: Path) -> None:
        """Write the weights into a run folder."""
        save_weights(self.model, folder / CHECKPOINT_NAME)

    def load(self, folder: Path) -> None:
        """Read the weights that `save` wrote.

        Raises InputError if the checkpoint is missing, unreadable, or of another network.
        """
        path = Path(folder) / CHECKPOINT_NAME
        if not path.is_file():
            raise InputError(f"{path}: no such file, expected the trained weights")
        try:
            self.model.load_weights(path)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path}: not the weights of this network ({first_line(error)})") from error


class GeneralKerasNetwork(KerasNetwork):
    """The network of a `KerasNetwork`, with the same weights, whose last three inputs are probe, mask and scale."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(model)
        kinds = [type(layer) for layer in model.layers]
        if Features not in kinds or Refinement not in kinds:
            raise InputError(
                "--general: this network takes no beam, expected a physics-informed one with the layer "
                "ptychonnx.train.tensorflow.layers.Features"
            )
        (last,) = (layer for layer in model.layers if isinstance(layer, Refinement))
        self.preparation = BeamPreparation(last.retrieval.constants)

    def call(
        self, inputs: Sequence[tf.Tensor], beam: Sequence[tf.Tensor] = (), training: bool = False
    ) -> tf.Tensor:
        """Object parts for the inputs of the network and probe, mask and scale, with shapes as in `tensorflow.beam`."""
        with beam_in_use(self.preparation(*beam)):
            return self.model(_joined(inputs), training=training)

    def predict(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        *patterns, probe, mask, scale = map(tf.constant, inputs)
        return np.asarray(self.call(patterns, (probe, mask, scale)), dtype=np.float32)

    def layers(self, *inputs: NDArray[np.float32]) -> list[LayerOutput]:
        *patterns, probe, mask, scale = map(tf.constant, inputs)
        with beam_in_use(self.preparation(probe, mask, scale)):
            return super().layers(*patterns)


def _joined(inputs: Sequence[NDArray | tf.Tensor]) -> Inputs:
    """What a Keras model with that many inputs takes."""
    tensors = [tf.convert_to_tensor(values) for values in inputs]
    return tensors if len(tensors) > 1 else tensors[0]


def save_weights(model: keras.Model, path: Path, *others: keras.Variable) -> None:
    """Write the weights of a model, and of its optimiser if it has one.

    Raises OSError if the disk is full. HDF5 itself ends the process with a segmentation fault then, so space is
    allocated first.

    `others`: further variables to write.
    """
    variables = [*model.variables, *others]
    needed = sum(2 * np.asarray(variable).nbytes + 4096 for variable in variables)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, needed)
    model.save_weights(path, overwrite=True)


def _read_from(layer: keras.Layer) -> tuple[str, ...]:
    """Names of the layers whose outputs a layer of a functional model takes."""
    tensors = keras.tree.flatten(layer.input)
    return tuple(dict.fromkeys(tensor._keras_history.operation.name for tensor in tensors))


def build_network(
    architecture: Architecture,
    config: NetworkConfig,
    constants: RetrievalConstants,
    seed: int,
    *,
    policy: str = "float32",
    scope: AbstractContextManager[object] | None = None,
) -> KerasNetwork:
    """A network with initial weights; the same seed gives the same weights.

    A physics-informed one ends with the final steps of phase retrieval.

    Raises InputError if the output has another shape than [B, N, N, C, 2].

    * `policy`: data type in which its layers compute, a name of `keras.DTypePolicy`; their weights are float32.
    * `scope`: scope of the strategy that will train it.
    """
    build = architecture.load_builder()
    # The search for garbage takes up to a second, since both frameworks hold a million objects.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(policy)
    try:
        with scope or nullcontext():
            model = build(config, constants)
            check_output(architecture, config, KerasNetwork(model))
            return KerasNetwork(model if architecture.supervised else refined(model, constants))
    finally:
        keras.config.set_dtype_policy("float32")
