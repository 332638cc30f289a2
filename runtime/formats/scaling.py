"""What several formats do to raw arrays: counts to amplitudes, a probe brought to their power."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.physics import cut_windows, illumination
from runtime.scan import Reference, Scan

__all__ = [
    "amplitudes_from_counts",
    "probe_with_power",
    "root_of_counts",
    "sample_of",
    "scaled_probe",
    "valid_values",
]


_SAMPLE = 32


def valid_values(values: NDArray, where: str) -> NDArray[np.bool_]:
    """True where a value is a photon count or an amplitude: not negative, NaN, infinite, or a detector's mark.

    Raises
    ------
    InputError
        If the values are not real numbers; `where` (file and key) begins the message.
    """
    if values.dtype.kind == "f":
        return np.isfinite(values) & (values >= 0)
    if values.dtype.kind == "i":
        return values >= 0
    if values.dtype.kind != "u":
        raise InputError(f"{where} is {values.dtype}, expected photon counts, integers or floats")
    # Detectors mark dead and saturated pixels with the largest value of 16 and 32 bits.
    if values.dtype.itemsize == 1:
        return np.ones(values.shape, dtype=bool)
    return values != np.iinfo(values.dtype).max


def root_of_counts(counts: NDArray) -> NDArray[np.float32]:
    """Square root of counts. float32 holds whole counts up to 2**24 only, others are taken through float64."""
    if counts.dtype.kind in "iu" and counts.dtype.itemsize <= 2:
        return np.sqrt(counts, dtype=np.float32)
    return np.sqrt(counts, dtype=np.float64).astype(np.float32)


def amplitudes_from_counts(counts: NDArray, where: str) -> tuple[NDArray[np.float32], int]:
    """Square root of photon counts [n, N, N], 0 where there is none.

    Returns
    -------
    (amplitudes float32 [n, N, N], number of values that are no counts)

    Raises
    ------
    InputError
        If the counts are not real numbers; `where` (file and key) begins the message.
    """
    valid = valid_values(counts, where)
    return root_of_counts(np.where(valid, counts, 0)), int(counts.size - np.count_nonzero(valid))


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


def scaled_probe(
    scan: Scan, labels: NDArray[np.complex64] | None, reference: Reference | None
) -> NDArray[np.complex64] | None:
    """The probe of a scan, scaled so that it explains the power of the patterns, with the object if known."""
    if scan.probe is None:
        return None
    sample = sample_of(len(scan))
    patches = None if labels is None else labels[sample]
    if patches is None and reference is not None:
        margin = scan.size
        padded = np.pad(reference.object, margin)
        patches = cut_windows(padded, scan.positions[sample], scan.size, (-margin, -margin))
    if patches is None:
        return probe_with_power(scan.probe, scan.diffraction)
    density = illumination(scan.probe)
    passed = float(np.mean(np.sum(np.abs(patches) ** 2 * density, axis=(1, 2)))) / float(density.sum())
    return probe_with_power(scan.probe, scan.diffraction[sample], passed)


def sample_of(n: int) -> NDArray[np.intp]:
    """A few of n patterns, spread evenly: enough to decide on a scale or a meaning, and quick."""
    return np.unique(np.linspace(0, n - 1, min(n, _SAMPLE)).astype(np.intp))
