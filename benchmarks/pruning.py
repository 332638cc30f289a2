"""Prune channels of a trained Keras network, as the start of the training of a narrower one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.fine_tuning import InitialWeights
from ptychonnx.train.registry import get_architecture
from ptychonnx.train.run import read_run, recorded_constants

__all__ = ["pruned_source"]


def pruned_source(parent: Path, network: NetworkConfig, folder: Path) -> InitialWeights:
    """Weights for a network of the parent's architecture with fewer channels (`network`), to be trained further.

    Each convolution keeps the output channels whose weights, for the input channels that are kept, have the largest
    norm. Convolutions whose outputs are added keep the same channels.

    Parameters
    ----------
    parent
        Run folder of a Keras network.
    folder
        Folder for the weights, created if missing.
    """
    # Imported here because it loads the framework.
    import keras

    from ptychonnx.train.tensorflow.network import CHECKPOINT_NAME, build_network
    from ptychonnx.train.trained_network import load_network

    record = read_run(parent)
    wide = load_network(parent, record).model
    architecture = get_architecture(record.architecture)
    narrow = build_network(architecture, network, recorded_constants(parent, record), record.training.seed)
    kept: dict[str, NDArray[np.intp]] = {}
    added = {}  # name of the first of the convolutions that are added, by the name of each
    for layer in wide.layers:
        if isinstance(layer, keras.layers.Add):
            names = [_source(tensor).name for tensor in layer.input]
            added |= dict.fromkeys(names, names[0])
    for layer in wide.layers:
        if not isinstance(layer, keras.layers.Conv2D):
            continue
        source = _source(layer.input)
        kernel = layer.kernel.numpy()
        inside = kept.get(source.name, np.arange(kernel.shape[2]))
        kernel = kernel[:, :, inside]
        target = narrow.model.get_layer(layer.name)
        norm = np.sqrt(np.sum(kernel**2, axis=(0, 1, 2)))
        largest = np.sort(np.argsort(-norm, kind="stable")[: target.filters])
        kept[layer.name] = kept.get(added.get(layer.name, layer.name), largest)
        weights = [kernel[..., kept[layer.name]]]
        target.set_weights(weights + ([layer.bias.numpy()[kept[layer.name]]] if layer.use_bias else []))
    folder.mkdir(parents=True, exist_ok=True)
    narrow.save(folder)
    return InitialWeights(folder, record.architecture, network, folder / CHECKPOINT_NAME)


def _source(tensor: object) -> object:
    """The convolution or feature layer that determines the channels of a tensor."""
    import keras

    layer = tensor._keras_history.operation
    passing = (
        keras.layers.Add,
        keras.layers.Activation,
        keras.layers.MaxPooling2D,
        keras.layers.UpSampling2D,
    )
    while isinstance(layer, passing):
        inputs = layer.input
        layer = (inputs[0] if isinstance(inputs, list) else inputs)._keras_history.operation
    return layer
