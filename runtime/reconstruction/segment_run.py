"""Prediction and stitching of a scan, segment by segment; reading, prediction and stitching overlap."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import VerificationError
from ptychonnx.runtime.inference import Predictor
from ptychonnx.runtime.progress import Progress
from ptychonnx.runtime.reconstruction.background import BackgroundReader, BackgroundWorker
from ptychonnx.runtime.reconstruction.trust import brightened, brightness_factor
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import LazyAmplitudes

__all__ = ["PatchSink", "SegmentRun", "run_segments", "segments"]

# Groups in a segment, at least, and segments of a scan, at most: so few that adding the sums of segments takes little
# time, even where consecutive patterns lie far apart and the sums of each segment cover the whole canvas.
_SHORTEST = 1024
_MOST = 64


class PatchSink(Protocol):
    """Takes the patches of a segment: a `Stitcher`, or what keeps them for later."""

    def add(self, patches: NDArray[np.complex64], positions: NDArray[np.float64]) -> None:
        """Take patches [m, N, N] at positions [m, 2], in the order of the scan."""


Sink = TypeVar("Sink", bound=PatchSink)


def segments(groups: NDArray[np.intp], batch: int) -> list[NDArray[np.intp]]:
    """Divide the groups [m, C] of a scan into segments of consecutive ones, which consist of whole batches.

    Floating-point sums depend on their order, and the last digits of a patch on the size of its batch. A scan is
    summed segment by segment, and the sums are added in the order of the segments, so that several processes, each
    with some of the segments, give the same object bit for bit.
    """
    length = max(_SHORTEST, -(-len(groups) // _MOST))
    length += -length % batch
    return [groups[start : start + length] for start in range(0, len(groups), length)]


@dataclass(frozen=True)
class SegmentRun:
    """Statistics of a run."""

    # Time spent waiting for patches, and time spent stitching.
    inference_seconds: float
    stitching_seconds: float
    skipped: frozenset[int]  # patterns that were left out since their patches are not finite


def run_segments(
    session: Predictor,
    scan: Scan,
    parts: Sequence[NDArray[np.intp]],
    batch: int,
    progress: Progress,
    *,
    stitcher: Callable[[int], Sink],
    finished: Callable[[int, Sink], None],
    skip_invalid: bool = False,
    keep: Callable[[NDArray[np.intp], NDArray[np.complex64]], None] | None = None,
) -> SegmentRun:
    """Predict the patches of segments and stitch each of them.

    If the patterns are still in their file, a thread reads them ahead of the network. Another thread stitches. Errors
    in either are raised here, and both have ended when the function returns or raises.

    Raises VerificationError if the patch of a pattern is not finite, unless `skip_invalid`; or if no patch is.

    * `parts`: segments, groups of patterns int [m, C]; all but the last consist of whole batches.
    * `stitcher`: returns an empty stitcher for a segment, by its place in `parts`. Called by the stitching thread.
    * `finished`: receives the place of a segment and its stitcher, after its last patch. Called by the stitching
      thread.
    * `skip_invalid`: leave out patches that are not finite.
    * `keep`: also receives the patches complex64 [m, N, N] as predicted, with the patterns int [m] that they belong to.
    """
    groups = np.concatenate(parts)
    ends = np.cumsum([len(part) for part in parts]).tolist()
    skipped: set[int] = set()
    inference_seconds, done, current = 0.0, 0, 0
    sums: list[Sink] = []

    def add(patches: NDArray[np.complex64], positions: NDArray[np.float64], part: int, last: bool) -> None:
        if not sums:
            sums.append(stitcher(part))
        sums[0].add(patches, positions)
        if last:
            finished(part, sums.pop())

    def submit(index: NDArray[np.intp], patches: NDArray[np.complex64], part: int, last: bool) -> None:
        rows, patches = index.reshape(-1), patches.reshape(-1, scan.size, scan.size)
        if (valid := _finite(patches)) is not None:
            if not skip_invalid:
                raise VerificationError(
                    f"{session.name}: the patch of pattern {rows[~valid][0]} of {scan.name} is not finite; "
                    "--skip-invalid leaves such patterns out"
                )
            skipped.update(rows[~valid].tolist())
            rows, patches = rows[valid], patches[valid]
        if keep is not None:
            keep(rows, patches)
        stitching.submit(patches, scan.positions[rows], part, last)

    # These need patterns in any order, so before they are read ahead.
    beam, factor = session.beam(scan), brightness_factor(scan, session.contract)
    with ExitStack() as stages:
        stitching = stages.enter_context(BackgroundWorker(add, "stitch"))
        if isinstance(scan.diffraction, LazyAmplitudes):
            scan = replace(scan, diffraction=stages.enter_context(BackgroundReader(scan.diffraction, groups)))
        scan = brightened(scan, factor)
        mark = time.perf_counter()
        for index, patches in session.batches(scan, groups, batch, beam):
            inference_seconds += time.perf_counter() - mark
            # A server may answer in batches of its own size, which extend across the ends of segments.
            while len(index):
                count = min(len(index), ends[current] - done)
                done += count
                submit(index[:count], patches[:count], current, done == ends[current])
                current += done == ends[current]
                index, patches = index[count:], patches[count:]
            progress.update(len(scan) * done // len(groups), len(scan))
            mark = time.perf_counter()
        stitching.finish()
    if len(skipped) == len(np.unique(groups)):
        raise VerificationError(f"{session.name}: no patch of {scan.name} is finite")
    return SegmentRun(inference_seconds, stitching.seconds, frozenset(skipped))


def _finite(patches: NDArray[np.complex64]) -> NDArray[np.bool_] | None:
    """Which patches [m] are finite; None if all are."""
    # The sum is one fast pass, and not finite if any value is not.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(patches.sum()):
            return None
    valid = np.atleast_1d(np.isfinite(patches).all(axis=(1, 2)))
    return None if valid.all() else valid
