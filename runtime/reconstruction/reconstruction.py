"""Reconstruction of a scan; reading, prediction and stitching overlap, in memory that does not grow with the scan."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor, RequestStatistics
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.reconstruction.misfit import Misfit, forward_misfit
from ptychonnx.runtime.reconstruction.neighbour_agreement import (
    NeighbourAgreement,
    NeighbourPatches,
)
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.reconstruction.segment_run import run_segments, segments
from ptychonnx.runtime.reconstruction.stitching import Stitched, StitchedTiles, Stitcher, patch_weight
from ptychonnx.runtime.reconstruction.trust import beam_warnings
from ptychonnx.runtime.reconstruction.uncertainty import Uncertainty
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import covering_groups

__all__ = ["Reconstruction", "reconstruct"]

# Patterns that are listed by number in a message.
_NAMED = 10


@dataclass(frozen=True)
class Reconstruction:
    """A stitched object and how it was made.

    Attributes
    ----------
    stitched : Stitched or StitchedTiles
        The object, complex64 [rows, columns], with its weight and origin; in tiles if it exceeds the memory limit.
    weighting : str
        Per-pixel stitching weight, see `ptychonnx.runtime.reconstruction.stitching.patch_weight`.
    patterns : int
        Number of diffraction patterns.
    inference_seconds : float
        Time spent waiting for patches. Patterns are read, and earlier patches stitched, at the same time.
    stitching_seconds : float
        Time spent stitching, mostly in parallel with the network. Phase synchronisation follows the last patch.
    requests : RequestStatistics or None
        Latencies of a server; None if the network ran in this process.
    placement : str
        Sub-pixel placement, ``bilinear`` or ``fourier``.
    synchronised : bool
        Whether patches were rotated to a common global phase.
    refinement : str
        Description of the iterations that followed; empty without any.
    probe : complex64 [modes, N, N] or None
        Refined probe, in square roots of photons per pixel.
    skipped : tuple of int
        Patterns that were left out since their patches are not finite.
    misfit : Misfit or None
        How well the object explains the patterns, see `ptychonnx.runtime.reconstruction.misfit`; None without a probe,
        or if the object is kept in tiles.
    agreement : NeighbourAgreement or None
        Whether the patches of neighbours agree, which needs no probe; None without neighbours.
    warnings : tuple of str
        What the network does not know about the scan, see `ptychonnx.runtime.reconstruction.trust`.
    uncertainty : Uncertainty or None
        How far the object may be from the true one, see `ptychonnx.harness.uncertainty`; None unless it was asked for.

    Examples
    --------
    >>> import ptychonnx
    >>> reconstruction = ptychonnx.reconstruct("zoo:pinn_fno", ptychonnx.simulate_lines(grid=5))
    >>> reconstruction.object.shape, reconstruction.patterns, reconstruction.weighting
    ((91, 91), 25, 'probe')
    >>> reconstruction.stitched.origin
    (0.0, 0.0)
    """

    stitched: Stitched | StitchedTiles
    weighting: str
    patterns: int
    inference_seconds: float
    stitching_seconds: float
    requests: RequestStatistics | None = None
    placement: str = "bilinear"
    synchronised: bool = False
    refinement: str = ""
    probe: NDArray[np.complex64] | None = None
    skipped: tuple[int, ...] = ()
    misfit: Misfit | None = None
    agreement: NeighbourAgreement | None = None
    warnings: tuple[str, ...] = ()
    uncertainty: Uncertainty | None = None

    @property
    def object(self) -> NDArray[np.complex64]:
        """Stitched object, complex64 [rows, columns]; raises InputError if it is kept in tiles on disk."""
        return self.stitched.object

    @property
    def position_doubt(self) -> str:
        """Why the positions may be wrong, if no misfit says so; empty if patches of neighbours agree."""
        return self.agreement.reason if self.misfit is None and self.agreement is not None else ""

    @property
    def skipped_text(self) -> str:
        """One line about the patterns that were left out; empty if there are none."""
        if not self.skipped:
            return ""
        first = ", ".join(map(str, self.skipped[:_NAMED])) + ", ..." * (len(self.skipped) > _NAMED)
        return (
            f"{len(self.skipped)} of {self.patterns} patterns left out, whose patches are not finite: {first}"
        )


def reconstruct(
    session: Predictor,
    scan: Scan,
    stitching: ReconstructOptions | None = None,
    batch: int = DEFAULT_BATCH,
    progress: Progress = SILENT,
    keep: Callable[[NDArray[np.intp], NDArray[np.complex64]], None] | None = None,
) -> Reconstruction:
    """Predict the patch of every diffraction pattern and stitch the patches into one object.

    Reading, prediction and stitching overlap, see `segment_run`.

    Parameters
    ----------
    session
        A network in this process (`Session`) or on a server (`remote.RemoteSession`).
    scan
        Amplitudes float32 [n, N, N] with the direct beam at pixel [N // 2, N // 2], and positions float64 [n, 2]
        (row, column) in pixels.
    stitching
        How patches are stitched; as the contract says if None. With `skip_invalid`, patterns whose patches are not
        finite are left out and listed in `Reconstruction.skipped`. `strict` is up to the caller, who may refine the
        object first.
    batch
        Groups of patterns per run of the network.
    progress
        Receives the number of patterns done. The caller begins the stage.
    keep
        Also receives the patches complex64 [m, N, N] as predicted, with the patterns int [m] that they belong to, for
        those who stitch themselves. A network of several patterns predicts some patterns more than once.

    Returns
    -------
    Reconstruction
        With the object's transmission, 0 where no patch reaches.

    Raises
    ------
    InputError
        If the scan does not fit the contract or the weighting, or a pattern in its file is invalid.
    VerificationError
        If the patch of a pattern is not finite, unless `skip_invalid`; or if no patch is.
    ServerError, DeviceError
        If the server or the execution provider fails for good.
    EnvironmentFailure
        If temporary files do not fit on the disk.

    Examples
    --------
    >>> import ptychonnx
    >>> session = ptychonnx.Session("zoo:pinn_fno", provider="cpu")
    >>> reconstruct(session, ptychonnx.simulate_lines(grid=5)).stitched.object.dtype
    dtype('complex64')
    """
    session.check_scan(scan)
    options = stitching or ReconstructOptions()
    chosen, memory = options.resolved(session.contract), options.canvas_bytes
    weight = patch_weight(chosen.weighting, scan.size, scan.probe, chosen.window)
    groups = covering_groups(scan.positions, session.contract.gridsize)
    positions = scan.positions[groups.reshape(-1)]
    stitcher = Stitcher(positions, weight, chosen.placement, synchronise=chosen.synchronise, memory=memory)
    # Synchronised patches are added at the end, when all of them are known.
    parts = [groups] if chosen.synchronise else segments(groups, batch)

    def segment_stitcher(part: int) -> Stitcher:
        positions = scan.positions[parts[part].reshape(-1)]
        return Stitcher(positions, weight, chosen.placement, memory=memory, sparse=True)

    def add_segment(part: int, segment: Stitcher) -> None:
        stitcher.add_sums(segment.sums())

    neighbours = NeighbourPatches(scan)

    def keep_neighbours(numbers: NDArray[np.intp], predicted: NDArray[np.complex64]) -> None:
        neighbours.keep(numbers, predicted)
        if keep is not None:
            keep(numbers, predicted)

    whole = len(parts) == 1
    run = run_segments(
        session,
        scan,
        parts,
        batch,
        progress,
        stitcher=(lambda part: stitcher) if whole else segment_stitcher,
        finished=(lambda part, segment: None) if whole else add_segment,
        skip_invalid=options.skip_invalid,
        keep=keep_neighbours,
    )
    mark = time.perf_counter()
    stitched = stitcher.result()
    stitching_seconds = run.stitching_seconds + time.perf_counter() - mark
    agreement = neighbours.agreement()
    return Reconstruction(
        stitched,
        chosen.weighting,
        patterns=len(scan),
        inference_seconds=run.inference_seconds,
        stitching_seconds=stitching_seconds,
        requests=session.requests,
        placement=chosen.placement,
        synchronised=chosen.synchronise,
        skipped=tuple(sorted(run.skipped)),
        misfit=forward_misfit(scan, stitched, agreement),
        agreement=agreement,
        warnings=tuple(beam_warnings(scan, session.contract)),
    )
