"""Keras networks: built from settings, with weights in HDF5."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from train.config import NetworkConfig
from train.first_guess import FirstGuess
from train.registry import Architecture, get_architecture
from train.run import LayerOutput, RunRecord, recorded_guess

__all__ = ["CHECKPOINT_NAME", "KerasNetwork", "build_network", "initial_network", "load_network"]

CHECKPOINT_NAME = "checkpoint.weights.h5"


class KerasNetwork:
    """A `keras.Model` from amplitudes [B, C, N, N] to object parts [B, N, N, C, 2]."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model

    def predict(self, diffraction: NDArray[np.float32]) -> NDArray[np.float32]:
        """Object parts float32 [B, N, N, C, 2] of measured amplitudes float32 [B, C, N, N]."""
        return np.asarray(self.model(np.ascontiguousarray(diffraction), training=False))

    def tensors(self) -> dict[str, NDArray]:
        """Every trainable variable by path."""
        return {variable.path: variable.numpy() for variable in self.model.trainable_variables}

    def layers(self, diffraction: NDArray[np.float32]) -> list[LayerOutput]:
        """What every layer gives for an input, none before those it reads from."""
        inside = [layer for layer in self.model.layers if not isinstance(layer, keras.layers.InputLayer)]
        every = keras.Model(self.model.inputs, [layer.output for layer in inside])
        outputs = every([np.ascontiguousarray(diffraction)], training=False)
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
        self.model.save_weights(folder / CHECKPOINT_NAME)


def _read_from(layer: keras.Layer) -> tuple[str, ...]:
    """Names of the layers whose outputs a layer of a functional model takes."""
    tensors = keras.tree.flatten(layer.input)
    return tuple(dict.fromkeys(tensor._keras_history.operation.name for tensor in tensors))


def build_network(
    architecture: Architecture, config: NetworkConfig, guess: FirstGuess, seed: int
) -> KerasNetwork:
    """A network with initial weights; the same seed gives the same weights."""
    build = architecture.load_builder()
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    return KerasNetwork(build(config, guess))


def initial_network(folder: Path, record: RunRecord) -> KerasNetwork:
    """The network of a run as it was before training."""
    guess = recorded_guess(folder, record)
    return build_network(get_architecture(record.architecture), record.network, guess, record.training.seed)


def load_network(folder: Path, record: RunRecord) -> KerasNetwork:
    """The network of a run with its trained weights.

    Raises
    ------
    InputError
        If the checkpoint is missing, unreadable, or of another network.
    """
    network = initial_network(folder, record)
    path = Path(folder) / CHECKPOINT_NAME
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected the trained weights")
    try:
        network.model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not the weights of this network ({str(error).splitlines()[0]})") from error
    return network
