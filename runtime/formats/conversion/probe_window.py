"""A probe in another window: that of cropped, binned or padded patterns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.conversion.frames import FramePlan

__all__ = ["corner_note", "fitted_probe", "phase_note", "probe_of_size", "resampled_probe", "share_in_middle"]

# Share of its power that a probe has in the middle quarter of its window, once it is there.
_CONCENTRATED = 0.6


def probe_of_size(
    probe: NDArray[np.complex64],
    size: int,
    resample: bool,
    where: str,
    log: Callable[[str], None] = lambda line: None,
) -> NDArray[np.complex64]:
    """A probe [modes, rows, columns] for patterns of `size` pixels; one of another size is resampled if allowed.

    Raises InputError if the size differs and `resample` is False, or the probe is not square; `where` names the probe.
    """
    rows, columns = probe.shape[1:]
    if rows == columns == size:
        return probe
    sizes = f"the probe has {rows} x {columns} pixels, the patterns have {size} x {size}"
    if rows != columns:
        raise InputError(f"{where}: {sizes}, expected a square probe")
    if not resample:
        raise InputError(
            f"{where}: {sizes}: expected the same, or --resample-probe if both cover the same field of view"
        )
    log(
        f"probe: resampled from {rows} x {rows} to {size} x {size} pixels over the same field of view (given)"
    )
    return resampled_probe(probe, size)


def resampled_probe(probe: NDArray[np.complexfloating], size: int) -> NDArray[np.complex64]:
    """A probe complex [modes, N, N] on `size` pixels over the same length, complex64 [modes, size, size].

    Its Fourier transform is cropped, or padded with zeros. The power is that of the frequencies that stay.
    """
    waves = np.fft.fftshift(np.fft.fft2(probe.astype(np.complex128), norm="ortho"), axes=(-2, -1))
    before = probe.shape[-1]
    if size > before:
        first = size // 2 - before // 2
        waves = np.pad(waves, ((0, 0), *((first, size - before - first),) * 2))
    waves = _middle(waves, size)
    return np.fft.ifft2(np.fft.ifftshift(waves, axes=(-2, -1)), norm="ortho").astype(np.complex64)


def fitted_probe(probe: NDArray[np.complex64], plan: FramePlan) -> NDArray[np.complex64]:
    """The probe of the full detector, converted to cropped and binned patterns.

    Cropping the detector keeps the low frequencies of the probe, on coarser pixels; binning keeps the middle of the
    window, on the same pixels, and samples frequencies between the original ones.
    """
    if probe.shape[-1] == plan.full and plan.cut != plan.full:
        probe = resampled_probe(probe, plan.cut)
    if probe.shape[-1] == plan.cut and plan.rebin > 1:
        # The middle of the direct beam's bin is not the beam itself: in the window, a phase ramp.
        off = (plan.rebin - 1) / 2 - (plan.cut // 2 - plan.rebin * (plan.size // 2))
        ramp = np.exp(-2j * np.pi * off * (np.arange(plan.cut) - plan.cut // 2) / plan.cut)
        probe = _middle(probe * np.outer(ramp, ramp), plan.size)
    return np.ascontiguousarray(probe, dtype=np.complex64)


def share_in_middle(probe: NDArray[np.complexfloating], size: int) -> float:
    """Share of the power of a probe [modes, N, N] in the middle `size` x `size` pixels of its window."""
    power = np.abs(probe.astype(np.complex128)) ** 2
    return float(_middle(power, size).sum() / power.sum())


def corner_note(probe: NDArray[np.complexfloating]) -> str:
    """A line for the user if a probe [modes, N, N] is bright in the corners of its window, as the FFT leaves it."""
    side = probe.shape[-1] // 2
    if side == 0 or not probe.any() or not np.isfinite(probe).all():
        return ""
    here, shifted = (share_in_middle(wave, side) for wave in (probe, np.fft.fftshift(probe, axes=(-2, -1))))
    if shifted < _CONCENTRATED or here > shifted / 2:
        return ""
    return f"probe: {1 - here:.0%} of its power is outside the middle of its window: was it stored without fftshift?"


def phase_note(probe: NDArray[np.complexfloating]) -> str:
    """A line for the user if a probe [modes, N, N] is nowhere complex or negative; that of an aperture may be so."""
    # An aperture has one brightness.
    if np.imag(probe).any() or (np.real(probe) < 0).any() or len(np.unique(np.real(probe))) <= 2:
        return ""
    return "probe: its phase is 0 everywhere: does the file hold magnitudes alone?"


def _middle(image: NDArray, size: int) -> NDArray:
    rows, columns = (length // 2 - size // 2 for length in image.shape[-2:])
    return image[..., rows : rows + size, columns : columns + size]
