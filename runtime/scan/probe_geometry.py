"""Width and defocus of a probe, from the probe alone, and the overlap of a scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ptychonnx.runtime.scan.beam_arrays import strongest_modes
from ptychonnx.runtime.scan.forward_model import illumination
from ptychonnx.runtime.scan.scan import Scan

__all__ = ["IN_FOCUS", "defocus", "fresnel_number", "overlap_of", "probe_diameter"]

# Fresnel numbers above this one are those of a beam in focus.
IN_FOCUS = 1000.0

# Frequencies with less than this fraction of the largest power are noise, which second moments weigh heavily.
_FAINT = 1e-3


def defocus(probe: NDArray[np.complexfloating]) -> float:
    """``wavelength * z`` in square pixels, where z is the distance of the sample from the plane where the beam is
    narrowest, a focus or an aperture; negative if that plane lies behind the sample.

    Along the axis, the second moment of a beam is the parabola ``<x^2> + 2 <x k> s + <k^2> s^2`` with ``s = wavelength
    z' / (2 pi)``, which is least at ``-<x k> / <k^2>`` (ISO 11146-2). It is that of the strongest mode of a probe
    complex [modes, N, N].
    """
    mode = strongest_modes(probe.astype(np.complex128), 1)[0][0]
    waves = np.fft.fft2(mode)
    power = np.abs(waves) ** 2
    waves = np.where(power > _FAINT * power.max(), waves, 0)
    mode = np.fft.ifft2(waves)
    axis = np.arange(mode.shape[0]) - mode.shape[0] // 2
    frequency = 2 * np.pi * np.fft.fftfreq(mode.shape[0])
    mixed = square = 0.0
    for direction in (0, 1):
        x = _centred(axis, np.abs(mode) ** 2, direction)
        k = _centred(frequency, np.abs(waves) ** 2, direction)
        mixed += float(np.sum(x * (mode.conj() * np.fft.ifft2(k * waves)).real)) * mode.size
        square += float(np.sum(np.abs(k * waves) ** 2))
    return 2 * np.pi * mixed / square if square else 0.0


def fresnel_number(probe: NDArray[np.complexfloating]) -> float:
    """``r^2 / (wavelength |z|)`` with the radius r of the beam at the sample, at most `IN_FOCUS`."""
    radius = probe_diameter(probe) / 2
    return float(radius**2 / max(abs(defocus(probe)), radius**2 / IN_FOCUS))


def probe_diameter(probe: NDArray[np.complexfloating]) -> float:
    """Diameter in pixels of a disk with the area that the light covers, ``(sum |P|^2)^2 / sum |P|^4``."""
    density = illumination(probe)
    area = float(density.sum() ** 2 / (density**2).sum())
    return float(2 * np.sqrt(area / np.pi))


def overlap_of(scan: Scan) -> float | None:
    """``1 - distance of neighbouring positions / diameter of the probe``, at least 0; None without a probe."""
    if scan.probe is None or len(scan) < 2:
        return None
    distance = float(np.median(KDTree(scan.positions).query(scan.positions, 2)[0][:, 1]))
    return max(0.0, 1 - distance / probe_diameter(scan.probe))


def _centred(axis: NDArray, density: NDArray[np.float64], direction: int) -> NDArray[np.float64]:
    """Coordinates along rows (0) or columns (1), from the centre of gravity of a density [N, N]."""
    centre = float(np.sum(density.sum(axis=1 - direction) * axis) / density.sum())
    return np.expand_dims(axis - centre, 1 - direction)
