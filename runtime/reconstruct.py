"""From a scan to an object: network, then stitcher."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from runtime.atomic import atomic_path
from runtime.contract import Contract
from runtime.grouping import group_neighbours
from runtime.scan import Scan
from runtime.session import DEFAULT_BATCH, Session
from runtime.stitching import Stitched, Stitcher, patch_weight

__all__ = ["Reconstruction", "reconstruct", "write_reconstruction"]


@dataclass(frozen=True)
class Reconstruction:
    """A stitched object and how it came about."""

    stitched: Stitched
    weighting: str
    patterns: int
    inference_seconds: float
    stitching_seconds: float


def reconstruct(
    session: Session,
    scan: Scan,
    weighting: str | None = None,
    batch: int = DEFAULT_BATCH,
    progress: Callable[[int], None] = lambda patterns: None,
) -> Reconstruction:
    """Run every pattern of a scan through an artifact and stitch the patches.

    Parameters
    ----------
    weighting
        See `runtime.stitching.patch_weight`; the contract's own if None.
    progress
        Called after each batch with the number of groups done in it.

    Raises
    ------
    InputError
        If the scan does not fit the contract or the weighting.
    """
    session.check_scan(scan)
    weighting = weighting or session.contract.stitching.weighting
    weight = patch_weight(weighting, scan.size, scan.probe)
    stitcher = Stitcher(scan.positions, weight)
    groups = group_neighbours(scan.positions, session.contract.gridsize)
    inference = stitching = 0.0
    mark = time.perf_counter()
    for index, patches in session.batches(scan, groups, batch):
        inferred = time.perf_counter()
        inference += inferred - mark
        stitcher.add(patches.reshape(-1, scan.size, scan.size), scan.positions[index.reshape(-1)])
        progress(len(index))
        mark = time.perf_counter()
        stitching += mark - inferred
    return Reconstruction(stitcher.result(), weighting, len(scan), inference, stitching)


def write_reconstruction(path: Path, reconstruction: Reconstruction, scan: Scan, contract: Contract) -> None:
    """Write an object to HDF5: `object` complex64 [rows, columns], `weight`, `origin_px`, their history."""
    stitched = reconstruction.stitched
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        file.create_dataset("object", data=stitched.object, compression="gzip")
        file.create_dataset("weight", data=stitched.weight.astype(np.float32), compression="gzip")
        file["origin_px"] = np.asarray(stitched.origin)
        file["origin_px"].attrs["description"] = (
            "(row, column) of pixel [0, 0] in the coordinates of the scan"
        )
        if scan.pixel_size is not None:
            file["pixel_size_m"] = scan.pixel_size
        file.attrs["scan"] = scan.name
        file.attrs["weighting"] = reconstruction.weighting
        file.attrs["contract"] = contract.to_json()
