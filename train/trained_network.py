"""Networks, whatever their framework: trained ones from their run, and what every one has to give."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np

from ptychonnx.runtime.errors import InputError
from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.registry import Architecture, get_architecture, import_framework_module
from ptychonnx.train.run import NativeNetwork, RunRecord

__all__ = ["check_output", "initial_network", "load_network"]

_BATCH = 3  # neither the channels of a gridsize, nor the two parts


def load_network(folder: Path, record: RunRecord) -> NativeNetwork:
    """The network of a run with its trained weights.

    Raises
    ------
    InputError
        If the framework is not installed, the checkpoint is missing or does not fit, or its weights meant another
        network when they were trained.
    """
    _require_revision(folder, record)
    return _module(record).load_network(folder, record)


def initial_network(folder: Path, record: RunRecord) -> NativeNetwork:
    """The network of a run as it was before training, built again from the seed.

    Raises
    ------
    InputError
        As `load_network`.
    """
    _require_revision(folder, record)
    return _module(record).initial_network(folder, record)


def check_output(architecture: Architecture, config: NetworkConfig, network: NativeNetwork) -> None:
    """Run a network that was just built on empty patterns, and refuse it if what it gives has another shape.

    Raises
    ------
    InputError
        With the shapes that were found and expected, or if it takes no offsets with a gridsize above 1.
    """
    channels = config.channels
    patterns = np.zeros((_BATCH, channels, config.n, config.n), dtype=np.float32)
    if architecture.takes_offsets(config):
        try:
            output = network.predict(patterns, np.zeros((_BATCH, channels, 2), dtype=np.float32))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"architecture {architecture.name!r}: its network does not take amplitudes and offsets, as --gridsize "
                f"{config.gridsize} wants it ({str(error).strip().splitlines()[0]})"
            ) from error
    else:
        output = network.predict(patterns)
    expected = (_BATCH, config.n, config.n, channels, 2)
    if output.shape != expected or output.dtype != np.float32:
        raise InputError(
            f"architecture {architecture.name!r}: for patterns [{_BATCH}, {channels}, {config.n}, {config.n}] its "
            f"network gives {output.dtype} {list(output.shape)}, expected float32 {list(expected)}: "
            "real and imaginary part of the object last"
        )


def _require_revision(folder: Path, record: RunRecord) -> None:
    now = get_architecture(record.architecture).revision
    if record.revision != now:
        raise InputError(
            f"{folder}: was trained with revision {record.revision} of the architecture {record.architecture!r}, "
            f"which is at {now} now: train it again"
        )


def _module(record: RunRecord) -> ModuleType:
    return import_framework_module(f"ptychonnx.train.{record.framework}.network", record.framework)
