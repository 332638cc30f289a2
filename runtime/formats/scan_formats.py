"""The known scan formats, recognised by content."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.hdf5 import HDF5File
from ptychonnx.runtime.formats.containers.npz import is_archive, open_archive
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan
from ptychonnx.runtime.formats.read_options import Conventions, ReadOptions
from ptychonnx.runtime.formats.readers import (
    cxi,
    fold_slice,
    native,
    nexus,
    nsls2,
    ptychodus,
    ptychopinn,
    ptyd,
    tike,
)
from ptychonnx.runtime.scan import Scan

__all__ = ["FORMATS", "NATIVE", "ScanFormat", "recognise"]


@dataclass(frozen=True)
class ScanFormat:
    """A kind of scan file."""

    # For messages: its name, and the keys by which it is recognised.
    name: str
    keys: str
    # `npz`: `matches` and `read` take an `npz.Archive`; `hdf5`: both take an `HDF5File`.
    container: Literal["npz", "hdf5"]
    matches: Callable[[Any], bool]  # true if the open file has this format
    # Reads the open file into a `Scan`, or into a `RawScan` whose patterns are still in the file.
    read: Callable[[Any], Scan | RawScan]
    # Conventions of an open file, for formats whose reader returns a `Scan`; a `RawScan` has its own.
    conventions: Callable[[Any], Conventions] | None = None


NATIVE = "ptychonnx"
# The first match wins, so the strictest come first.
FORMATS = (
    ScanFormat(
        NATIVE,
        "format, diffraction, positions",
        "npz",
        native.matches,
        native.read,
        lambda archive: Conventions.of_format(NATIVE, unit="px", axes="row,column", quantity="amplitude"),
    ),
    ScanFormat(
        "PtychoPINN",
        "diffraction or diff3d, with xcoords and ycoords or coords_offsets",
        "npz",
        ptychopinn.matches,
        ptychopinn.read,
        ptychopinn.conventions,
    ),
    ScanFormat("tike", "data, scan", "npz", tike.matches, tike.read),
    ScanFormat("NXptycho, NXcxi_ptycho", "definition in an entry", "hdf5", nexus.matches, nexus.read),
    ScanFormat("CXI", "entry_1/data_1/data", "hdf5", cxi.matches, cxi.read),
    ScanFormat("ptypy", "chunks, meta", "hdf5", ptyd.matches, ptyd.read),
    ScanFormat(
        "ptychodus training data",
        "patterns, probe_position_x_px, probe_position_y_px",
        "hdf5",
        ptychodus.matches_training,
        ptychodus.read_training,
    ),
    ScanFormat(
        "ptychodus",
        "patterns, indexes, bad_pixels or probe_position_indexes, probe_position_x_m, probe_position_y_m",
        "hdf5",
        ptychodus.matches,
        ptychodus.read,
    ),
    ScanFormat("NSLS-II", "diffamp, points", "hdf5", nsls2.matches, nsls2.read),
    ScanFormat(
        "pair",
        "dp or ppX, ppY or probe_position_x_m, probe_position_y_m",
        "hdf5",
        fold_slice.matches,
        fold_slice.read,
    ),
)


def recognise(path: Path, options: ReadOptions, stack: ExitStack) -> tuple[ScanFormat, Any]:
    """The format of a file, and the open file, which `stack` closes.

    Raises InputError if the file has no known format.
    """
    container, opened, content = _opened(path, options, stack)
    for scan_format in FORMATS:
        if scan_format.container == container and scan_format.matches(opened):
            return scan_format, opened
    known = "; ".join(f"{known.name} ({known.container.upper()}: {known.keys})" for known in FORMATS)
    raise InputError(f"{path}: not a known scan file: {content}, expected one of {known}, or a --map")


def _opened(path: Path, options: ReadOptions, stack: ExitStack) -> tuple[str, Any, str]:
    if is_archive(path):
        archive = stack.enter_context(open_archive(path))
        return "npz", archive, f"an NPZ archive of {', '.join(sorted(archive.keys)) or 'nothing'}"
    # MATLAB writes a text before the HDF5 file.
    if not h5py.is_hdf5(path):
        return "none", None, "neither NPZ nor HDF5"
    file = HDF5File.open(path, options, stack)
    return "hdf5", file, f"an HDF5 file of {', '.join(sorted(file.names())) or 'nothing'}"
