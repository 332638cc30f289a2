"""Counts become amplitudes, and a probe is scaled to their power."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.amplitudes import photons, sample_of
from ptychonnx.runtime.scan.forward_model import cut_windows, illumination

__all__ = [
    "estimated_flux",
    "probe_with_power",
    "root_of_counts",
    "scaled_probe",
    "valid_values",
]

# float32 holds all whole numbers up to this one.
_EXACT_IN_FLOAT32 = 2**24
# Marks of detectors of 32 bits: the largest signed number, and -1 and -2, which are just below 2**32 in unsigned types,
# as are other small negative numbers that were cast, such as those that the subtraction of a dark frame leaves.
_LARGEST_SIGNED_32 = 2**31 - 1
_WRAPPED_32 = (2**32 - 2**15, 2**32)


def valid_values(values: NDArray, where: str) -> NDArray[np.bool_]:
    """True where a value is a photon count or an amplitude: not negative, NaN, infinite, or a detector's marker.

    Raises InputError if the values are not real numbers; `where` (file and key) begins the message.
    """
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind not in "fiu":
        raise InputError(f"{where} is {values.dtype}, expected photon counts, integers or floats")
    highest = np.finfo(values.dtype).max if kind == "f" else np.iinfo(values.dtype).max
    valid = np.isfinite(values) if kind == "f" else np.ones(values.shape, dtype=bool)
    if kind != "u":
        valid &= values >= 0
    if kind == "u" and size >= 4:
        # The upper half is that of negative numbers.
        valid &= values <= highest // 2
    elif kind != "f" and size > 1:
        # Detectors mark dead and saturated pixels with the largest values of their bits.
        valid &= values != highest
    if size >= 4:
        valid &= values != values.dtype.type(_LARGEST_SIGNED_32)
    if highest > _WRAPPED_32[1]:
        low, high = map(values.dtype.type, _WRAPPED_32)
        valid &= (values < low) | (values > high)
    return valid


def root_of_counts(counts: NDArray) -> NDArray[np.float32]:
    """Square root of counts as if computed in float64; where float32 holds the counts, its own root is the same."""
    if counts.dtype.kind in "iu" and (
        counts.dtype.itemsize <= 2 or counts.max(initial=0) <= _EXACT_IN_FLOAT32
    ):
        exact = counts.astype(np.float32)
        return np.sqrt(exact, out=exact)
    return np.sqrt(counts, dtype=np.float64).astype(np.float32)


def probe_with_power(
    probe: NDArray[np.complex64], flux: float, transmission: float = 1.0
) -> NDArray[np.complex64]:
    """A probe [modes, N, N] scaled so that the mean pattern carries ``transmission * sum |P|^2`` photons.

    A probe without power is returned unchanged; `Scan` refuses it.

    * `flux`: mean number of photons in a pattern.
    * `transmission`: fraction of the probe's photons that passes the object.
    """
    power = float(np.sum(np.abs(probe.astype(np.complex128)) ** 2)) * transmission
    if not (np.isfinite(power) and power > 0):
        return probe
    return (probe * np.sqrt(flux / power)).astype(np.complex64)


def scaled_probe(
    scan: Scan, labels: NDArray[np.complex64] | None, reference: Reference | None, *, estimate: bool = False
) -> tuple[NDArray[np.complex64] | None, bool]:
    """The probe of a scan, scaled so that it explains the power of the patterns, together with the object if known.

    `estimate`: estimate the power from a sample of the patterns where all would have to be read.

    Returns (probe, whether its power is an estimate).
    """
    if scan.probe is None:
        return None, False
    sample = sample_of(len(scan))
    patches = None if labels is None else labels[sample]
    if patches is None and reference is not None:
        margin = scan.size
        padded = np.pad(reference.object, margin)
        patches = cut_windows(padded, scan.positions[sample], scan.size, (-margin, -margin))
    if patches is None:
        flux = estimated_flux(scan) if estimate else scan.flux
        return probe_with_power(scan.probe, flux), estimate
    density = illumination(scan.probe)
    passed = float(np.mean(np.sum(np.abs(patches) ** 2 * density, axis=(1, 2)))) / float(density.sum())
    return probe_with_power(scan.probe, estimated_flux(scan), passed), False


def estimated_flux(scan: Scan) -> float:
    """Mean number of photons in a sample of the patterns."""
    return float(np.mean(photons(scan.diffraction[sample_of(len(scan))])))
