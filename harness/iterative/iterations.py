"""Iterative reconstruction by mPIE or rPIE, from vacuum or from the object of a network.

Momentum is that of mPIE (Maiden, Johnson and Li, Optica 4, 736, 2017), twice in each epoch but the first: with the
object O_before of half an epoch ago,

    V <- eta V + O - O_before,    O <- O + eta V

The last epochs are ePIE without momentum, which averages the noise that large steps have left. After each epoch the
phase that varies slowly is corrected on a coarse grid, and with few photons the total variation of the object may be
lowered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.iterative.algorithm import Algorithm
from ptychonnx.harness.iterative.coarse_phase import CoarsePhase
from ptychonnx.harness.iterative.total_variation import TotalVariation
from ptychonnx.harness.iterative.window_updates import WindowUpdates
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.machine import available_memory
from ptychonnx.runtime.reconstruction.counting_noise import dose, noise_level
from ptychonnx.runtime.reconstruction.stitching import Stitched, StitchedTiles, Stitcher, patch_weight
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import window_corners
from ptychonnx.runtime.scan.probe_geometry import probe_diameter

__all__ = [
    "MOST_EPOCHS",
    "Epochs",
    "Iterations",
    "check_iterative",
    "has_settled",
    "iterate",
    "noise_of_photons",
    "obstacle_to_iterations",
    "vacuum",
]

Epochs = int | Literal["auto"]

# Of `auto`.
MOST_EPOCHS = 100
_LAST, _FALL = 8, 0.06

# Patterns that are read at once.
_AT_ONCE = 64


@dataclass(frozen=True)
class Iterations:
    """Result of an iterative reconstruction.

    * `stitched`: the object on the canvas of the start, with the weights of the start.
    * `probe`: complex64 [modes, N, N], refined or unchanged.
    * `misfit`: after each epoch ``sqrt(sum (A - measured)^2 / sum measured^2)`` over the valid pixels of all patterns,
      with the amplitude A at the time the pattern was visited.
    * `seconds`: time of each epoch; the first includes preparation.
    * `text`: summary of the settings in words.
    """

    stitched: Stitched
    probe: NDArray[np.complex64]
    misfit: tuple[float, ...]
    seconds: tuple[float, ...]
    text: str


def check_iterative(scan: Scan) -> None:
    """Check what `iterate` needs before any work is done.

    Raises InputError with the reason, see `obstacle_to_iterations`.
    """
    if reason := obstacle_to_iterations(scan):
        raise InputError(f"{scan.name}: {reason}")


def obstacle_to_iterations(scan: Scan) -> str:
    """Why a scan cannot be iterated on: no probe, or amplitudes that take more than half of the memory; else empty."""
    if scan.probe is None:
        return (
            "iterations need a probe and the scan has none: give one with --probe (`ptychonnx reconstruct "
            "--estimate-probe` estimates one)"
        )
    size, memory = 4 * len(scan) * scan.size**2, available_memory()
    if memory is not None and size > memory / 2:
        return (
            f"iterations keep all amplitudes in memory, {size / 1e9:.3g} GB, expected at most half of the "
            f"{memory / 1e9:.3g} GB here"
        )
    return ""


def vacuum(scan: Scan) -> Stitched | StitchedTiles:
    """An object of ones on the canvas of a scan, with the weights that stitched patches would have."""
    stitcher = Stitcher(scan.positions, patch_weight("probe", scan.size, scan.probe))
    patch = np.ones((1, scan.size, scan.size), dtype=np.complex64)
    for position in scan.positions:
        stitcher.add(patch, position[None])
    return stitcher.result()


def iterate(
    scan: Scan,
    epochs: Epochs,
    start: Stitched | StitchedTiles | None = None,
    algorithm: Algorithm | None = None,
    *,
    seed: int = 0,
    watch: Callable[[int, Callable[[], NDArray[np.complex64]]], None] = lambda epoch, image: None,
    until: Callable[[Sequence[float]], bool] = lambda misfits: False,
) -> Iterations:
    """Run epochs of mPIE, or of rPIE, on a scan, on the CPU.

    Raises InputError if the scan has no probe, or the canvas is kept in tiles. Raises VerificationError if the
    iterations diverge.

    * `scan`: scan with a probe that is scaled to the counts. Pixels outside the mask are ignored.
    * `epochs`: number of times that each pattern is visited; ``auto``: until the misfit `has_settled`, then the last
      epochs of the algorithm, at most `MOST_EPOCHS` in all.
    * `start`: object to start from, such as that of a network; vacuum if None. Pixels that no patch covers start as
      vacuum.
    * `algorithm`: what an epoch does; mPIE if None.
    * `seed`: seed of the order of the patterns, which changes from epoch to epoch.
    * `watch`: called after each epoch with its number (from 1) and a function that returns the current object,
      complex64 [rows, columns]. Its time is not counted.
    * `until`: called after each epoch with the misfits so far; the iterations end if it returns True.

    All amplitudes, float32 [n, N, N], are kept in memory.
    """
    check_iterative(scan)
    if epochs != "auto" and epochs < 1:
        raise InputError(f"iterations: got {epochs} epochs, expected at least one")
    algorithm = algorithm or Algorithm()
    scan = scan.settled()
    began = time.perf_counter()
    start = start or vacuum(scan)
    first = np.where(start.covered, start.object, 1).astype(np.complex64)
    assert scan.probe is not None
    corners = window_corners(scan.positions, scan.size) - np.asarray(start.origin)
    updates = WindowUpdates(
        first,
        scan.probe,
        _shifted(scan),
        np.fft.ifftshift(scan.valid_pixels),
        corners,
        step=algorithm.step,
        refine_probe=algorithm.refine_probe,
    )
    alpha = algorithm.alpha_for(updates.measured / len(scan))
    random = np.random.default_rng(seed)
    drift = _Momentum(updates.object)
    slow: CoarsePhase | None = None
    variation = None
    if algorithm.smoothing:
        noise = noise_of_photons(scan, start)
        variation = TotalVariation(start.shape, algorithm.smoothing * noise / np.sqrt(2))
    misfit: list[float] = []
    seconds: list[float] = []
    end = MOST_EPOCHS if epochs == "auto" else epochs
    while len(misfit) < end:
        is_last = len(misfit) >= end - algorithm.last_epochs(end)
        eta = 0.0 if is_last or not misfit else algorithm.eta
        # Iterations that diverge overflow, which is told below.
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            error = _epoch(updates, random.permutation(len(scan)), 1.0 if is_last else alpha, drift, eta)
        epoch = len(misfit) + 1
        if not np.isfinite(error):
            raise VerificationError(
                f"{scan.name}: the iterations diverged in epoch {epoch}, expected a probe that is scaled to the counts"
            )
        if algorithm.corrects_phase:
            slow = slow or _coarse_phase(updates, corners + scan.size // 2)
            drift.turn(slow.factor(updates.slopes))
        if variation is not None:
            variation.smooth(updates.object)
        seconds.append(time.perf_counter() - began)
        misfit.append(error)
        watch(epoch, lambda: updates.object)
        if until(misfit):
            break
        if epochs == "auto" and not is_last and has_settled(misfit):
            end = min(end, epoch + algorithm.last_epochs())
        began = time.perf_counter()
    stitched = Stitched(updates.object, start.weight, start.origin)
    text = algorithm.describe(len(misfit), alpha)
    return Iterations(stitched, updates.probe, tuple(misfit), tuple(seconds), text)


def has_settled(misfits: Sequence[float]) -> bool:
    """Whether the last eight epochs lowered the misfit by less than 6 % in all."""
    return len(misfits) > _LAST and misfits[-1] > (1 - _FALL) * misfits[-1 - _LAST]


def noise_of_photons(scan: Scan, canvas: Stitched | StitchedTiles) -> float:
    """Standard deviation of a pixel of an object of a scan by counting noise alone; the scan has a probe."""
    return noise_level(dose(scan, canvas.shape, canvas.origin))


def _shifted(scan: Scan) -> NDArray[np.float32]:
    """The amplitudes with the direct beam in the corner, read in blocks so that they take their memory once."""
    amplitudes = np.empty((len(scan), scan.size, scan.size), dtype=np.float32)
    for first in range(0, len(scan), _AT_ONCE):
        block = slice(first, first + _AT_ONCE)
        amplitudes[block] = np.fft.ifftshift(scan.diffraction[block], axes=(1, 2))
    return amplitudes


def _coarse_phase(updates: WindowUpdates, centres: NDArray[np.float64]) -> CoarsePhase:
    """Corrections of the slow phase by what the patterns tell about the present object."""
    shape = updates.object.shape
    # At most about one unknown for each pattern.
    spacing = max(probe_diameter(updates.probe), float(np.sqrt(np.prod(shape) / len(centres))))
    information = np.stack([updates.information(index) for index in range(len(centres))])
    return CoarsePhase(shape, centres, spacing, information)


def _epoch(
    updates: WindowUpdates, order: NDArray[np.intp], alpha: float, drift: _Momentum, eta: float
) -> float:
    """Visit every pattern, with momentum before each half; return the misfit."""
    squares = 0.0
    for place, index in enumerate(order):
        if place in (0, len(order) // 2):
            drift.apply(eta)
        squares += updates.visit(index, alpha)
    return float(np.sqrt(squares / max(updates.measured, 1e-12)))


class _Momentum:
    """Momentum of an object: where its last moves lead."""

    def __init__(self, image: NDArray[np.complex64]) -> None:
        self._object, self._before = image, image.copy()
        self._velocity = np.zeros_like(image)

    def apply(self, eta: float) -> None:
        """Move the object on, in place, by `eta` times its momentum."""
        self._velocity *= eta
        self._velocity += self._object - self._before
        self._object += eta * self._velocity
        self._before[:] = self._object

    def turn(self, factor: NDArray[np.complex64] | None) -> None:
        """Multiply the object, and with it its moves, in place."""
        if factor is None:
            return
        for image in (self._object, self._before, self._velocity):
            image *= factor
