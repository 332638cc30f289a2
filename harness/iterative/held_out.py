"""Patterns that a trial of the iterations does not see, by which their object is judged.

Iterations fit the object to the patterns, and where patterns overlap little they fit any, with wrong positions, another
beam or another direct beam too. What they predict for patterns that they did not fit tells: these are explained by what
their neighbours say about the object, if it is the same object. Crystallography judges its refinements so, by the
free R value (Brunger, Nature 355, 472, 1992).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.iterative.algorithm import Algorithm
from ptychonnx.harness.iterative.iterations import iterate, vacuum
from ptychonnx.harness.iterative.scan_part import structured_part
from ptychonnx.runtime.reconstruction.misfit import HeldOut, forward_misfit
from ptychonnx.runtime.reconstruction.stitching import Stitched, StitchedTiles
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import illumination, window_corners

__all__ = ["judge_by_held_out_patterns"]

_FEWEST = 9
_EPOCHS = 30
# Of the patterns in the inner half of the part, which have neighbours all around, one in so many.
_ONE_IN = 8


def judge_by_held_out_patterns(
    scan: Scan, start: Stitched | StitchedTiles | None, algorithm: Algorithm
) -> HeldOut | None:
    """Run 30 epochs on a part of a scan without some of its patterns, and judge how these are predicted.

    Raises VerificationError if these iterations diverge.

    Parameters
    ----------
    scan
        Scan with a probe; at most 64 neighbouring patterns of it are used, of which four inner ones are held out.
    start
        Object that the iterations start from; vacuum if None.
    algorithm
        What an epoch does.

    Returns
    -------
    None for fewer than nine patterns.
    """
    if len(scan) < _FEWEST:
        return None
    part = scan.subset(structured_part(scan)).settled()
    distance = np.hypot(*(part.positions - np.median(part.positions, axis=0)).T)
    inner = np.argsort(distance, kind="stable")[: max(len(part) // 2, _ONE_IN)]
    is_held = np.zeros(len(part), dtype=bool)
    is_held[inner[::_ONE_IN]] = True
    trial = iterate(part.subset(np.flatnonzero(~is_held)), _EPOCHS, start or vacuum(part), algorithm)
    if algorithm.refine_probe:
        part = replace(part, probe=trial.probe, probe_estimated=False)
    misfit = forward_misfit(part.subset(np.flatnonzero(is_held)), trial.stitched)
    return None if misfit is None else HeldOut(misfit, _shared_light(part, is_held))


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
