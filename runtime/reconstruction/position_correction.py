"""Correction of positions by the patches that a network predicts.

A network sees one pattern at a time: it predicts the object where the beam was, not where the scan says. Patches that
overlap show how wrong the positions are, see `position_shifts`. Registration has a bias, which adds up over the scan:
patches fade where the beam does. It is measured on the patterns that the object of the same network predicts at known
positions, and subtracted. The corrected positions are kept only if they lower the forward misfit of the object.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.reconstruction.misfit import forward_misfit, object_windows
from ptychonnx.runtime.reconstruction.position_shifts import Shifts, position_shifts
from ptychonnx.runtime.reconstruction.reconstruct_options import (
    PositionModel,
    PositionOptions,
    ReconstructOptions,
)
from ptychonnx.runtime.reconstruction.reconstruction import Reconstruction, reconstruct
from ptychonnx.runtime.reconstruction.stitching import Stitched, Stitcher, patch_weight
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import forward

__all__ = ["PositionCorrection", "reconstruct_with_positions", "write_positions"]

# The misfit must fall to this part of itself.
_FALL = 0.98
_AT_ONCE = 32
_BOUND_PX: float = PositionOptions().position_bound


@dataclass(frozen=True)
class PositionCorrection:
    """What the patches say about the positions."""

    shifts: Shifts  # float64 [n, 2], (row, column) in pixels, corrected less recorded; their mean is 0
    model: PositionModel  # model of the errors
    applied: bool  # whether the corrected positions were kept
    misfit: tuple[float, float]  # forward misfit with the recorded and with the corrected positions
    beyond: int  # number of positions that stay since they would move further than the bound

    def __str__(self) -> str:
        lengths = np.hypot(*self.shifts.T)
        size = f"{np.sqrt(np.mean(lengths**2)):.2f} pixels rms, {lengths.max():.2f} at most"
        misfits = f"forward misfit {self.misfit[0]:.3f} -> {self.misfit[1]:.3f}"
        beyond = f", {self.beyond} beyond the bound stay" if self.beyond else ""
        if self.applied:
            return f"positions corrected ({self.model}): shifts of {size}{beyond}; {misfits}"
        return (
            f"positions left as recorded: shifts of {size} ({self.model}) do not lower the misfit; {misfits}"
        )


def reconstruct_with_positions(
    network: Predictor,
    scan: Scan,
    stitching: ReconstructOptions | None = None,
    batch: int = DEFAULT_BATCH,
    progress: Progress = SILENT,
    *,
    model: PositionModel = "free",
    bound: float = _BOUND_PX,
) -> tuple[Scan, Reconstruction, PositionCorrection]:
    """Reconstruct a scan, correct its positions, and stitch the same patches again.

    Raises InputError if the scan has no probe, or too little overlap; and as `reconstruct`.

    * `network`, `scan`, `stitching`, `batch`, `progress`: see `reconstruct`.
    * `model`: ``free``: every position has an error of its own. ``drift``: the error is a polynomial of the number of
      the pattern, of degree 5. ``backlash``: along each axis the error depends on the last direction of travel.
    * `bound`: largest error in pixels.

    Returns the scan with corrected positions, its reconstruction, and the correction; the first two with the recorded
    positions if the corrected ones do not lower the forward misfit.
    """
    stitching = stitching or ReconstructOptions()
    if scan.probe is None:
        raise InputError(
            f"{scan.name}: has no probe, expected one to correct positions: give it with --probe"
        )
    recorded, patches = _predicted(network, scan, stitching, batch, progress)
    first = position_shifts(scan, patches, model)
    moved = replace(scan, positions=scan.positions + first)
    # What the same network makes of the patterns of its own object, whose positions are known, is its bias.
    simulated = _simulated(moved, _restitched(network, moved, patches, stitching, recorded.skipped))
    progress.stage(f"Checking positions of {scan.name}", len(scan), "patterns")
    _, expected = _predicted(network, simulated, stitching, batch, progress)
    shifts = first - position_shifts(simulated, expected, model)
    far = np.hypot(*shifts.T) > bound
    shifts[far] = 0
    corrected = replace(scan, positions=scan.positions + shifts)
    stitched = _restitched(network, corrected, patches, stitching, recorded.skipped)
    misfit = forward_misfit(corrected, stitched)
    assert recorded.misfit is not None
    assert misfit is not None
    applied = misfit.value < _FALL * recorded.misfit.value
    before_after = (recorded.misfit.value, misfit.value)
    correction = PositionCorrection(shifts, model, applied, before_after, int(far.sum()))
    if not applied:
        return scan, recorded, correction
    # The agreement of neighbours is that at the recorded positions.
    return corrected, replace(recorded, stitched=stitched, misfit=misfit, agreement=None), correction


def _predicted(
    network: Predictor,
    scan: Scan,
    stitching: ReconstructOptions,
    batch: int,
    progress: Progress,
) -> tuple[Reconstruction, NDArray[np.complex64]]:
    """The reconstruction of a scan, and its patches complex64 [n, N, N] in the order of the patterns."""
    patches = np.zeros((len(scan), scan.size, scan.size), dtype=np.complex64)

    def collect(rows: NDArray[np.intp], values: NDArray[np.complex64]) -> None:
        patches[rows] = values

    return reconstruct(network, scan, stitching, batch, progress, collect), patches


def _restitched(
    network: Predictor,
    scan: Scan,
    patches: NDArray[np.complex64],
    stitching: ReconstructOptions,
    skipped: tuple[int, ...],
) -> Stitched:
    """The object from patches that were predicted before, at the positions of a scan."""
    chosen = stitching.resolved(network.contract)
    weight = patch_weight(chosen.weighting, scan.size, scan.probe, chosen.window)
    stitcher = Stitcher(
        scan.positions,
        weight,
        chosen.placement,
        synchronise=chosen.synchronise,
        memory=stitching.canvas_bytes,
    )
    valid = np.setdiff1d(np.arange(len(scan)), skipped)
    stitcher.add(patches[valid], scan.positions[valid])
    stitched = stitcher.result()
    if not isinstance(stitched, Stitched):
        raise InputError(
            f"{scan.name}: its object is kept in tiles, expected one in memory to correct positions"
        )
    return stitched


def _simulated(scan: Scan, stitched: Stitched) -> Scan:
    """The scan with the patterns that an object predicts."""
    probe = scan.settled().probe
    assert probe is not None
    patterns = np.empty(scan.diffraction.shape, dtype=np.float32)
    for start in range(0, len(scan), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        patterns[part] = forward(object_windows(stitched, scan.positions[part], scan.size), probe)
    return replace(scan, diffraction=patterns)


def write_positions(path: Path, scan: Scan, correction: PositionCorrection) -> None:
    """Write a CSV file: pattern, corrected (row, column) in pixels, and what was added to the recorded ones.

    `scan`: the scan that `reconstruct_with_positions` returned.
    """
    shifts = correction.shifts if correction.applied else np.zeros_like(correction.shifts)
    lines = ["pattern,row_px,column_px,row_shift_px,column_shift_px"]
    for index, (position, shift) in enumerate(zip(scan.positions, shifts, strict=True)):
        lines.append(",".join([str(index), *(f"{value:.4f}" for value in (*position, *shift))]))
    write_text(path, "\n".join(lines) + "\n")
