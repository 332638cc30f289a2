"""Architectures by name. No framework is imported until an architecture is built."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType, ModuleType
from typing import Any, Literal

from ptychonnx.runtime.errors import InputError
from ptychonnx.train.config import NetworkConfig

__all__ = [
    "ENTRY_POINT_GROUP",
    "Architecture",
    "architectures",
    "get_architecture",
    "import_framework_module",
]

ENTRY_POINT_GROUP = "ptychonnx.architectures"


@dataclass(frozen=True)
class Architecture:
    """A kind of network.

    * `name`: name on the command line: a letter, then letters, digits or underscores.
    * `framework`: ``torch`` or ``tensorflow``: determines the training loop and the exporter.
    * `builder`: ``module:name`` of a class or function that takes a `config.NetworkConfig` and
      `initial_retrieval.RetrievalConstants` and returns the network: a `torch.nn.Module` or a `keras.Model` from
      amplitudes [B, C, N, N] to real and imaginary parts [B, N, N, C, 2]. If `takes_offsets`, its second input are the
      offsets [B, C, 2] (row, column) of the windows, in pixels, which it passes on to `Features`.
    * `summary`: one line for `ptychonnx train --list`.
    * `supervised`: whether it learns from the known object instead of the patterns alone.
    * `defaults`: settings of `NetworkConfig` or `TrainingConfig` that differ from the general ones.
    * `revision`: number to increase when the same weights define another network; runs of an earlier revision are
      refused.
    * `unused`: settings of `NetworkConfig` or `TrainingConfig` that it does not have.
    * `any_size`: whether the same weights make a network for patterns of another size (`ptychonnx export --n`).
    """

    name: str
    framework: Literal["torch", "tensorflow"]
    builder: str
    summary: str
    supervised: bool = False
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    revision: int = 1
    unused: frozenset[str] = frozenset()
    any_size: bool = False

    @property
    def label(self) -> str:
        """`pinn_<architecture>`, or `baseline` for the supervised network."""
        return self.name if self.supervised else f"pinn_{self.name}"

    def run_label(self, config: NetworkConfig) -> str:
        """The label, followed by the gridsize if it is not 1: `pinn_<architecture>_grid2` sees 2 x 2 patterns."""
        return self.label if config.gridsize == 1 else f"{self.label}_grid{config.gridsize}"

    def takes_offsets(self, config: NetworkConfig) -> bool:
        """Whether the network takes offsets: it is physics-informed and sees several patterns at a time."""
        return config.channels > 1 and not self.supervised

    def load_builder(self) -> Callable[..., Any]:
        """Import the builder, and with it the framework.

        Raises InputError if the framework is not installed, or the function does not exist.
        """
        module, _, function = self.builder.partition(":")
        builder = getattr(import_framework_module(module, self.framework), function, None)
        if builder is None:
            raise InputError(
                f"architecture {self.name!r}: its builder {self.builder!r} does not exist: {module} has no "
                f"{function or 'function named after a colon'}"
            )
        return builder


def import_framework_module(module: str, framework: str) -> ModuleType:
    """Import a module that needs a framework.

    Raises InputError if the module does not exist, or a package that it needs is not installed; the message names the
    extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise InputError(f"{module}: no such module ({error.name} does not exist)") from error
        raise InputError(
            f'{module} needs {error.name}, which is not installed: pip install "ptychonnx[{framework}]"'
        ) from error


_BUILT_IN = (
    Architecture(
        "cnn",
        "tensorflow",
        "ptychonnx.train.tensorflow.cnn:build",
        "convolutional encoder with two decoders",
        defaults={"blocks": 2},  # a third one adds parameters, but nothing else (docs/results/quality.md)
        unused=frozenset({"modes"}),
    ),
    Architecture(
        "baseline",
        "tensorflow",
        "ptychonnx.train.tensorflow.baseline:build",
        "the same kind of network trained on known objects, after PtychoNN",
        supervised=True,
        # Without phase retrieval it has more to learn.
        defaults={"epochs": 6, "batch": 8, "learning_rate": 1e-3},
        revision=2,  # 1 saw the logarithm of the amplitude
        unused=frozenset({"modes", "first_steps", "final_steps", "loss", "overlap"}),
    ),
    Architecture(
        "fno",
        "torch",
        "ptychonnx.train.torch.fno:Fno",
        "Fourier blocks, then a convolutional refiner",
        any_size=True,
    ),
    Architecture(
        "hybrid",
        "torch",
        "ptychonnx.train.torch.hybrid:Hybrid",
        "U-shaped Fourier encoder, convolutional decoder",
        defaults={"modes": 8},
        any_size=True,
    ),
    Architecture(
        "hybrid_resnet",
        "torch",
        "ptychonnx.train.torch.hybrid_resnet:HybridResnet",
        "Fourier encoder, residual blocks at a quarter of the size, after SRU-Net",
        defaults={"width": 32, "blocks": 4, "modes": 12},
        any_size=True,
    ),
    Architecture(
        "fno_vanilla",
        "torch",
        "ptychonnx.train.torch.fno_vanilla:VanillaFno",
        "the FNO of neuraloperator, unchanged",
    ),
    Architecture(
        "ffno",
        "torch",
        "ptychonnx.train.torch.ffno:Ffno",
        "Fourier blocks factorised into rows and columns, after F-FNO",
        defaults={"modes": 64},  # a weight for each frequency of an axis, so all of them are affordable
    ),
    Architecture(
        "uno",
        "torch",
        "ptychonnx.train.torch.uno:Uno",
        "the U-shaped neural operator of neuraloperator",
        defaults={"modes": 12},
    ),
    Architecture(
        "unet",
        "tensorflow",
        "ptychonnx.train.tensorflow.unet:build",
        "convolutional U-Net with skip connections",
        unused=frozenset({"modes"}),
    ),
)


def architectures() -> dict[str, Architecture]:
    """All architectures by name: the built-in ones, then those of installed packages.

    Raises InputError if a package registers another object, or a name that is taken.
    """
    registered = {architecture.name: architecture for architecture in _BUILT_IN}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in registered:
            raise InputError(f"entry point {point.name!r} ({point.value}): the name {point.name!r} is taken")
        registered[point.name] = _loaded(point)
    return registered


def get_architecture(name: str) -> Architecture:
    """The architecture of that name; a package that cannot be loaded affects its own architectures only.

    Raises InputError if the name is unknown; the message lists all names. If a package registers another object under
    that name.
    """
    built_in = {architecture.name: architecture for architecture in _BUILT_IN}
    if name in built_in:
        return built_in[name]
    points = entry_points(group=ENTRY_POINT_GROUP)
    for point in points:
        if point.name == name:
            return _loaded(point)
    names = dict.fromkeys([*built_in, *(point.name for point in points)])
    raise InputError(f"architecture {name!r} is unknown, expected one of {', '.join(names)}")


def _loaded(point: EntryPoint) -> Architecture:
    where = f"entry point {point.name!r} ({point.value})"
    try:
        architecture = point.load()
    except Exception as error:  # third-party modules may raise anything
        raise InputError(f"{where}: cannot be loaded ({type(error).__name__}: {error})") from error
    if not isinstance(architecture, Architecture):
        raise InputError(f"{where}: expected a ptychonnx.train.registry.Architecture")
    if architecture.name != point.name:
        raise InputError(f"{where}: names its architecture {architecture.name!r}, expected {point.name!r}")
    return architecture
