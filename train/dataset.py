"""Input of both training loops: patterns of one or more scans in groups of neighbours, with the beam of each scan."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, illumination
from ptychonnx.runtime.scan.grouping import group_offsets, nearest_groups
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.overlap_consistency import NEIGHBOURS, overlap_disagreement
from ptychonnx.train.registry import Architecture
from ptychonnx.train.scan_checks import check_probe_power, check_repeated_patterns, check_trainable

__all__ = ["SCALE_RULE", "ScanBeam", "TrainingData", "combine", "prepare"]

SCALE_RULE = "N / sqrt(mean photons in a training pattern): the scaled amplitude has a root mean square of 1"
_MIN_HELD_OUT = 16
_BLOCK = 9  # neighbouring patterns that are held out together
_DARKEST = 1e-4
_MAX_NEIGHBOURHOODS = 64
# Groups of many scans whose loss is measured after an epoch.
_MAX_SCORED = 512
_NEIGHBOURHOODS_AT_ONCE = 8


@dataclass(frozen=True)
class ScanBeam:
    """What the patterns of one scan have in common.

    * `probe`: complex64 [modes, N, N], in sqrt(photons).
    * `mask`: bool [N, N].
    * `scale`: factor from amplitude to network input, see `SCALE_RULE`.
    * `sha256`: hash of patterns, positions and probe.
    """

    name: str
    probe: NDArray[np.complex64]
    mask: NDArray[np.bool_]
    scale: float
    sha256: str

    @cached_property
    def weight(self) -> NDArray[np.float32]:
        """Illumination sum_modes |P|^2 [N, N] with a mean of 1; positive everywhere, so that it can be a divisor."""
        density = illumination(self.probe)
        return (density / density.mean() + _DARKEST).astype(np.float32)

    @property
    def flux(self) -> float:
        """Mean photons in a pattern."""
        return float((self.probe.shape[-1] / self.scale) ** 2)


@dataclass(frozen=True)
class TrainingData:
    """One or more scans, ready for training.

    A row of `train` or `held_out` is a group of neighbouring patterns of one scan, whose patches the physics loss
    merges. The network sees them C at a time, so a group has a multiple of C members.

    * `diffraction`: float32 [n, N, N], amplitude as measured; the network applies the scale itself.
    * `positions`: float64 [n, 2] (row, column), pixels, on the canvas of the scan.
    * `beams`: beam of each scan; the first one is the default of the network.
    * `beam_of`: int [n], index into `beams` for each pattern.
    * `channels`, `takes_offsets`: C: patterns that the network sees at a time; whether it takes their offsets.
    * `train`, `held_out`: int [groups, members], indices into the patterns; no pattern is in both.
    * `neighbourhoods`: int [groups, members], held-out patterns (at most 64) with their nearest neighbours in the whole
      scan, for the disagreement of their patches.
    * `labels`: complex64 [n, N, N], the object in each window (supervised training only).
    * `sha256`: hash of patterns, positions and probes.
    """

    diffraction: NDArray[np.float32]
    positions: NDArray[np.float64]
    beams: tuple[ScanBeam, ...]
    beam_of: NDArray[np.intp]
    channels: int
    takes_offsets: bool
    train: NDArray[np.intp]
    held_out: NDArray[np.intp]
    neighbourhoods: NDArray[np.intp]
    labels: NDArray[np.complex64] | None
    sha256: str

    @property
    def beam(self) -> ScanBeam:
        """The beam of the first scan, which a network has as its default."""
        return self.beams[0]

    @property
    def scale(self) -> float:
        """Scale of the default beam."""
        return self.beam.scale

    @property
    def flux(self) -> float:
        """Mean photons in a pattern of the first scan."""
        return self.beam.flux

    @property
    def padded_probes(self) -> tuple[NDArray[np.complex64], NDArray[np.intp]]:
        """Probes of all beams [beams, modes, N, N], filled up with dark modes, and the number of modes of each."""
        modes = np.array([len(beam.probe) for beam in self.beams])
        table = np.zeros((len(modes), modes.max(), *self.beam.probe.shape[1:]), dtype=np.complex64)
        for row, beam in zip(table, self.beams, strict=True):
            row[: len(beam.probe)] = beam.probe
        return table, modes

    @property
    def beam_tables(self) -> dict[str, NDArray]:
        """Weights and masks [beams, N, N] and scales float32 [beams] of all beams."""
        return {
            "weights": np.stack([beam.weight for beam in self.beams]),
            "masks": np.stack([beam.mask for beam in self.beams]),
            "scales": np.array([beam.scale for beam in self.beams], dtype=np.float32),
        }

    @property
    def scored(self) -> NDArray[np.intp]:
        """Rows of `held_out` whose loss is measured after every epoch: all of one scan, a few of each of many."""
        if len(self.beams) == 1:
            return self.held_out
        step = max(1, len(self.held_out) // _MAX_SCORED)
        return self.held_out[::step]

    @property
    def groups_in_epoch(self) -> int:
        """Groups in an epoch, such that an epoch sees about as many patterns as the scan has."""
        return -(-len(self.train) // self.train.shape[1])

    def groups_in_step(self, training: TrainingConfig) -> int:
        """Groups in an optimiser step, for about `batch` patterns; at most those of an epoch."""
        return min(max(1, training.batch // self.train.shape[1]), self.groups_in_epoch)

    def steps(self, training: TrainingConfig) -> int:
        """Optimiser steps of the whole training; an incomplete step at the end of an epoch is dropped."""
        return training.epochs * self.steps_in_epoch(training)

    def steps_in_epoch(self, training: TrainingConfig) -> int:
        return self.groups_in_epoch // self.groups_in_step(training)

    def order(self, training: TrainingConfig, epoch: int) -> NDArray[np.intp]:
        """Rows of `train` [steps, groups in a step] of an epoch, from 0.

        It depends on seed and epoch alone, so a resumed training sees the same order as an uninterrupted one. A step
        mixes scans whose beams have equally many modes, since all beams of a step are computed with the same number.
        """
        steps, groups = self.steps_in_epoch(training), self.groups_in_step(training)
        rng = np.random.default_rng([training.seed, epoch])
        order = rng.permutation(len(self.train))[: steps * groups]
        if len(self.beams) == 1:
            return order.reshape(steps, groups)
        modes = np.array([len(beam.probe) for beam in self.beams])[self.beam_of[self.train[order, 0]]]
        return rng.permutation(order[np.argsort(modes, kind="stable")].reshape(steps, groups))

    def offsets(self, groups: NDArray[np.intp]) -> NDArray[np.int64]:
        """Whole-pixel offsets [groups, members, 2] of the windows inside their group, the smallest being 0."""
        positions = np.rint(self.positions[groups]).astype(np.int64)
        return positions - positions.min(axis=1, keepdims=True)

    def inputs(self, groups: NDArray[np.intp]) -> tuple[NDArray[np.float32], ...]:
        """Inputs of the network for groups [groups, members]: amplitudes [B, C, N, N] and, if it takes them, offsets
        [B, C, 2].
        """
        seen = groups.reshape(-1, self.channels)
        amplitude = self.diffraction[seen]
        return (amplitude, group_offsets(self.positions, seen)) if self.takes_offsets else (amplitude,)

    def disagreement(self, predict: Callable[..., NDArray[np.float32]]) -> float:
        """Disagreement of the patches of `neighbourhoods`, see `ptychonnx.train.overlap_consistency`.

        `predict`: function that returns object parts [B, N, N, C, 2] for the beam [groups] of each of some groups and
        for their `inputs`.
        """
        size, members = self.diffraction.shape[-1], self.neighbourhoods.shape[1]
        patches = []
        for first in range(0, len(self.neighbourhoods), _NEIGHBOURHOODS_AT_ONCE):
            groups = self.neighbourhoods[first : first + _NEIGHBOURHOODS_AT_ONCE]
            parts = predict(self.beam_of[groups[:, 0]], *self.inputs(groups)).astype(np.float64)
            objects = np.moveaxis(parts[..., 0] + 1j * parts[..., 1], -1, 1)
            patches.append(objects.reshape(-1, members, size, size))
        offsets = self.offsets(self.neighbourhoods)
        weights = np.stack([beam.weight for beam in self.beams])[self.beam_of[self.neighbourhoods[:, 0]]]
        return overlap_disagreement(np.concatenate(patches), offsets, weights)


def prepare(
    scan: Scan,
    network: NetworkConfig,
    training: TrainingConfig,
    architecture: Architecture,
    *,
    distilled: bool = False,
) -> TrainingData:
    """Check a scan against the settings and split it.

    Held-out patterns are drawn with the seed, each with its neighbours, because only overlapping patterns show whether
    their patches agree. No training group contains one of them. A `distilled` network learns from labels, whatever its
    architecture.

    Raises InputError if the scan cannot train this network, see `ptychonnx.train.scan_checks`, has too few patterns, or
    no known object for a supervised network.
    """
    check_trainable(scan, network.n)
    assert scan.probe is not None
    if not architecture.supervised:
        check_probe_power(scan)
    # Training sees every pattern many times, in any order.
    diffraction = np.asarray(scan.diffraction)
    check_repeated_patterns(scan.name, diffraction)
    supervised = architecture.supervised or distilled
    labels = _labels(scan) if supervised else None
    channels = network.channels
    neighbours = 1 if supervised else training.overlap
    held_out_count = max(_MIN_HELD_OUT, round(len(scan) * training.validation))
    needed = held_out_count + max(channels, neighbours, _MIN_HELD_OUT)
    if len(scan) < needed:
        raise InputError(
            f"{scan.name}: {len(scan)} patterns are too few, expected at least {needed} "
            f"({held_out_count} of them are held out)"
        )
    held_out, train = _split(scan.positions, held_out_count, training.seed)
    sha256 = _sha256(diffraction, scan)
    beam = ScanBeam(
        name=scan.name,
        probe=scan.probe,
        mask=scan.valid_pixels,
        scale=float(scan.size / np.sqrt(scan.flux)),
        sha256=sha256,
    )
    return TrainingData(
        diffraction=diffraction,
        positions=scan.positions,
        beams=(beam,),
        beam_of=np.zeros(len(scan), dtype=np.intp),
        channels=channels,
        takes_offsets=architecture.takes_offsets(network),
        train=train[_groups(scan.positions[train], channels, neighbours)],
        held_out=held_out[_groups(scan.positions[held_out], channels, neighbours)],
        neighbourhoods=_groups(scan.positions, channels, NEIGHBOURS)[_spread_sample(held_out)],
        labels=labels,
        sha256=sha256,
    )


def combine(parts: Sequence[TrainingData]) -> TrainingData:
    """Data of several scans in one: groups stay within their scan, steps mix them.

    The neighbourhoods are thinned to about as many as one scan has.
    """
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.diffraction) for part in parts)])
    kept = -(-_MAX_NEIGHBOURHOODS // len(parts))

    def shifted(name: str) -> NDArray[np.intp]:
        groups = [getattr(part, name) + start for part, start in zip(parts, starts, strict=False)]
        return np.concatenate([rows[:kept] for rows in groups] if name == "neighbourhoods" else groups)

    labels = [part.labels for part in parts if part.labels is not None]
    digest = hashlib.sha256("".join(part.sha256 for part in parts).encode())
    return replace(
        parts[0],
        diffraction=np.concatenate([part.diffraction for part in parts]),
        positions=np.concatenate([part.positions for part in parts]),
        beams=tuple(part.beam for part in parts),
        beam_of=np.repeat(np.arange(len(parts)), [len(part.diffraction) for part in parts]),
        train=shifted("train"),
        held_out=shifted("held_out"),
        neighbourhoods=shifted("neighbourhoods"),
        labels=np.concatenate(labels) if labels else None,
        sha256=digest.hexdigest(),
    )


def _split(
    positions: NDArray[np.float64], held_out: int, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of held-out patterns, whole neighbourhoods of patterns drawn at random, and of the others."""
    near = nearest_groups(positions, min(_BLOCK, len(positions)))
    order = near[np.random.default_rng(seed).permutation(len(positions))].ravel()
    # Where more patterns than a neighbourhood holds share one position, some are in none of them.
    order = np.append(order, np.arange(len(positions)))
    _, first = np.unique(order, return_index=True)
    chosen = order[np.sort(first)]
    return np.sort(chosen[:held_out]), np.sort(chosen[held_out:])


def _groups(positions: NDArray[np.float64], channels: int, neighbours: int) -> NDArray[np.intp]:
    """Indices [n, neighbours * channels]: for each pattern the group that the network sees with it, then the groups of
    its nearest neighbours.
    """
    seen = nearest_groups(positions, channels)
    return seen[nearest_groups(positions, neighbours)].reshape(len(positions), -1)


def _spread_sample(held_out: NDArray[np.intp]) -> NDArray[np.intp]:
    return held_out[np.linspace(0, len(held_out) - 1, min(len(held_out), _MAX_NEIGHBOURHOODS)).astype(int)]


def _labels(scan: Scan) -> NDArray[np.complex64]:
    if scan.labels is not None:
        return scan.labels
    if scan.reference is None:
        raise InputError(f"{scan.name}: has no known object, which the supervised network learns from")
    return cut_windows(scan.reference.object, scan.positions, scan.size, scan.reference.origin)


def _sha256(diffraction: NDArray[np.float32], scan: Scan) -> str:
    digest = hashlib.sha256()
    for array in (diffraction, scan.positions, scan.probe):
        if array is not None:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
