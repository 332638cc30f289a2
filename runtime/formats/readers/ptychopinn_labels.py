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


def object_behind_probe(
    labels: NDArray[np.complex64], probe: NDArray[np.complex64], diffraction: Amplitudes
) -> NDArray[np.complex64]:
    """The object in each window, from labels that may hold |P| |O| instead of |O|.

    Parameters
    ----------
    labels
        complex64 [n, N, N], with the phase of the object in either case.
    probe
        complex64 [modes, N, N]; with several modes |P| is ambiguous and the labels stay as they are.
    diffraction
        float32 [n, N, N], amplitudes, which show whether the labels include the probe.

    Returns
    -------
    complex64 [n, N, N]; 0 where the probe is dark, if the probe had to be divided out.
    """
    if len(probe) > 1 or not _behind_probe(labels, probe, diffraction):
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


def reference_object(archive: Archive, scan: Scan) -> Reference | None:
    """`objectGuess`, or None, with a warning if positions lie outside it.

    Raises InputError if it is not [rows, columns].
    """
    if "objectGuess" not in archive:
        return None
    whole = complex_array(archive, "objectGuess", "complex [rows, columns]")
    if whole.ndim != 2:
        raise InputError(f"{archive.path}: 'objectGuess' has shape {whole.shape}, expected [rows, columns]")
    if (scan.positions < 0).any() or (scan.positions > np.array(whole.shape) - 1).any():
        warnings.warn(
            f"{archive.path}: positions leave 'objectGuess' of shape {whole.shape}: it is no reference",
            stacklevel=2,
        )
        return None
    return Reference(whole)
