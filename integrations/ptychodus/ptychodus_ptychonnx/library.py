"""The library of reconstructors, its settings, and its registration."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from ptychodus.api.reconstruct import Reconstructor, ReconstructorLibrary
from ptychodus.api.settings import SettingsRegistry
from ptychodus.model import ModelCore

from ptychodus_ptychonnx.reconstructor import NetworkReconstructor, TaskMonitor

__all__ = ["ALGORITHM", "NetworkLibrary", "NetworkSettings", "register"]

# Name of the reconstructor in the settings of ptychodus: library and reconstructor.
ALGORITHM = "ptychonnx_network"


class NetworkSettings:
    """The group `ptychonnx` of the settings file.

    Attributes
    ----------
    provider
        Where the network runs, see `ptychonnx.Session`.
    epochs
        Epochs of mPIE after the network.
    architecture, training_epochs
        What `ptychonnx train` trains.
    python
        Interpreter with a training framework; ptychodus itself needs none.
    """

    def __init__(self, registry: SettingsRegistry) -> None:
        group = registry.create_group("ptychonnx")
        self.provider = group.create_string_parameter("Provider", "auto")
        self.epochs = group.create_integer_parameter("RefinementEpochs", 0, minimum=0)
        self.architecture = group.create_string_parameter("Architecture", "fno")
        self.training_epochs = group.create_integer_parameter("TrainingEpochs", 20, minimum=1)
        self.python = group.create_string_parameter("TrainingPython", sys.executable)


class NetworkLibrary(ReconstructorLibrary):
    """One reconstructor, `Network`, which runs the network that is loaded."""

    def __init__(self, registry: SettingsRegistry, monitor: TaskMonitor) -> None:
        super().__init__("ptychonnx")
        self.settings = NetworkSettings(registry)
        self._reconstructor = NetworkReconstructor(self.settings, monitor)

    @property
    def name(self) -> str:
        """Key of the library, in the names of its algorithms."""
        return "ptychonnx"

    def __iter__(self) -> Iterator[Reconstructor]:
        return iter((self._reconstructor,))


def register(model: ModelCore) -> None:
    """Add the library to a running ptychodus.

    Settings are opened afterwards: an algorithm that ptychodus does not know yet is dropped from them.
    """
    core = model.processing_core
    if ALGORITHM in core.algorithm_parameter.available_reconstructors():
        return
    library = NetworkLibrary(model.settings_registry, core.processing_api.task_monitor)
    if hasattr(core, "register_library"):
        core.register_library(library)
        return
    # ptychodus 1.7 names its libraries in its own code.
    algorithms: Any = core.algorithm_parameter
    algorithms._libraries.append(library)
    for reconstructor in library:
        algorithms._reconstructor_map[algorithms.generate_key(library.name, reconstructor.name)] = (
            reconstructor
        )
    library.get_logger().addHandler(core.processing_api.task_monitor.get_log_handler())
