"""tike: an NPZ archive, often compressed with bzip2 as a whole.

Keys
----
data
    [1, n, N, N] or [n, N, N], photon counts, **DC in the corner** [0, 0], as the FFT leaves it.
scan
    [1, n, 2] or [n, 2], (row, column) in pixels of each window's top-left **corner**, rows downwards, columns
    to the right, up to a constant that tike adds before it places them on its canvas. Our positions are the
    centres ``scan + N // 2``. The sign is tike's own: a larger row is further down in the object.
probe
    optional, complex [..., modes, N, N] with leading axes of length 1, of any power: it is scaled so that
    sum |P|^2 is the mean number of counts in a pattern.

Amplitudes are shifted with `fftshift`, which moves [0, 0] to [N // 2, N // 2] for odd and even N; the probe
and the object stay as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.npz import Archive
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan
from ptychonnx.runtime.formats.read_options import Conventions
from ptychonnx.runtime.formats.readers.probe import archive_probe

__all__ = ["matches", "read"]


def matches(archive: Archive) -> bool:
    """True if the archive has tike's two mandatory keys."""
    return {"data", "scan"} <= archive.keys


def read(archive: Archive) -> RawScan:
    """Read a scan.

    Raises InputError on wrong shapes.
    """
    data = _without_view_axis(archive, "data", 3, "photon counts [1, n, N, N] or [n, N, N]")
    scan = _without_view_axis(archive, "scan", 2, "corners (row, column) in pixels, [1, n, 2] or [n, 2]")
    if scan.shape != (len(data), 2):
        raise InputError(
            f"{archive.path}: 'scan' has shape {scan.shape}, expected {(len(data), 2)} like 'data'"
        )
    return RawScan(
        path=archive.path,
        patterns=data,
        patterns_key="'data'",
        positions=scan.astype(np.float64),
        positions_key="'scan'",
        conventions=Conventions.of_format("tike", unit="px", axes="row,column", dc="corner"),
        offset="corner",
        absolute=True,
        probe=archive_probe(archive, "probe"),
    )


def _without_view_axis(archive: Archive, key: str, axes: int, expected: str) -> NDArray:
    array = archive.stack(key, expected)
    if array.ndim == axes + 1 and len(array) == 1:
        array = array[0]
    if array.ndim != axes:
        raise InputError(f"{archive.path}: {key!r} has shape {array.shape}, expected {expected}")
    return array
