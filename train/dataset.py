"""What both training loops are fed: patterns in groups of neighbours, and the scales that go with them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.grouping import nearest_groups
from runtime.physics import cut_windows, illumination
from runtime.scan import Scan
from train.config import NetworkConfig, TrainingConfig
from train.disagreement import NEIGHBOURS, overlap_disagreement

__all__ = ["SCALE_RULE", "TrainingData", "prepare"]

SCALE_RULE = "N / sqrt(mean photons in a training pattern): the scaled amplitude has a root mean square of 1"
_MIN_HELD_OUT = 16
_DARKEST = 1e-4
_MAX_NEIGHBOURHOODS = 64
_NEIGHBOURHOODS_AT_ONCE = 8


@dataclass(frozen=True)
class TrainingData:
    """One scan, ready for training.

    A row of `train` or `held_out` is a group of patterns that lie together: its patches are merged by the physics
    loss. The network sees them C at a time, so a group has a multiple of C members.

    Attributes
    ----------
    diffraction
        float32 [n, N, N], amplitude as measured; the network applies `scale` itself.
    positions
        float64 [n, 2] (row, column), pixels.
    probe
        complex64 [modes, N, N], in sqrt(photons).
    mask
        bool [N, N].
    train, held_out
        int [groups, members], indices into the patterns; no pattern is in both.
    neighbourhoods
        int [groups, members], held-out patterns (at most 64) with those nearest to them in the whole scan, to see
        how much their patches disagree.
    scale
        Factor from amplitude to network input, see `SCALE_RULE`.
    labels
        complex64 [n, N, N], the object in each window (supervised training only).
    sha256
        Hash of what was trained on.
    """

    diffraction: NDArray[np.float32]
    positions: NDArray[np.float64]
    probe: NDArray[np.complex64]
    mask: NDArray[np.bool_]
    train: NDArray[np.intp]
    held_out: NDArray[np.intp]
    neighbourhoods: NDArray[np.intp]
    scale: float
    labels: NDArray[np.complex64] | None
    sha256: str

    @property
    def flux(self) -> float:
        """Mean photons in a pattern."""
        return float((self.diffraction.shape[-1] / self.scale) ** 2)

    @property
    def groups_in_epoch(self) -> int:
        """Groups drawn in an epoch, so that an epoch sees about as many patterns as there are."""
        return -(-len(self.train) // self.train.shape[1])

    def groups_in_step(self, training: TrainingConfig) -> int:
        """Groups in an optimiser step, for about `batch` patterns; never more than an epoch has."""
        return min(max(1, training.batch // self.train.shape[1]), self.groups_in_epoch)

    def steps(self, training: TrainingConfig) -> int:
        """Optimiser steps of the whole training; what is left over of an epoch makes no step of its own."""
        return training.epochs * self.steps_in_epoch(training)

    def steps_in_epoch(self, training: TrainingConfig) -> int:
        """Optimiser steps of an epoch."""
        return self.groups_in_epoch // self.groups_in_step(training)

    def order(self, training: TrainingConfig, epoch: int) -> NDArray[np.intp]:
        """Rows of `train` [steps, groups in a step] of an epoch, from 0.

        A function of seed and epoch alone: a resumed training sees what an uninterrupted one does.
        """
        steps, groups = self.steps_in_epoch(training), self.groups_in_step(training)
        order = np.random.default_rng([training.seed, epoch]).permutation(len(self.train))
        return order[: steps * groups].reshape(steps, groups)

    def offsets(self, groups: NDArray[np.intp]) -> NDArray[np.int64]:
        """Whole-pixel offsets [groups, members, 2] of the windows inside their group, the smallest being 0."""
        positions = np.rint(self.positions[groups]).astype(np.int64)
        return positions - positions.min(axis=1, keepdims=True)

    def disagreement(
        self, predict: Callable[[NDArray[np.float32]], NDArray[np.float32]], channels: int
    ) -> float:
        """How much the patches of `neighbourhoods` disagree, see `train.disagreement`.

        Parameters
        ----------
        predict
            Object parts [B, N, N, C, 2] of amplitudes [B, C, N, N].
        """
        size, members = self.diffraction.shape[-1], self.neighbourhoods.shape[1]
        patches = []
        for first in range(0, len(self.neighbourhoods), _NEIGHBOURHOODS_AT_ONCE):
            groups = self.neighbourhoods[first : first + _NEIGHBOURHOODS_AT_ONCE]
            parts = predict(self.diffraction[groups].reshape(-1, channels, size, size)).astype(np.float64)
            found = np.moveaxis(parts[..., 0] + 1j * parts[..., 1], -1, 1)
            patches.append(found.reshape(-1, members, size, size))
        offsets = self.offsets(self.neighbourhoods)
        return overlap_disagreement(np.concatenate(patches), offsets, self.weight())

    def weight(self) -> NDArray[np.float32]:
        """Illumination sum_modes |P|^2 [N, N] with a mean of 1, and nowhere 0, so that it can be divided by."""
        density = illumination(self.probe)
        return (density / density.mean() + _DARKEST).astype(np.float32)


def prepare(
    scan: Scan, network: NetworkConfig, training: TrainingConfig, *, supervised: bool
) -> TrainingData:
    """Check a scan against the settings and split it.

    Held-out patterns are drawn at random with the seed. A group that trains holds none of them.

    Raises
    ------
    InputError
        If the scan has another N, no probe, no light, too few patterns, or no known object for a supervised network.
    """
    if scan.size != network.n:
        raise InputError(
            f"{scan.name}: patterns are {scan.size} x {scan.size} pixels, the network has n = {network.n}"
        )
    if scan.probe is None:
        raise InputError(f"{scan.name}: has no probe, which training needs for the physics and the weights")
    # Training sees every pattern many times, in any order.
    diffraction = np.asarray(scan.diffraction)
    if scan.flux == 0:
        raise InputError(f"{scan.name}: every pattern is zero, expected photons")
    labels = _labels(scan) if supervised else None
    channels = network.gridsize**2
    members = channels if supervised or channels > 1 else training.overlap
    held_out_count = max(_MIN_HELD_OUT, round(len(scan) * training.validation))
    if len(scan) < held_out_count + max(members, _MIN_HELD_OUT):
        raise InputError(
            f"{scan.name}: {len(scan)} patterns are too few, expected at least "
            f"{held_out_count + max(members, _MIN_HELD_OUT)} ({held_out_count} of them are held out)"
        )
    order = np.random.default_rng(training.seed).permutation(len(scan))
    held_out, train = np.sort(order[:held_out_count]), np.sort(order[held_out_count:])
    return TrainingData(
        diffraction=diffraction,
        positions=scan.positions,
        probe=scan.probe,
        mask=np.ones((scan.size, scan.size), dtype=bool) if scan.mask is None else scan.mask,
        train=train[nearest_groups(scan.positions[train], members)],
        held_out=held_out[nearest_groups(scan.positions[held_out], members)],
        neighbourhoods=_neighbourhoods(scan, held_out, channels if channels > 1 else NEIGHBOURS),
        scale=float(scan.size / np.sqrt(scan.flux)),
        labels=labels,
        sha256=_sha256(diffraction, scan),
    )


def _neighbourhoods(scan: Scan, held_out: NDArray[np.intp], members: int) -> NDArray[np.intp]:
    chosen = held_out[np.linspace(0, len(held_out) - 1, min(len(held_out), _MAX_NEIGHBOURHOODS)).astype(int)]
    return nearest_groups(scan.positions, members)[chosen]


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
