"""What several formats do to raw arrays: counts to amplitudes, a probe brought to their power."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError

__all__ = ["amplitudes_from_counts", "probe_with_power"]


def amplitudes_from_counts(
    counts: NDArray, mask: NDArray[np.bool_] | None, where: str
) -> tuple[NDArray[np.float32], int]:
    """Square root of photon counts, 0 at bad pixels.

    Parameters
    ----------
    counts
        [n, N, N] photon counts, integers of any width or floats; DC stays where it is.
    mask
        bool [N, N], True = trust; bad pixels may hold anything (NaN, -1, 2**32 - 1).
    where
        File and key, for the error.

    Returns
    -------
    (amplitudes float32 [n, N, N], number of trusted pixels that are no counts; these are 0 too)

    Raises
    ------
    InputError
        If the counts are not real numbers.
    """
    if counts.dtype.kind not in "fiu":
        raise InputError(f"{where} is {counts.dtype}, expected photon counts, integers or floats")
    if counts.dtype.kind == "f":
        broken = ~(np.isfinite(counts) & (counts >= 0))
    elif counts.dtype.kind == "i":
        broken = counts < 0
    else:
        # Detectors mark dead and saturated pixels with the largest value of 16 and 32 bits.
        sentinel = np.iinfo(counts.dtype).max
        broken = counts == sentinel if counts.dtype.itemsize > 1 else np.zeros(counts.shape, dtype=bool)
    trusted_and_broken = int(np.count_nonzero(broken if mask is None else broken & mask))
    bad = broken if mask is None else broken | ~mask
    # The root in float64: float32 holds whole counts only up to 2**24.
    return np.sqrt(np.where(bad, 0, counts).astype(np.float64)).astype(np.float32), trusted_and_broken


def probe_with_power(
    probe: NDArray[np.complex64], diffraction: NDArray[np.float32], transmission: float = 1.0
) -> NDArray[np.complex64]:
    """A probe [modes, N, N] scaled so that the mean pattern carries ``transmission * sum |P|^2`` photons.

    A probe of no power at all is returned as it is, for `Scan` to refuse.

    Parameters
    ----------
    diffraction
        float32 [n, N, N], amplitudes.
    transmission
        Share of the probe's photons that passes the object.
    """
    power = float(np.sum(np.abs(probe.astype(np.complex128)) ** 2)) * transmission
    photons = float(np.sum([np.sum(np.square(pattern, dtype=np.float64)) for pattern in diffraction]))
    if not (np.isfinite(power) and power > 0 and len(diffraction)):
        return probe
    return (probe * np.sqrt(photons / len(diffraction) / power)).astype(np.complex64)
