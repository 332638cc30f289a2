"""Networks of either framework: load those of a run, and check the output of a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.registry import Architecture, get_architecture, import_framework_module
from ptychonnx.train.run import INITIAL_NAME, NativeNetwork, RunRecord, recorded_constants

__all__ = ["check_output", "initial_network", "load_network"]

_BATCH = 3  # differs from every number of channels and from the number of parts


def load_network(folder: Path, record: RunRecord) -> NativeNetwork:
    """The network of a run with its trained weights.

    Raises InputError if the framework is not installed, the checkpoint is missing or does not fit, or the run was
    trained with another revision of the architecture.
    """
    network: Any = initial_network(folder, record)
    network.load(Path(folder))
    return network


def initial_network(folder: Path, record: RunRecord) -> NativeNetwork:
    """The network of a run as it was before training; errors as for `load_network`."""
    architecture = get_architecture(record.architecture)
    if record.revision != architecture.revision:
        raise InputError(
            f"{folder}: was trained with revision {record.revision} of the architecture {record.architecture!r}, "
            f"expected the current revision {architecture.revision}: train it again"
        )
    building = import_framework_module(f"ptychonnx.train.{record.framework}.network", record.framework)
    constants = recorded_constants(Path(folder), record)
    network: Any = building.build_network(architecture, record.network, constants, record.training.seed)
    if record.init_sha256 is not None:
        network.load(Path(folder) / INITIAL_NAME)
    return network


def check_output(architecture: Architecture, config: NetworkConfig, network: NativeNetwork) -> None:
    """Run a new network on empty patterns, and refuse an output of another shape.

    Raises InputError if shape or type of the output is wrong, or the network takes no offsets with a gridsize above 1.
    """
    channels = config.channels
    patterns = np.zeros((_BATCH, channels, config.n, config.n), dtype=np.float32)
    if architecture.takes_offsets(config):
        try:
            output = network.predict(patterns, np.zeros((_BATCH, channels, 2), dtype=np.float32))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"architecture {architecture.name!r}: its network does not take amplitudes and offsets, as --gridsize "
                f"{config.gridsize} requires ({first_line(error)})"
            ) from error
    else:
        output = network.predict(patterns)
    expected = (_BATCH, config.n, config.n, channels, 2)
    if output.shape != expected or output.dtype != np.float32:
        raise InputError(
            f"architecture {architecture.name!r}: for patterns [{_BATCH}, {channels}, {config.n}, {config.n}] its "
            f"network returns {output.dtype} {list(output.shape)}, expected float32 {list(expected)}, with real and "
            "imaginary part of the object last"
        )
