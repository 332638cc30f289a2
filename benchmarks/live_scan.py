"""The scan of `benchmarks.live`: a file as an Eiger writes it, and how to read it."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

import ptychonnx
from ptychonnx import Scan

__all__ = ["MAPPING", "simulated", "write_scan"]

MAPPING = [part for key in ("patterns", "x", "y", "probe") for part in ("--map", f"{key}=/{key}")]
MAPPING += ["--positions-unit", "px"]


def simulated(size: int, photons: float = 1e7) -> Scan:
    """A scan of 400 patterns."""
    return ptychonnx.simulate_lines(grid=20, n=size, photons=photons)


def write_scan(path: Path, base: Scan, frames: int) -> None:
    """A scan of an Eiger, compressed counts in HDF5: copies of a simulated one, side by side."""
    size = base.size
    counts = np.rint(np.square(np.asarray(base.diffraction), dtype=np.float64))
    # The largest value of a type marks bad pixels.
    counts = counts.astype(np.uint16 if counts.max() < np.iinfo(np.uint16).max else np.uint32)
    extent = np.ptp(base.positions, axis=0) + 6
    copies = np.arange(-(-frames // len(base)))
    across = int(np.ceil(np.sqrt(len(copies))))
    shifts = np.stack([copies // across, copies % across], axis=1) * extent
    positions = (shifts[:, None] + base.positions).reshape(-1, 2)[:frames]
    with h5py.File(path, "w") as file:
        stored = file.create_dataset(
            "patterns",
            (frames, size, size),
            counts.dtype,
            chunks=(1, size, size),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        for start in range(0, frames, len(base)):
            stored[start : start + len(base)] = counts[: frames - start]
        file["y"], file["x"] = positions.T
        file["probe"] = base.probe
    np.save(path.with_name("probe.npy"), base.probe)
