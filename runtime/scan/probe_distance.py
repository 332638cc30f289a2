"""How different two probes are, whatever their global phase, position and conjugation, and a small copy of a probe."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan.beam_arrays import strongest_modes

__all__ = ["FAR", "probe_difference", "probe_distance", "probe_of_thumbnail", "thumbnail"]

# Distance above which two probes are different beams: a defocus or an aberration that changes the fringes, not noise
# or a small error of the position.
FAR = 0.3

_SIDE = 32
_FINER = 4


def probe_distance(first: NDArray[np.complexfloating], second: NDArray[np.complexfloating]) -> float:
    """Distance of two probes complex [modes, N, N], from 0 (equal) to 1 (nothing in common).

    It is ``sqrt(1 - c^2)``, where c is the largest normalised cross-correlation, over all shifts, of the strongest mode
    of one probe with that of the other, its complex conjugate, or its twin (both conjugate and inverted), at a
    resolution of at most 32 x 32 pixels. Power does not matter.
    """
    a, b = _small(first), _small(second)
    if a.shape != b.shape:
        return 1.0
    twin = np.roll(b[::-1, ::-1], 1, axis=(0, 1)).conj()
    largest = max(_largest_correlation(a, other) for other in (b, b.conj(), twin))
    return float(np.sqrt(max(0.0, 1 - min(1.0, largest) ** 2)))


def probe_difference(first: NDArray[np.complexfloating], second: NDArray[np.complexfloating]) -> float:
    """Relative difference of two probes in the same place after the best global phase, at full resolution."""
    product = float(abs(np.vdot(first, second)) / np.vdot(first, first).real)
    return float(np.sqrt(max(0.0, 2 - 2 * product)))


def _largest_correlation(a: NDArray[np.complex128], b: NDArray[np.complex128]) -> float:
    """Largest cross-correlation over all shifts by a quarter of a pixel."""
    side = len(a)
    spectrum = np.fft.fftshift(np.fft.fft2(a) * np.fft.fft2(b).conj())
    start = (_FINER * side) // 2 - side // 2
    padded = np.pad(spectrum, (start, (_FINER - 1) * side - start))
    return _FINER**2 * float(np.abs(np.fft.ifft2(np.fft.ifftshift(padded))).max())


def thumbnail(probe: NDArray[np.complexfloating]) -> str:
    """A text with the strongest mode of a probe: base64 of float16 [side, side, 2], of unit power."""
    small = _small(probe)
    pairs = np.stack([small.real, small.imag], axis=-1).astype("<f2")
    return base64.b64encode(pairs.tobytes()).decode()


def probe_of_thumbnail(text: str) -> NDArray[np.complex128]:
    """The probe complex [1, side, side] in a thumbnail.

    Raises InputError if the text is not a thumbnail.
    """
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2").astype(np.float64)
    except (binascii.Error, ValueError) as error:
        raise InputError("contract: the thumbnail of the probe is not base64 of float16 pairs") from error
    side = round(np.sqrt(values.size / 2))
    if values.size != 2 * side**2 or not side:
        raise InputError("contract: the thumbnail of the probe is not square")
    pairs = values.reshape(side, side, 2)
    return (pairs[..., 0] + 1j * pairs[..., 1])[None]


def _small(probe: NDArray[np.complexfloating]) -> NDArray[np.complex128]:
    """The strongest mode [side, side] with unit power, low-pass filtered by cropping its far field."""
    mode = strongest_modes(probe.astype(np.complex128), 1)[0][0]
    size = mode.shape[-1]
    side = min(size, _SIDE)
    far_field = np.fft.fftshift(np.fft.fft2(mode))
    start = size // 2 - side // 2
    small = np.fft.ifft2(np.fft.ifftshift(far_field[start : start + side, start : start + side]))
    return small / np.linalg.norm(small)
