"""Iterative reconstruction by rPIE and mPIE, from vacuum or from the object of a network.

The regularised ptychographic iterative engine visits one pattern after the other and updates the object in its window:

    O <- O + beta conj(P) (psi' - psi) / ((1 - alpha) |P|^2 + alpha max |P|^2)

psi = P O is the exit wave, psi' the exit wave with the measured amplitude on the detector, and |P|^2 the sum over the
modes of the probe (Maiden, Johnson and Li, Optica 4, 736, 2017). alpha = 1 is ePIE (Maiden and Rodenburg,
Ultramicroscopy 109, 1256, 2009).

Momentum is that of mPIE in the same article, twice in each epoch but the first: with the object O_before of half an
epoch ago,

    V <- eta V + O - O_before,    O <- O + eta V

The last epochs are ePIE without momentum, which averages the noise that large steps have left. Fractions of a pixel
shift the probe by a phase ramp on its Fourier transform.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft2, ifft2

from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.reconstruction.stitching import Stitched, StitchedTiles, Stitcher, patch_weight
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import illumination, window_corners

__all__ = ["MOMENTUM", "Iterations", "WindowUpdates", "algorithm", "check_iterative", "iterate", "vacuum"]

MOMENTUM = 0.8

# A smaller alpha converges faster with many photons and amplifies noise with few (docs/results/iterative.md): 1 up to
# this number of photons in a pattern, then their inverse fourth root, down to the smallest.
_PHOTONS_OF_EPIE, _SMALLEST_ALPHA = 1e4, 0.1

# Corners that are whole up to rounding are whole.
_ROUNDING = 1e-6
# Amplitude below which a predicted pixel has no phase.
_DARK = 1e-9

# With momentum: one epoch in so many is ePIE without, at most so many in all.
_ONE_LAST_IN, _MOST_LAST = 5, 2


@dataclass(frozen=True)
class Iterations:
    """Result of an iterative reconstruction.

    Attributes
    ----------
    stitched
        The object on the canvas of the start, with the weights of the start.
    probe
        complex64 [modes, N, N], refined or unchanged.
    misfit
        After each epoch ``sqrt(sum (A - measured)^2 / sum measured^2)`` over the valid pixels of all patterns, with the
        amplitude A at the time the pattern was visited.
    seconds
        Time of each epoch; the first includes preparation.
    text
        Summary of the settings in words.
    """

    stitched: Stitched
    probe: NDArray[np.complex64]
    misfit: tuple[float, ...]
    seconds: tuple[float, ...]
    text: str


def check_iterative(scan: Scan, alpha: float | None = None, momentum: float = MOMENTUM) -> None:
    """Check the requirements of `iterate` before any work is done.

    Raises InputError if the probe is unknown, `alpha` is not in (0, 1], or `momentum` is not in [0, 1).
    """
    if scan.probe is None:
        raise InputError(
            f"{scan.name}: iterations need a probe and the scan has none: give one with --probe "
            "(`ptychonnx reconstruct --estimate-probe` estimates one)"
        )
    if alpha is not None and not 0 < alpha <= 1:
        raise InputError(f"iterations: alpha is {alpha:g}, expected more than 0 and at most 1")
    if not 0 <= momentum < 1:
        raise InputError(f"iterations: momentum is {momentum:g}, expected a value from 0 and less than 1")


def algorithm(momentum: float) -> str:
    """The name of the iterations: mPIE with momentum, rPIE without."""
    return "mPIE" if momentum else "rPIE"


def vacuum(scan: Scan) -> Stitched | StitchedTiles:
    """An object of ones on the canvas of a scan, with the weights that stitched patches would have."""
    stitcher = Stitcher(scan.positions, patch_weight("probe", scan.size, scan.probe))
    patch = np.ones((1, scan.size, scan.size), dtype=np.complex64)
    for position in scan.positions:
        stitcher.add(patch, position[None])
    return stitcher.result()


def iterate(
    scan: Scan,
    epochs: int,
    start: Stitched | StitchedTiles | None = None,
    *,
    refine_probe: bool = False,
    step: float = 1.0,
    alpha: float | None = None,
    momentum: float = MOMENTUM,
    seed: int = 0,
    watch: Callable[[int, Callable[[], NDArray[np.complex64]]], None] = lambda epoch, image: None,
    until: Callable[[Sequence[float]], bool] = lambda misfits: False,
    settled: Callable[[Sequence[float]], bool] = lambda misfits: False,
) -> Iterations:
    """Run epochs of mPIE, or of rPIE, on a scan, on the CPU.

    Raises InputError if the scan has no probe, an option is out of range, or the canvas is kept in tiles. Raises
    VerificationError if the iterations diverge.

    Parameters
    ----------
    scan
        Scan with a probe that is scaled to the counts. Pixels outside the mask are ignored.
    epochs
        Number of times that each pattern is visited, at most.
    start
        Object to start from, such as that of a network; vacuum if None. Pixels that no patch covers start as vacuum.
    refine_probe
        Update the probe too, by the rule of ePIE with object and probe exchanged.
    step
        beta, in (0, 2): 1 solves the brightest pixel of each pattern in one step.
    alpha
        Regularisation in (0, 1]: the smaller, the larger the updates where the probe is faint. 1 is ePIE. If None,
        ``(1e4 / photons) ** (1 / 4)`` for the mean photons of a pattern, at least 0.1 and at most 1.
    momentum
        eta of the object, in [0, 1). With momentum the last epoch of five to nine, and the last two of more, are ePIE
        without. 0: rPIE.
    seed
        Seed of the order of the patterns, which changes from epoch to epoch.
    watch
        Called after each epoch with its number (from 1) and a function that returns the current object, complex64
        [rows, columns]. Its time is not counted.
    until
        Called after each epoch with the misfits so far; the iterations end if it returns True.
    settled
        Called likewise; if it returns True, only the last epochs of ePIE follow.

    Notes
    -----
    All amplitudes, float32 [n, N, N], are kept in memory.
    """
    check_iterative(scan, alpha, momentum)
    if epochs < 1:
        raise InputError(f"iterations: got {epochs} epochs, expected at least one")
    if not 0 < step < 2:
        raise InputError(f"iterations: step is {step:g}, expected a value between 0 and 2")
    scan = scan.settled()
    began = time.perf_counter()
    start = start or vacuum(scan)
    first = np.where(start.covered, start.object, 1).astype(np.complex64)
    assert scan.probe is not None
    amplitudes = np.fft.ifftshift(np.asarray(scan.diffraction[:], dtype=np.float32), axes=(1, 2))
    updates = WindowUpdates(
        first,
        scan.probe,
        amplitudes,
        np.fft.ifftshift(scan.valid_pixels),
        window_corners(scan.positions, scan.size) - np.asarray(start.origin),
        step=step,
        refine_probe=refine_probe,
    )
    if alpha is None:
        alpha = _alpha(updates.measured / len(scan))
    random = np.random.default_rng(seed)
    drift = _Momentum(updates.object)
    misfit: list[float] = []
    seconds: list[float] = []
    end = epochs
    while len(misfit) < end:
        is_last = momentum > 0 and len(misfit) >= end - _last_epochs(end)
        is_first = not misfit
        eta = 0.0 if is_first or is_last else momentum
        error = _epoch(updates, random.permutation(len(scan)), 1.0 if is_last else alpha, drift, eta)
        seconds.append(time.perf_counter() - began)
        epoch = len(seconds)
        if not np.isfinite(error):
            raise VerificationError(
                f"{scan.name}: the iterations diverged in epoch {epoch}, expected a probe that is scaled to the counts"
            )
        misfit.append(error)
        watch(epoch, lambda: updates.object)
        if until(misfit):
            break
        if not is_last and settled(misfit):
            end = min(end, epoch + (_MOST_LAST if momentum else 0))
        began = time.perf_counter()
    text = (
        f"{len(misfit)} epoch{'s' if len(misfit) > 1 else ''} of {algorithm(momentum)}, alpha {alpha:.2g}, "
        f"{f'momentum {momentum:g}, ' if momentum else ''}step {step:g}, probe "
        f"{'refined' if refine_probe else 'held'}"
    )
    stitched = Stitched(updates.object, start.weight, start.origin)
    return Iterations(stitched, updates.probe, tuple(misfit), tuple(seconds), text)


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


def _alpha(photons: float) -> float:
    """The regularisation for a mean number of photons in a pattern."""
    return float(np.clip((_PHOTONS_OF_EPIE / max(photons, 1.0)) ** 0.25, _SMALLEST_ALPHA, 1.0))


def _last_epochs(epochs: int) -> int:
    """How many of the epochs with momentum are kept for the end."""
    return min(epochs // _ONE_LAST_IN, _MOST_LAST)


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


class WindowUpdates:
    """Updates of an object, and perhaps of the probe, by one pattern at a time.

    Raises InputError if a window leaves the object.

    Attributes
    ----------
    object
        complex64 [rows, columns], changed in place.
    probe
        complex64 [modes, N, N].
    measured
        Photons in the valid pixels of all patterns.

    Parameters
    ----------
    image
        Object to start from, complex [rows, columns]; copied.
    probe
        complex [modes, N, N], scaled to the counts.
    amplitudes, valid
        Patterns [n, N, N] and their mask [N, N], with the direct beam in the corner.
    corners
        [n, 2], (row, column) of the corner of each window in pixels of the object.
    step
        beta.
    refine_probe
        Update the probe too, by the rule of ePIE with object and probe exchanged.
    """

    def __init__(
        self,
        image: NDArray[np.complexfloating],
        probe: NDArray[np.complexfloating],
        amplitudes: NDArray[np.float32],
        valid: NDArray[np.bool_],
        corners: NDArray[np.float64],
        *,
        step: float = 1.0,
        refine_probe: bool = False,
    ) -> None:
        self.object = image.astype(np.complex64)
        self.probe = probe.astype(np.complex64)
        self.measured = float(np.sum(np.square(amplitudes[:, valid], dtype=np.float64)))
        self._amplitudes = amplitudes
        self._valid = None if valid.all() else valid
        self._whole = np.floor(corners + _ROUNDING).astype(int)
        self._fractions = np.where(np.abs(corners - self._whole) < 2 * _ROUNDING, 0, corners - self._whole)
        beyond = self._whole + probe.shape[-1] - self.object.shape
        if self._whole.min() < 0 or beyond.max() > 0:
            raise InputError("iterations: windows leave the object, expected one that covers all patterns")
        self._step = step
        self._brightest = float(illumination(probe).max())
        self._probe_step = 0.0
        if refine_probe:
            self._probe_step = step / max(float(np.abs(image).max()) ** 2, 1e-12)
        self._alpha = 0.0
        self._unmoved: tuple[NDArray, NDArray] | None = None

    def visit(self, index: int, alpha: float) -> float:
        """Update the window of a pattern; return its squared amplitude error before."""
        ramp = self._ramp(index)
        probe, factor = self._shifted(ramp, alpha)
        row, column = self._whole[index]
        size = probe.shape[-1]
        window = self.object[row : row + size, column : column + size]
        # Where the window is shifted to matters to neither the amplitudes nor the exit wave that comes back.
        waves = fft2(probe * window, norm="ortho", overwrite_x=True)
        predicted = np.sqrt(np.sum(waves.real**2 + waves.imag**2, axis=0))
        difference = self._amplitudes[index] - predicted
        if self._valid is not None:
            difference = np.where(self._valid, difference, np.float32(0))
        change = ifft2(waves * (difference / np.maximum(predicted, _DARK)), norm="ortho", overwrite_x=True)
        if self._probe_step:
            pull = self._probe_step * window.conj() * change
            if ramp is not None:
                pull = ifft2(fft2(pull) * ramp.conj())
        window += np.sum(factor * change, axis=0)
        if self._probe_step:
            self.probe += pull
            self._unmoved = None
        return float(np.vdot(difference, difference))

    def _ramp(self, index: int) -> NDArray[np.complex64] | None:
        """What shifts the probe to a pattern, on its Fourier transform; None for whole pixels."""
        if not self._fractions[index].any():
            return None
        frequencies = np.fft.fftfreq(self.probe.shape[-1])
        rows, columns = np.exp(-2j * np.pi * np.multiply.outer(self._fractions[index], frequencies))
        return np.multiply.outer(rows, columns).astype(np.complex64)

    def _shifted(self, ramp: NDArray[np.complex64] | None, alpha: float) -> tuple[NDArray, NDArray]:
        """The probe in a window, and the factor of the exit wave's change; both [modes, N, N]."""
        if ramp is not None:
            return self._with_factor(ifft2(fft2(self.probe) * ramp), alpha)
        if self._unmoved is None or self._alpha != alpha:
            self._alpha, self._unmoved = alpha, self._with_factor(self.probe, alpha)
        return self._unmoved

    def _with_factor(self, probe: NDArray[np.complex64], alpha: float) -> tuple[NDArray, NDArray]:
        light = np.sum(probe.real**2 + probe.imag**2, axis=0)
        return probe, self._step * probe.conj() / ((1 - alpha) * light + alpha * self._brightest)
