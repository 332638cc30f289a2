"""The object in a PtychoPINN file: labels of single windows, and the whole object."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.npz import Archive, complex_array
from ptychonnx.runtime.formats.conversion.scaling import sample_of
from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.amplitudes import Amplitudes
from ptychonnx.runtime.scan.forward_model import forward

__all__ = ["object_behind_probe", "reference_object"]

# Where the probe is darker than this fraction of its brightest pixel, the object behind it is noise.
_DARK = 1e-4


def object_behind_probe(scan: Scan) -> NDArray[np.complex64] | None:
    """The object in each window, from the labels of a scan, which may hold |P| |O| instead of |O|.

    With several modes of the probe |P| is ambiguous, and the labels stay as they are.

    Returns
    -------
    complex64 [n, N, N]; 0 where the probe is dark, if the probe had to be divided out.
    """
    labels, probe = scan.labels, scan.probe
    if (
        labels is None
        or probe is None
        or len(probe) > 1
        or not _behind_probe(labels, probe, scan.diffraction)
    ):
        return labels
    magnitude = np.abs(probe[0])
    lit = magnitude**2 > _DARK * np.max(magnitude**2)
    return np.where(lit, labels / np.where(lit, magnitude, 1), 0).astype(np.complex64)


def _behind_probe(
    labels: NDArray[np.complex64], probe: NDArray[np.complex64], diffraction: Amplitudes
) -> bool:
    sample = sample_of(len(labels))
    measured = diffraction[sample].ravel()
    phase_only = np.exp(1j * np.angle(probe))
    # Labels that are all the same correlate with nothing.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        as_object = np.corrcoef(forward(labels[sample], probe).ravel(), measured)[0, 1]
        as_lit = np.corrcoef(forward(labels[sample], phase_only).ravel(), measured)[0, 1]
    return bool(as_lit > as_object)


def known_object(archive: Archive) -> NDArray[np.complex64] | None:
    """`objectGuess`, or None.

    Raises InputError if it is not [rows, columns].
    """
    if "objectGuess" not in archive:
        return None
    whole = complex_array(archive, "objectGuess", "complex [rows, columns]")
    if whole.ndim != 2:
        raise InputError(f"{archive.path}: 'objectGuess' has shape {whole.shape}, expected [rows, columns]")
    return whole


def reference_object(archive: Archive, positions: NDArray[np.float64]) -> Reference | None:
    """`objectGuess`, or None, with a warning if positions lie outside it."""
    whole = known_object(archive)
    if whole is None:
        return None
    if not Reference(whole).covers(positions):
        warnings.warn(
            f"{archive.path}: positions leave 'objectGuess' of shape {whole.shape}: it is no reference",
            stacklevel=2,
        )
        return None
    return Reference(whole)
