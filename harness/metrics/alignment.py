"""Alignment of a complex reconstruction to a complex reference.

A ptychographic object is determined up to a global complex factor and, if the probe or the centre of the detector is
not exact, up to a linear phase ramp and a shift. Every correction is recorded with the metrics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.harness.metrics.periodicity import periods_of
from ptychonnx.harness.metrics.region import largest_rectangle

__all__ = [
    "Aligned",
    "Alignment",
    "align",
    "apply_alignment",
    "apply_ramp",
    "compared_region",
    "fit_factor",
    "fit_ramp",
    "fit_shift",
    "shift_image",
]

# Pixels from the border that interpolation and the rounding of a shift affect.
_INTERPOLATION_MARGIN = 2
_RAMP_ITERATIONS = 100
_RAMP_TOLERANCE = 1e-9
_SHIFT_ITERATIONS = 8
_UPSAMPLE = 50
# A shift by a larger part of the image is no misplacement but a false peak of the correlation, as in a failed
# reconstruction, and correcting it would move the image out of the region.
_LARGEST_SHIFT = 1 / 8


class Alignment(BaseModel):
    """Corrections that were applied to the reconstruction before the comparison; null if not requested."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: float = Field(description="factor that the reconstruction was multiplied by")
    phase_rad: float = Field(description="phase that was added")
    ramp_rad_per_pixel: tuple[float, float] | None = Field(
        None, description="slope down the rows and along the columns that was subtracted from the phase"
    )
    shift_px: tuple[float, float] | None = Field(
        None, description="shift of the reconstruction, rows down and columns right"
    )
    method: str = Field("global complex factor by least squares", description="in words")
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Aligned:
    """An aligned object.

    * `object`: complex128 [rows, columns].
    * `region`: bool [rows, columns]; without the border that a shift affected.
    * `record`: the corrections.
    """

    object: NDArray[np.complex128]
    region: NDArray[np.bool_]
    record: Alignment


def align(
    reconstruction: NDArray[np.complexfloating],
    reference: NDArray[np.complexfloating],
    region: NDArray[np.bool_],
    *,
    plane: bool = False,
    register: bool = False,
) -> Aligned:
    """Shift (if `register`), remove a phase ramp (if `plane`), then multiply by one complex factor.

    * `reconstruction`, `reference`: complex [rows, columns] on the same pixels.
    * `region`: bool [rows, columns], the pixels to compare; both objects must be finite there.
    """
    image = np.nan_to_num(reconstruction.astype(np.complex128))
    shift = ramp = None
    steps, notes = [], []
    if register:
        # A ramp would blur the correlation peak: it is removed for the estimate, and fitted again afterwards.
        flat = apply_ramp(image, fit_ramp(image, reference, region)) if plane else image
        shift = fit_shift(flat, reference, region)
        limit = _LARGEST_SHIFT * min(largest_rectangle(region).shape)
        if max(map(abs, shift)) > limit:
            notes.append(
                f"registration found a shift of ({shift[0]:.2f}, {shift[1]:.2f}) pixels, more than the limit of "
                f"{limit:.1f}: not corrected"
            )
            shift = (0.0, 0.0)
        elif any(shift):
            image = shift_image(image, shift)
            region = _shrink(region, shift)
        steps.append(
            f"shift by cross-correlation (scikit-image phase_cross_correlation, {_UPSAMPLE} steps per pixel, "
            "Hann window), bicubic interpolation"
        )
        for period in periods_of(reference[largest_rectangle(region).slices])[:1]:
            notes.append(
                f"the reference repeats itself after ({period[0]}, {period[1]}) pixels: the shift is known up to that"
            )
    if plane:
        ramp = fit_ramp(image, reference, region)
        image = apply_ramp(image, ramp)
        steps.append("phase ramp by the largest complex correlation with the reference")
    factor = fit_factor(image, reference, region)
    steps.append("global complex factor by least squares")
    record = Alignment(
        scale=float(abs(factor)),
        phase_rad=float(np.angle(factor)),
        ramp_rad_per_pixel=ramp,
        shift_px=shift,
        method="; ".join(steps),
        notes=tuple(notes),
    )
    return Aligned(image * factor, region, record)


def compared_region(region: NDArray[np.bool_], record: Alignment) -> NDArray[np.bool_]:
    """The region [rows, columns] that `align` returned with this record."""
    return region if record.shift_px is None or not any(record.shift_px) else _shrink(region, record.shift_px)


def apply_alignment(reconstruction: NDArray[np.complexfloating], record: Alignment) -> NDArray[np.complex128]:
    """The object that `align` returned with this record, complex [rows, columns]."""
    image = np.nan_to_num(reconstruction.astype(np.complex128))
    if record.shift_px is not None and any(record.shift_px):
        image = shift_image(image, record.shift_px)
    if record.ramp_rad_per_pixel is not None:
        image = apply_ramp(image, record.ramp_rad_per_pixel)
    return image * (record.scale * np.exp(1j * record.phase_rad))


def fit_factor(
    reconstruction: NDArray[np.complexfloating],
    reference: NDArray[np.complexfloating],
    region: NDArray[np.bool_],
) -> complex:
    """The complex factor c that minimises ``sum |c * reconstruction - reference|^2`` over the region.

    ``c = sum(conj(rec) * ref) / sum(|rec|^2)``: global scale and global phase at once (Fienup, Applied
    Optics 36, 8352, 1997). It is 1 if the reconstruction is zero everywhere.
    """
    values = reconstruction[region].astype(np.complex128)
    energy = np.sum(np.abs(values) ** 2)
    return complex(np.vdot(values, reference[region]) / energy) if energy > 0 else 1.0 + 0.0j


def fit_ramp(
    reconstruction: NDArray[np.complexfloating],
    reference: NDArray[np.complexfloating],
    region: NDArray[np.bool_],
) -> tuple[float, float]:
    """Slope (down the rows, along the columns), in radians per pixel, of the phase of the reconstruction.

    The slopes maximise ``|sum g exp(-i (a r + b c))|`` with ``g = conj(ref) * rec``, each pixel weighted by
    its amplitudes. Nothing is unwrapped (see docs/decisions/0013-metrics.md): the iteration starts at the peak of the
    Fourier transform of g, and its steps ``(sum |g| x x^T)^-1 sum x Im(g exp(-i phi))`` never decrease the sum.
    """
    product = np.where(region, np.conj(reference) * reconstruction, 0).astype(np.complex128)
    if not product.any():
        return (0.0, 0.0)
    padded = tuple(2 * side for side in product.shape)
    peak = np.unravel_index(np.argmax(np.abs(np.fft.fft2(product, s=padded))), padded)
    start = [2 * np.pi * np.fft.fftfreq(side)[index] for side, index in zip(padded, peak, strict=True)]
    rows, columns = np.nonzero(region)
    reach = np.array([max(side / 2, 1.0) for side in product.shape])
    # Coordinates in -1..1 keep the 3 x 3 system well conditioned.
    basis = np.stack([np.ones(len(rows)), rows / reach[0] - 1, columns / reach[1] - 1])
    values = product[region]
    weight = np.abs(values)
    normal = (basis * weight) @ basis.T
    phase = np.array([0.0, start[0] * reach[0], start[1] * reach[1]])
    phase[0] = np.angle(np.sum(values * np.exp(-1j * (phase @ basis))))
    for _ in range(_RAMP_ITERATIONS):
        residual = (values * np.exp(-1j * (phase @ basis))).imag
        step = np.linalg.lstsq(normal, basis @ residual, rcond=None)[0]
        phase = phase + step
        if np.max(np.abs(step)) < _RAMP_TOLERANCE:
            break
    return (float(phase[1] / reach[0]), float(phase[2] / reach[1]))


def apply_ramp(image: NDArray[np.complex128], ramp: tuple[float, float]) -> NDArray[np.complex128]:
    """Subtract a linear phase of `ramp` radians per pixel (rows, columns) that is 0 at pixel [0, 0]."""
    rows = np.exp(-1j * ramp[0] * np.arange(image.shape[0]))
    columns = np.exp(-1j * ramp[1] * np.arange(image.shape[1]))
    return image * rows[:, None] * columns


def fit_shift(
    reconstruction: NDArray[np.complexfloating],
    reference: NDArray[np.complexfloating],
    region: NDArray[np.bool_],
) -> tuple[float, float]:
    """Shift (rows, columns) that moves the reconstruction onto the reference, in steps of 1/50 pixel.

    Cross-correlation with a matrix-multiply Fourier transform around its peak (Guizar-Sicairos, Thurman and
    Fienup, Optics Letters 33, 156, 2008), on the largest rectangle in the region. The mean is removed
    and a Hann window applied, because the common border would bias the estimate towards zero.
    """
    from skimage.registration import phase_cross_correlation

    rectangle = largest_rectangle(region).slices
    fixed = reference[rectangle]
    window = np.outer(np.hanning(fixed.shape[0]), np.hanning(fixed.shape[1]))
    total = np.zeros(2)
    # The fixed window biases each estimate towards zero, so the remainder is estimated again.
    for _ in range(_SHIFT_ITERATIONS):
        moving = shift_image(reconstruction, (float(total[0]), float(total[1])))[rectangle]
        step, _, _ = phase_cross_correlation(
            window * (fixed - fixed.mean()),
            window * (moving - moving.mean()),
            upsample_factor=_UPSAMPLE,
            normalization=None,
        )
        total += step
        if not np.any(step):
            break
    return (float(total[0]), float(total[1]))


def shift_image(image: NDArray[np.complexfloating], shift: tuple[float, float]) -> NDArray[np.complex128]:
    """Shift an image by `shift` (rows down, columns right) with bicubic interpolation and a repeated border."""
    from skimage.transform import EuclideanTransform, warp

    inverse = EuclideanTransform(translation=(-shift[1], -shift[0]))

    def move(part: NDArray) -> NDArray:
        return warp(part.astype(np.float64), inverse, order=3, mode="edge", preserve_range=True)

    return move(image.real) + 1j * move(image.imag)


def _shrink(region: NDArray[np.bool_], shift: tuple[float, float]) -> NDArray[np.bool_]:
    """The pixels whose value still comes from inside the region after a shift."""
    from scipy.ndimage import binary_erosion

    rows, columns = (int(np.ceil(abs(distance))) + _INTERPOLATION_MARGIN for distance in shift)
    cross = np.zeros((2 * rows + 1, 2 * columns + 1), dtype=bool)
    cross[rows, :] = cross[:, columns] = True
    return binary_erosion(region, cross)
