"""Patterns that a trial of the iterations does not see, by which their object is judged.

Iterations fit the object to the patterns, and where patterns overlap little they fit any, with wrong positions, another
beam or another direct beam too. What they predict for patterns that they did not fit tells: these are explained by what
their neighbours say about the object, if it is the same object. Crystallography judges its refinements so, by the
free R value (Brunger, Nature 355, 472, 1992).

With few photons iterations fit the noise too, which predicts nothing. So the same patterns tell how much the total
variation of the object should be lowered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.iterative.algorithm import Algorithm
from ptychonnx.harness.iterative.iterations import Iterations, iterate, noise_of_photons, vacuum
from ptychonnx.harness.iterative.scan_part import structured_part
from ptychonnx.runtime.reconstruction.misfit import HeldOut, forward_misfit
from ptychonnx.runtime.reconstruction.stitching import Stitched, StitchedTiles
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import illumination, window_corners

__all__ = ["Trial", "run_trial"]

_FEWEST = 9
_EPOCHS = 30
# Of the patterns in the inner half of the part, which have neighbours all around, one in so many.
_ONE_IN = 8

# Weights of the total variation, the place of the first that is tried, and the noise of a pixel, for a transmission of
# 1, from which on they are (docs/decisions/0050-few-photons.md).
_SMOOTHINGS, _FIRST = (0.0, 0.0625, 0.125, 0.25, 0.5, 1.0), 3
_NOISY = 0.005


@dataclass(frozen=True)
class Trial:
    """Result of a trial.

    * `algorithm`: that of the trial, with the smoothing that was chosen.
    * `held_out`: how it predicts the patterns that were held out; None for fewer than nine patterns.
    """

    algorithm: Algorithm
    held_out: HeldOut | None


def run_trial(scan: Scan, start: Stitched | StitchedTiles | None, algorithm: Algorithm) -> Trial:
    """Run 30 epochs on a part of a scan without some of its patterns, and judge how these are predicted.

    If the algorithm leaves its smoothing open and photons are few, several weights are tried, and the best is chosen.

    Raises VerificationError if these iterations diverge.

    * `scan`: scan with a probe; at most 64 neighbouring patterns of it are used, of which four inner ones are held out.
    * `start`: object that the iterations start from; vacuum if None.
    * `algorithm`: what an epoch does.
    """
    if len(scan) < _FEWEST:
        return Trial(algorithm, None)
    part = scan.subset(structured_part(scan)).settled()
    distance = np.hypot(*(part.positions - np.median(part.positions, axis=0)).T)
    inner = np.argsort(distance, kind="stable")[: max(len(part) // 2, _ONE_IN)]
    is_held = np.zeros(len(part), dtype=bool)
    is_held[inner[::_ONE_IN]] = True
    seen, held = part.subset(np.flatnonzero(~is_held)), part.subset(np.flatnonzero(is_held))
    start = vacuum(part) if start is None else _around(start, part)
    if algorithm.smoothing is None and noise_of_photons(part, start) > _NOISY:
        algorithm, trial = _best(seen, held, start, algorithm)
    else:
        trial = iterate(seen, _EPOCHS, start, algorithm)
    if algorithm.refine_probe:
        held = replace(held, probe=trial.probe, probe_estimated=False)
    misfit = forward_misfit(held, trial.stitched)
    held_out = None if misfit is None else HeldOut(misfit, _shared_light(part, is_held))
    return Trial(algorithm, held_out)


def _best(
    seen: Scan, held: Scan, start: Stitched | StitchedTiles, algorithm: Algorithm
) -> tuple[Algorithm, Iterations]:
    """The smoothing that predicts patterns best, by going from weight to weight while the error falls."""

    @cache
    def trial(place: int) -> tuple[float, Algorithm, Iterations]:
        smoothed = replace(algorithm, smoothing=_SMOOTHINGS[place])
        iterations = iterate(seen, _EPOCHS, start, smoothed)
        return _error(held, iterations), smoothed, iterations

    place = _FIRST
    step = 1 if trial(place + 1)[0] < trial(place)[0] else -1
    while 0 <= place + step < len(_SMOOTHINGS) and trial(place + step)[0] < trial(place)[0]:
        place += step
    return trial(place)[1:]


def _around(canvas: Stitched | StitchedTiles, scan: Scan) -> Stitched:
    """The part of an object that the patterns of a scan reach."""
    corners = window_corners(scan.positions, scan.size) - np.asarray(canvas.origin)
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 1, 0)
    high = np.ceil(corners.max(axis=0)).astype(int) + scan.size + 1
    window = slice(low[0], high[0]), slice(low[1], high[1])
    row, column = low + np.asarray(canvas.origin)
    return Stitched(canvas.object[window], canvas.weight[window], (float(row), float(column)))


def _error(held: Scan, trial: Iterations) -> float:
    """Mean square of the amplitude errors of patterns, noise included, before the object is fitted to them."""
    scan = replace(held, probe=trial.probe, probe_estimated=False)
    errors = []
    for index in range(len(scan)):
        one = scan.subset(np.array([index]))
        light = float(np.sum(np.square(one.diffraction[:], dtype=np.float64)))
        errors.append(iterate(one, 1, trial.stitched).misfit[0] ** 2 * light)
    return float(np.mean(errors))


def _shared_light(scan: Scan, is_held: NDArray[np.bool_]) -> float:
    """Share of the light of the patterns that are held out which falls where the others have as much."""
    assert scan.probe is not None
    light = illumination(scan.probe)
    light = light / light.sum()
    corners = np.rint(window_corners(scan.positions, scan.size)).astype(int)
    corners -= corners.min(axis=0)
    windows = [(slice(row, row + scan.size), slice(column, column + scan.size)) for row, column in corners]
    others = np.zeros(corners.max(axis=0) + scan.size)
    for index in np.flatnonzero(~is_held):
        others[windows[index]] += light
    shares = [np.minimum(light, others[windows[index]]).sum() for index in np.flatnonzero(is_held)]
    return float(np.mean(shares))
