"""The update of the regularised ptychographic iterative engine (rPIE), one pattern at a time.

It visits one pattern after the other and updates the object in its window:

    O <- O + beta conj(P) (psi' - psi) / ((1 - alpha) |P|^2 + alpha max |P|^2)

psi = P O is the exit wave, psi' the exit wave with the measured amplitude on the detector, and |P|^2 the sum over the
modes of the probe (Maiden, Johnson and Li, Optica 4, 736, 2017). alpha = 1 is ePIE (Maiden and Rodenburg,
Ultramicroscopy 109, 1256, 2009). Fractions of a pixel shift the probe by a phase ramp on its Fourier transform.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft2, ifft2

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan.forward_model import illumination

__all__ = ["WindowUpdates"]

# Corners that are whole up to rounding are whole.
_ROUNDING = 1e-6
# Amplitude below which a predicted pixel has no phase.
_DARK = 1e-9


class WindowUpdates:
    """Updates of an object, and perhaps of the probe, by one pattern at a time.

    Raises InputError if a window leaves the object.

    * `object`: complex64 [rows, columns], changed in place.
    * `probe`: complex64 [modes, N, N].
    * `measured`: photons in the valid pixels of all patterns.
    * `slopes`: [n, 2], how much each pattern wanted the phase in its window to slope along rows and columns when it was
      visited last: ``J^T r`` of `ptychonnx.harness.iterative.coarse_phase`.

    * `image`: object to start from, complex [rows, columns]; copied.
    * `probe`: complex [modes, N, N], scaled to the counts.
    * `amplitudes`, `valid`: patterns [n, N, N] and their mask [N, N], with the direct beam in the corner.
    * `corners`: [n, 2], (row, column) of the corner of each window in pixels of the object.
    * `step`: beta.
    * `refine_probe`: update the probe too, by the rule of ePIE with object and probe exchanged.
    """

    def __init__(
        self,
        image: NDArray[np.complexfloating],
        probe: NDArray[np.complexfloating],
        amplitudes: NDArray[np.float32],
        valid: NDArray[np.bool_],
        corners: NDArray[np.float64],
        *,
        step: float = 1.0,
        refine_probe: bool = False,
    ) -> None:
        self.object = image.astype(np.complex64)
        self.probe = probe.astype(np.complex64)
        self.measured = float(np.sum(np.square(amplitudes[:, valid], dtype=np.float64)))
        self._amplitudes = amplitudes
        self._valid = None if valid.all() else valid
        self._whole = np.floor(corners + _ROUNDING).astype(int)
        self._fractions = np.where(np.abs(corners - self._whole) < 2 * _ROUNDING, 0, corners - self._whole)
        beyond = self._whole + probe.shape[-1] - self.object.shape
        if self._whole.min() < 0 or beyond.max() > 0:
            raise InputError("iterations: windows leave the object, expected one that covers all patterns")
        self.slopes = np.zeros((len(amplitudes), 2))
        axis = np.arange(probe.shape[-1], dtype=np.float32) - probe.shape[-1] // 2
        self._axes = axis[:, None], axis[None, :]
        self._step = step
        self._brightest = float(illumination(probe).max())
        self._probe_step = 0.0
        if refine_probe:
            self._probe_step = step / max(float(np.abs(image).max()) ** 2, 1e-12)
        self._alpha = 0.0
        self._unmoved: tuple[NDArray, NDArray] | None = None

    def visit(self, index: int, alpha: float) -> float:
        """Update the window of a pattern; return its squared amplitude error before."""
        ramp = self._ramp(index)
        probe, factor = self._shifted(ramp, alpha)
        row, column = self._whole[index]
        size = probe.shape[-1]
        window = self.object[row : row + size, column : column + size]
        # Where the window is shifted to matters to neither the amplitudes nor the exit wave that comes back.
        exit_waves = probe * window
        waves = fft2(exit_waves, norm="ortho")
        predicted = np.sqrt(np.sum(waves.real**2 + waves.imag**2, axis=0))
        difference = self._amplitudes[index] - predicted
        if self._valid is not None:
            difference = np.where(self._valid, difference, np.float32(0))
        change = ifft2(waves * (difference / np.maximum(predicted, _DARK)), norm="ortho", overwrite_x=True)
        if self._probe_step:
            pull = self._probe_step * window.conj() * change
            if ramp is not None:
                pull = ifft2(fft2(pull) * ramp.conj())
        for direction, axis in enumerate(self._axes):
            self.slopes[index, direction] = -np.vdot(change, axis * exit_waves).imag
        window += np.sum(factor * change, axis=0)
        if self._probe_step:
            self.probe += pull
            self._unmoved = None
        return float(np.vdot(difference, difference))

    def information(self, index: int) -> NDArray[np.float64]:
        """What a pattern tells about the slope of the phase in its window: ``J^T J`` of `coarse_phase`, [2, 2]."""
        probe, _ = self._shifted(self._ramp(index), self._alpha or 1.0)
        row, column = self._whole[index]
        size = probe.shape[-1]
        exit_waves = probe * self.object[row : row + size, column : column + size]
        waves = fft2(exit_waves, norm="ortho")
        predicted = np.sqrt(np.sum(waves.real**2 + waves.imag**2, axis=0))
        slopes = []
        for axis in self._axes:
            # Re(conj(Psi) i turned)
            turned = fft2(axis * exit_waves, norm="ortho")
            slope = np.sum(waves.imag * turned.real - waves.real * turned.imag, axis=0) / np.maximum(
                predicted, _DARK
            )
            slopes.append((slope if self._valid is None else slope[self._valid]).ravel())
        jacobian = np.asarray(slopes, dtype=np.float64)
        return jacobian @ jacobian.T

    def _ramp(self, index: int) -> NDArray[np.complex64] | None:
        """What shifts the probe to a pattern, on its Fourier transform; None for whole pixels."""
        if not self._fractions[index].any():
            return None
        frequencies = np.fft.fftfreq(self.probe.shape[-1])
        rows, columns = np.exp(-2j * np.pi * np.multiply.outer(self._fractions[index], frequencies))
        return np.multiply.outer(rows, columns).astype(np.complex64)

    def _shifted(self, ramp: NDArray[np.complex64] | None, alpha: float) -> tuple[NDArray, NDArray]:
        """The probe in a window, and the factor of the exit wave's change; both [modes, N, N]."""
        if ramp is not None:
            return self._with_factor(ifft2(fft2(self.probe) * ramp), alpha)
        if self._unmoved is None or self._alpha != alpha:
            self._alpha, self._unmoved = alpha, self._with_factor(self.probe, alpha)
        return self._unmoved

    def _with_factor(self, probe: NDArray[np.complex64], alpha: float) -> tuple[NDArray, NDArray]:
        light = np.sum(probe.real**2 + probe.imag**2, axis=0)
        return probe, self._step * probe.conj() / ((1 - alpha) * light + alpha * self._brightest)
