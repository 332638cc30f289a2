"""A scan in the conventions of its file, and positions of a raster that were not recorded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.stacks import Stack
from ptychonnx.runtime.formats.read_options import Conventions, ReadOptions
from ptychonnx.runtime.scan import Scan

__all__ = ["RawScan", "check_raster", "from_scan", "raster_positions"]


@dataclass(frozen=True)
class RawScan:
    """A scan in the conventions of its file; patterns stay in the file."""

    path: Path  # the file, for messages
    # Stack [n, rows, columns] of detector frames, and its key.
    patterns: Stack
    patterns_key: str
    # float64 [n, 2] in the file's unit and axis order.
    positions: NDArray[np.float64]
    positions_key: str
    conventions: Conventions  # meaning of the numbers
    # Point of a window that the format's positions refer to; ours is the pixel [N // 2, N // 2]. `centre` is the same,
    # `middle` (N - 1) / 2, `corner` 0.
    offset: str = "centre"
    # Whether positions are coordinates that `known_object` or the user refers to. Otherwise only their differences are
    # meaningful, and the first window is placed in the corner of the canvas.
    absolute: bool = False
    probe: NDArray[np.complex64] | None = None  # complex [modes, N, N], in any unit
    mask: NDArray[np.bool_] | None = None  # bool [rows, columns] of the detector, True = valid
    # complex [rows, columns]; its pixel [0, 0] is at position (0, 0).
    known_object: NDArray[np.complex64] | None = None
    # In metres; the pixel size is that of the object at the full detector (its shorter side).
    pixel_size: float | None = None
    wavelength: float | None = None
    distance: float | None = None  # from the sample to the detector, in metres
    hint: str = ""  # remedy for bad pixels in this format
    # Whether the direct beam is where the mean pattern has it, instead of where the conventions say.
    detect_dc: bool = False
    notes: tuple[str, ...] = ()  # lines for the user about what was assumed


def from_scan(scan: Scan, path: Path, conventions: Conventions) -> RawScan:
    """A scan that has been read, so that options can be applied to it; labels are left out."""
    fixed = conventions.unit.reason
    ours = Conventions.of_format("", unit="px", axes="row,column", quantity="amplitude")
    return RawScan(
        path=path,
        patterns=scan.diffraction,
        patterns_key="the patterns",
        positions=scan.positions - (0 if scan.reference is None else np.array(scan.reference.origin)),
        positions_key="the positions",
        conventions=replace(ours, **{n: replace(getattr(ours, n), reason=fixed) for n in vars(ours)}),
        absolute=True,
        probe=scan.probe,
        mask=scan.mask,
        known_object=None if scan.reference is None else scan.reference.object,
        pixel_size=scan.pixel_size,
        wavelength=scan.wavelength,
    )


def raster_positions(options: ReadOptions, n: int, where: str) -> NDArray[np.float64]:
    """Positions (row, column) [n, 2] of a raster by its shape and step, row by row.

    Raises InputError if the step is missing, or the raster does not have n points.
    """
    if options.raster is None or options.raster_step is None:
        raise InputError(f"{where}: --raster and --raster-step describe a raster together, expected both")
    rows, columns = options.raster
    if rows * columns != n:
        raise InputError(
            f"{where}: a raster of {rows} x {columns} points for {n} patterns, expected {n} points"
        )
    return np.indices((rows, columns)).reshape(2, -1).T.astype(np.float64) * options.raster_step


def check_raster(shape: tuple[int, ...], raster: tuple[int, ...], where: str) -> None:
    """Refuse positions [rows, columns] of a raster whose patterns are stored [columns, rows].

    Raises InputError if they are; `where` (file and key) begins the message. `raster` is empty if patterns are a list.
    """
    if len(shape) == len(raster) == 2 and shape == raster[::-1] != raster and 1 not in raster:
        raise InputError(f"{where} has shape {shape}, expected {raster} like the raster of the patterns")
