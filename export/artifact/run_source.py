"""Source of an export: the network of a run, held-out patterns, and the beam of a general artifact."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ptychonnx.export.artifact.export_options import ExportOptions
from ptychonnx.export.verification.beam_inputs import smooth_patterns
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.beam_arrays import probe_arrays, strongest_modes
from ptychonnx.runtime.scan.grouping import group_offsets, nearest_groups
from ptychonnx.train.registry import get_architecture
from ptychonnx.train.run import Family, LayerOutput, NativeNetwork, RunRecord, resized_probe

if TYPE_CHECKING:
    from ptychonnx.train.tensorflow.network import KerasNetwork
    from ptychonnx.train.torch.network import TorchNetwork

__all__ = ["RunSource", "WithDefaults", "check_size", "resized"]

_COMPARED_PATTERNS = 20


def check_size(record: RunRecord, n: int, options: ExportOptions) -> None:
    """Refuse another size than that of training where the weights do not fit it."""
    if not get_architecture(record.architecture).any_size:
        raise InputError(
            f"--n {n}: {record.label} has weights for patterns of {record.network.n} pixels only, expected another "
            "architecture, such as fno or hybrid"
        )
    if not options.general:
        raise InputError(f"--n {n}: the probe of training has another size, expected --general with it")
    if n < max(16, record.network.modes):
        raise InputError(f"--n {n}: expected at least {max(16, record.network.modes)} pixels")


def resized(scan: Scan, record: RunRecord) -> Scan:
    """Simulated patterns of another size, with the training probe in a window of that size and with its photons."""
    assert scan.probe is not None
    n = record.network.n
    probe = resized_probe(scan.probe, n).astype(np.complex64)
    patterns = smooth_patterns(probe, np.ones((n, n), dtype=bool), 1)[:, 0]
    side = np.arange(4) * n / 8 + n
    positions = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    return Scan(patterns, positions, probe, name=f"smooth objects of {n} pixels")


@dataclass(frozen=True)
class RunSource:
    """A finished run: its network with trained and with initial weights, and patterns that training did not see.

    `trained_n` is the size of the patterns of training, from which that of the network may differ; `held_out` has
    patterns of each scan of the training, and `family` is the simulated family of the training, if it was one.
    """

    record: RunRecord
    network: NativeNetwork
    initial: NativeNetwork
    scan: Scan
    trained_n: int
    held_out: tuple[Scan, ...]
    family: Family | None = None

    @property
    def takes_offsets(self) -> bool:
        return get_architecture(self.record.architecture).takes_offsets(self.record.network)

    def example(self) -> tuple[NDArray[np.float32], ...]:
        """Every input of the network, for some held-out groups."""
        groups = nearest_groups(self.scan.positions, self.record.network.channels)[:_COMPARED_PATTERNS]
        diffraction = self.scan.diffraction[groups]
        if not self.takes_offsets:
            return (diffraction,)
        return diffraction, group_offsets(self.scan.positions, groups)

    def amplitude(self, patterns: NDArray) -> NDArray[np.float32]:
        """Input of the native network, from amplitudes or counts."""
        if patterns.dtype != np.uint16:
            return patterns
        counts = patterns if self.scan.mask is None else patterns * self.scan.mask
        return np.sqrt(counts.astype(np.float32))

    def beam(self, options: ExportOptions) -> dict[str, NDArray[np.float32]]:
        """Defaults of a general artifact: the beam of the training scan, of which the strongest mode stands for all
        where the number of modes is free.
        """
        probe = self.scan.probe
        assert probe is not None
        if options.any_modes:
            strongest, lost = strongest_modes(probe, 1)
            probe = strongest / np.float32(np.sqrt(1 - lost))
        modes = options.modes or len(probe)
        arrays = probe_arrays(probe, self.scan.mask, self.record.flux, modes, self.record.scan)
        return arrays | {"scale": np.asarray(self.record.scale, dtype=np.float32)}

    def general(self, beam: dict[str, NDArray[np.float32]]) -> RunSource:
        """The same run, whose networks take the beam as inputs with defaults."""
        network, initial = (
            WithDefaults(cast("TorchNetwork | KerasNetwork", network).general(), beam)
            for network in (self.network, self.initial)
        )
        return replace(self, network=network, initial=initial)

    def predict(self, patterns: NDArray, *others: NDArray) -> NDArray:
        if patterns.dtype == np.uint16 and isinstance(self.network, WithDefaults):
            # The mask may be an input too.
            mask = others[-2] if len(others) > self.takes_offsets else self.network.beam["mask"]
            return self.network.predict(np.sqrt(patterns * mask), *others)
        return self.network.predict(self.amplitude(patterns), *others)

    def layers(self, patterns: NDArray, *offsets: NDArray) -> list[LayerOutput]:
        return self.network.layers(self.amplitude(patterns), *offsets)


class WithDefaults:
    """A general network that falls back to one beam, as the artifact does."""

    def __init__(self, network: NativeNetwork, beam: dict[str, NDArray[np.float32]]) -> None:
        self.network, self.beam = network, beam

    def predict(self, *inputs: NDArray) -> NDArray[np.float32]:
        return self.network.predict(*self._complete(inputs))

    def layers(self, *inputs: NDArray) -> list[LayerOutput]:
        return self.network.layers(*self._complete(inputs))

    def tensors(self) -> dict[str, NDArray]:
        return self.network.tensors()

    def _complete(self, inputs: tuple[NDArray, ...]) -> tuple[NDArray, ...]:
        # The scale comes last and has no axes.
        return inputs if inputs[-1].ndim == 0 else (*inputs, *self.beam.values())
