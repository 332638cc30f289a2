"""Uncertainty of a reconstruction: the spread under symmetries, turned into intervals by a calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ptychonnx.harness.uncertainty.calibration import calibration_for, half_widths
from ptychonnx.harness.uncertainty.spread import members, spread_of
from ptychonnx.harness.uncertainty.symmetry import Symmetry
from ptychonnx.runtime.inference import Predictor
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.reconstruction.misfit import forward_misfit
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.reconstruction.stitching import Stitched
from ptychonnx.runtime.reconstruction.uncertainty import Uncertainty
from ptychonnx.runtime.scan import Scan

__all__ = ["with_uncertainty"]


def with_uncertainty(
    network: Predictor,
    scan: Scan,
    first: Reconstruction,
    symmetries: Sequence[Symmetry],
    stitching: ReconstructOptions,
    batch: int,
    progress: Progress = SILENT,
) -> Reconstruction:
    """Reconstruct a scan under symmetries of the far field: their mean object, with its uncertainty.

    Raises the errors of `reconstruct`.

    * `network`, `scan`, `stitching`, `batch`: as for `ptychonnx.runtime.reconstruction.reconstruct`.
    * `first`: reconstruction of the scan as it is, which is kept in memory.
    * `symmetries`: from `symmetries_of`; the first is the identity.
    * `progress`: receives a stage for each further symmetry.

    Returns that of `first` with the mean object, its misfit and its uncertainty.
    """
    objects = members(network, scan, first, symmetries, stitching, batch, progress)
    spread = spread_of(objects, scan, first)
    stitched = Stitched(spread.object, first.stitched.weight, first.stitched.origin)
    misfit = forward_misfit(scan, stitched, first.agreement)
    assert misfit is not None
    calibration, calibrated = calibration_for(network.contract)
    maps = {
        name: np.where(spread.region, values, np.nan).astype(np.float32)
        for name, values in half_widths(spread, misfit.value, calibration).items()
    }
    return replace(
        first,
        stitched=stitched,
        misfit=misfit,
        uncertainty=Uncertainty(**maps, members=len(symmetries), calibrated=calibrated),
    )
