"""From a scan to an object: reading, network and stitching overlap, in memory that does not grow with the scan."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.contract import Contract, Placement
from ptychonnx.runtime.formats.writers.reconstruction_file import Product, write_product
from ptychonnx.runtime.inference.latency import RequestStatistics
from ptychonnx.runtime.inference.model import DEFAULT_BATCH, Network
from ptychonnx.runtime.reconstruction.pipeline import ReadAhead, WorkBehind
from ptychonnx.runtime.reconstruction.stitching import Stitched, StitchedTiles, Stitcher, patch_weight
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import LazyAmplitudes
from ptychonnx.runtime.scan.grouping import covering_groups

__all__ = ["Reconstruction", "reconstruct", "write_reconstruction"]


@dataclass(frozen=True)
class Reconstruction:
    """A stitched object and how it came about.

    Attributes
    ----------
    inference_seconds
        Time spent waiting for patches. Patterns are read, and earlier patches stitched, meanwhile.
    stitching_seconds
        Time that stitching took, most of it beside the network. Synchronising phases comes after it.
    requests
        How a server answered; None if the network ran in this process.
    refinement
        What was done to the object after it was stitched, in words; empty if nothing was.
    probe
        complex64 [modes, N, N], if it was refined.

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

    @property
    def object(self) -> NDArray[np.complex64]:
        """complex64 [rows, columns], the stitched object; refused if its canvas is kept in tiles on disk."""
        return self.stitched.object


def reconstruct(
    session: Network,
    scan: Scan,
    weighting: str | None = None,
    batch: int = DEFAULT_BATCH,
    progress: Callable[[int], None] = lambda patterns: None,
    *,
    placement: Placement | None = None,
    synchronise: bool | None = None,
    canvas_memory: int | None = None,
) -> Reconstruction:
    """Run every pattern of a scan through a network and stitch the patches.

    Patterns that are still in their file are read by one thread ahead of the network, patches are stitched by another
    one behind it. An error in either comes out here; no thread is left, whatever happens.

    Parameters
    ----------
    session
        In this process (`session.Session`) or on a server (`remote.RemoteSession`).
    weighting
        See `ptychonnx.runtime.reconstruction.stitching.patch_weight`; the contract's own if None.
    progress
        Called after each batch with the number of patterns done in it; they add up to those of the scan.
    placement, synchronise
        See `ptychonnx.runtime.reconstruction.stitching.Stitcher`; the contract's own if None.
    canvas_memory
        Bytes that the canvas may take; a larger one is kept in tiles on disk. A quarter of the memory if None.

    Raises
    ------
    InputError
        If the scan does not fit the contract or the weighting, a pattern in the file is none, or a server fails for
        good.
    """
    session.check_scan(scan)
    weighting = weighting or session.contract.stitching.weighting
    weight = patch_weight(weighting, scan.size, scan.probe)
    placement = placement or session.contract.stitching.placement
    if synchronise is None:
        synchronise = session.contract.stitching.synchronise
    groups = covering_groups(scan.positions, session.contract.gridsize)
    stitcher = Stitcher(
        scan.positions[groups.reshape(-1)],
        weight,
        placement,
        synchronise=synchronise,
        memory=canvas_memory,
    )
    inference, done = 0.0, 0
    with ExitStack() as stages:
        stitching = stages.enter_context(WorkBehind(stitcher.add, "stitch"))
        if isinstance(scan.diffraction, LazyAmplitudes):
            scan = replace(scan, diffraction=stages.enter_context(ReadAhead(scan.diffraction, groups)))
        mark = time.perf_counter()
        for index, patches in session.batches(scan, groups, batch):
            inference += time.perf_counter() - mark
            stitching.hand(patches.reshape(-1, scan.size, scan.size), scan.positions[index.reshape(-1)])
            before, done = done, done + len(index)
            progress(len(scan) * done // len(groups) - len(scan) * before // len(groups))
            mark = time.perf_counter()
        stitching.finish()
    mark = time.perf_counter()
    stitched = stitcher.result()
    return Reconstruction(
        stitched,
        weighting,
        len(scan),
        inference,
        stitching.seconds + time.perf_counter() - mark,
        session.requests,
        placement,
        synchronise,
    )


def write_reconstruction(
    path: Path, reconstruction: Reconstruction, scan: Scan, contract: Contract
) -> list[Path]:
    """Write an object in the format that the ending of `path` names, see `writers.reconstruction_file`."""
    scan = scan.settled()
    if reconstruction.probe is not None:
        scan = replace(scan, probe=reconstruction.probe)
    product = Product(
        reconstruction.stitched,
        scan,
        reconstruction.weighting,
        contract.to_json(),
        reconstruction.refinement,
    )
    return write_product(path, product)
