"""Scans of tike: an NPZ archive, often compressed with bzip2 as a whole.

Keys
----
data
    [1, n, N, N] or [n, N, N], photon counts, **DC in the corner** [0, 0], as the transform leaves it.
scan
    [1, n, 2] or [n, 2], (row, column) in pixels of each window's top-left **corner**, rows downwards, columns
    to the right, up to a constant that tike adds before it places them on its canvas. Positions here are
    centres: ``scan + N // 2``. The sign is tike's own: a larger row is further down in the object.
probe
    optional, complex [..., modes, N, N] with leading axes of length 1, of any power: it is scaled so that
    sum |P|^2 is the mean number of counts in a pattern.

Amplitudes are turned with `fftshift`, which moves [0, 0] to [N // 2, N // 2] for odd and even N; the probe
and the object lie as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.formats.archive import Archive, complex_array, real_array
from runtime.formats.scaling import amplitudes_from_counts, probe_with_power
from runtime.scan import Scan

__all__ = ["matches", "read"]


def matches(archive: Archive) -> bool:
    """True if the archive has tike's two mandatory keys."""
    return {"data", "scan"} <= archive.keys


def read(archive: Archive) -> Scan:
    """Read a scan.

    Raises
    ------
    InputError
        On wrong shapes, or counts that are negative or NaN.
    """
    data = _without_view_axis(archive, "data", 3, "photon counts [1, n, N, N] or [n, N, N]")
    scan = _without_view_axis(archive, "scan", 2, "corners (row, column) in pixels, [1, n, 2] or [n, 2]")
    if data.shape[1] != data.shape[2]:
        raise InputError(f"{archive.path}: 'data' has shape {data.shape}, expected square patterns [n, N, N]")
    if scan.shape != (len(data), 2):
        raise InputError(
            f"{archive.path}: 'scan' has shape {scan.shape}, expected {(len(data), 2)} like 'data'"
        )
    amplitudes, broken = amplitudes_from_counts(data, None, f"{archive.path}: 'data'")
    if broken:
        raise InputError(
            f"{archive.path}: 'data' has {broken} negative, NaN or saturated pixels, expected counts"
        )
    diffraction = np.fft.fftshift(amplitudes, axes=(1, 2))
    return Scan(
        diffraction=diffraction,
        positions=scan.astype(np.float64) + data.shape[1] // 2,
        probe=_probe(archive, diffraction) if "probe" in archive else None,
        name=archive.path.name,
    )


def _without_view_axis(archive: Archive, key: str, axes: int, expected: str) -> NDArray:
    array = real_array(archive, key, expected)
    if array.ndim == axes + 1 and len(array) == 1:
        array = array[0]
    if array.ndim != axes:
        raise InputError(f"{archive.path}: {key!r} has shape {array.shape}, expected {expected}")
    return array


def _probe(archive: Archive, diffraction: NDArray[np.float32]) -> NDArray[np.complex64]:
    expected = "complex [..., modes, N, N] with leading axes of length 1"
    probe = complex_array(archive, "probe", expected)
    if probe.ndim < 2 or any(length != 1 for length in probe.shape[:-3]):
        raise InputError(f"{archive.path}: 'probe' has shape {probe.shape}, expected {expected}")
    probe = probe.reshape(-1, *probe.shape[-2:])
    return probe_with_power(probe, diffraction)
