"""Comparison of one reconstruction with one reference: alignment, region and all metrics of amplitude and phase."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.harness.metrics.alignment import Alignment, align, compared_region
from ptychonnx.harness.metrics.amplitude_phase import (
    UNWRAP_RANGE,
    ImageTriple,
    amplitude_images,
    phase_images,
)
from ptychonnx.harness.metrics.bootstrap import METRICS, QuantitySample, ReconstructionSample
from ptychonnx.harness.metrics.frc import RingCorrelation, fourier_ring_correlation
from ptychonnx.harness.metrics.image_similarity import (
    SSIM_WINDOW,
    contrast_ratio,
    mae,
    ms_ssim,
    mse,
    pearson,
    psnr,
    ssim,
)
from ptychonnx.harness.metrics.psd import PowerSpectrum, compare_power
from ptychonnx.harness.metrics.region import Rectangle, largest_rectangle
from ptychonnx.runtime.errors import InputError, VerificationError

__all__ = [
    "COLLAPSED_CONTRAST",
    "COLLAPSED_PEARSON",
    "CONSTANT_AMPLITUDE",
    "CONSTANT_PHASE",
    "Comparison",
    "MetricSet",
    "bootstrap_sample",
    "compare",
]

# A reconstruction has collapsed if it has less than a fifth of the contrast of the reference, or is hardly correlated
# with it. Amplitude errors alone do not show that: a grey image of the right mean has small ones.
COLLAPSED_CONTRAST = 0.2
COLLAPSED_PEARSON = 0.3
# An image whose standard deviation is below these is constant: correlations with it would be those of rounding errors.
CONSTANT_AMPLITUDE = 1e-3  # of its mean
CONSTANT_PHASE = 1e-3  # rad


class MetricSet(BaseModel):
    """Metrics of amplitude or phase. Null means that a metric is not defined, for the reason in `notes`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mae: float | None = Field(description="mean absolute error over the region (phase: wrapped, rad)")
    mse: float | None
    psnr: float | None = Field(description="dB, with `data_range` as peak")
    data_range: float | None = Field(
        description="range (maximum minus minimum) of the reference over the region"
    )
    ssim: float | None = Field(description="on the rectangle, with the same range")
    ms_ssim: float | None
    ms_ssim_scales: int | None
    pearson: float | None
    contrast_ratio: float | None = Field(description="standard deviation over that of the reference")
    collapsed: bool | None = Field(description="null if the reference is constant")
    frc: RingCorrelation | None
    psd: PowerSpectrum | None
    notes: list[str]


class Comparison(BaseModel):
    """Metrics of amplitude and phase, and the alignment that preceded them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    amplitude: MetricSet
    phase: MetricSet
    alignment: Alignment | None = Field(description="null if the reconstruction holds NaN or infinity")
    pixels: int = Field(description="number of pixels in pixelwise metrics")
    rectangle_px: tuple[int, int, int, int] = Field(
        description="(top, bottom, left, right) for SSIM, MS-SSIM, FRC and PSD"
    )
    collapsed: bool = Field(description="whether amplitude or phase has collapsed")


def compare(
    reconstruction: NDArray[np.complexfloating],
    reference: NDArray[np.complexfloating],
    region: NDArray[np.bool_] | None = None,
    *,
    plane: bool = False,
    register: bool = False,
    pixel_size: float | None = None,
) -> Comparison:
    """Align a complex reconstruction to a complex reference and compute all metrics.

    Raises InputError if shapes differ, the region is empty, or the reference is not finite in it. Raises
    VerificationError if registration shifts the whole reconstruction out of the region.

    * `reconstruction`, `reference`: complex [rows, columns], on the same pixels.
    * `region`: bool [rows, columns] from `declare_region`; every pixel if None.
    * `plane`, `register`: also remove a phase ramp, or a sub-pixel shift; see `ptychonnx.harness.metrics.alignment`.
      Off by default, since with known positions and a known probe, a ramp or a shift is an error of the network.
    * `pixel_size`: in metres, to state resolutions in metres too.

    MAE, MSE and PSNR of the phase use wrapped differences. For the other metrics, both phases are relative to
    the mean angle of the reference, and unwrapped if the reference spans nearly 2 pi.
    """
    region = _checked_region(reconstruction, reference, region)
    if not np.isfinite(reconstruction[region]).all():
        return _broken(region)
    aligned = align(reconstruction, reference, region, plane=plane, register=register)
    if not aligned.region.any():
        raise VerificationError(
            "compare: registration shifted the reconstruction out of the region, expected a smaller shift"
        )
    rectangle, region = largest_rectangle(aligned.region), aligned.region
    images = amplitude_images(aligned.object, reference)
    limits = [CONSTANT_AMPLITUDE * float(np.mean(image[region])) for image in images[:2]]
    amplitude = _measure(images, region, rectangle, (limits[0], limits[1]), pixel_size, [])
    images = phase_images(aligned.object, reference, region)
    notes = []
    if np.ptp(images.reference[region]) > UNWRAP_RANGE:
        notes.append("the phase of the reference spans nearly 2 pi: both phases were unwrapped")
    phase = _measure(images, region, rectangle, (CONSTANT_PHASE, CONSTANT_PHASE), pixel_size, notes)
    return Comparison(
        amplitude=amplitude,
        phase=phase,
        alignment=aligned.record,
        pixels=int(aligned.region.sum()),
        rectangle_px=rectangle.corners,
        collapsed=bool(amplitude.collapsed or phase.collapsed),
    )


def _checked_region(
    reconstruction: NDArray[np.complexfloating],
    reference: NDArray[np.complexfloating],
    region: NDArray[np.bool_] | None,
) -> NDArray[np.bool_]:
    if region is None:
        region = np.ones(reference.shape, dtype=bool)
    if reference.ndim != 2 or not reconstruction.shape == reference.shape == region.shape:
        raise InputError(
            f"compare: reconstruction {reconstruction.shape}, reference {reference.shape} and region "
            f"{region.shape} differ, expected the same [rows, columns]"
        )
    if not region.any():
        raise InputError("compare: the region is empty, expected at least one pixel")
    if not np.isfinite(reference[region]).all():
        raise InputError(
            "compare: the reference holds NaN or infinity inside the region, expected finite values"
        )
    return region


def bootstrap_sample(
    aligned: NDArray[np.complexfloating],
    reference: NDArray[np.complexfloating],
    region: NDArray[np.bool_],
    comparison: Comparison,
) -> ReconstructionSample:
    """Input of `ptychonnx.harness.metrics.bootstrap` for a comparison.

    * `aligned`: complex [rows, columns], the reconstruction after the alignment of the comparison, which must not be
      None.
    * `region`: bool [rows, columns], the region that was passed to `compare`.
    """
    assert comparison.alignment is not None
    compared = compared_region(region, comparison.alignment)
    quantities = {}
    for name, metrics, images in (
        ("amplitude", comparison.amplitude, amplitude_images(aligned, reference)),
        ("phase", comparison.phase, phase_images(aligned, reference, compared)),
    ):
        defined = frozenset(metric for metric in METRICS if getattr(metrics, metric) is not None)
        quantities[name] = QuantitySample(images, metrics.data_range, defined)
    return ReconstructionSample(quantities, compared, Rectangle(*comparison.rectangle_px))


def _measure(
    images: ImageTriple,
    region: NDArray[np.bool_],
    rectangle: Rectangle,
    constant_below: tuple[float, float],
    pixel_size: float | None,
    notes: list[str],
) -> MetricSet:
    """All metrics of amplitude or phase.

    `constant_below`: standard deviations up to which the prediction and the reference count as constant.
    """
    predicted, true, difference = images.prediction, images.reference, images.difference[region]
    prediction_is_constant, reference_is_constant = (
        float(np.std(image[region])) <= limit for image, limit in zip(images[:2], constant_below, strict=True)
    )
    mean_square = mse(difference)
    values: dict[str, object] = dict.fromkeys(MetricSet.model_fields)
    values |= {"mae": mae(difference), "mse": mean_square, "notes": notes}
    if reference_is_constant:
        notes.append("the reference is constant: only MAE and MSE are defined")
        return MetricSet.model_validate(values)
    data_range = float(np.ptp(true[region]))
    ratio = contrast_ratio(predicted[region], true[region])
    correlation = None if prediction_is_constant else pearson(predicted[region], true[region])
    decibels = psnr(mean_square, data_range)
    values |= {
        "data_range": data_range,
        "psnr": decibels if math.isfinite(decibels) else None,
        "contrast_ratio": ratio,
        "pearson": correlation,
        "collapsed": ratio < COLLAPSED_CONTRAST or correlation is None or correlation < COLLAPSED_PEARSON,
    }
    if not math.isfinite(decibels):
        notes.append("equal to the reference: PSNR is infinite")
    if prediction_is_constant:
        notes.append("the reconstruction is constant: Pearson correlation, FRC and PSD are not defined")
    inner, inner_true = predicted[rectangle.slices], true[rectangle.slices]
    side = min(rectangle.shape)
    if side < SSIM_WINDOW:
        notes.append(
            f"the largest rectangle in the region has {rectangle.shape[0]} x {rectangle.shape[1]} pixels: "
            "too small for SSIM, MS-SSIM, FRC and PSD"
        )
        return MetricSet.model_validate(values)
    values["ssim"] = ssim(inner, inner_true, data_range)
    values["ms_ssim"], values["ms_ssim_scales"] = ms_ssim(inner, inner_true, data_range)
    # The rectangle may be constant although the region is not.
    if not prediction_is_constant and np.ptp(inner) > 0 and np.ptp(inner_true) > 0:
        values["frc"] = fourier_ring_correlation(inner, inner_true, pixel_size)
        values["psd"] = compare_power(inner, inner_true)
    return MetricSet.model_validate(values)


def _broken(region: NDArray[np.bool_]) -> Comparison:
    """Comparison of a reconstruction that is not finite."""
    empty: dict[str, object] = dict.fromkeys(MetricSet.model_fields)
    empty |= {"collapsed": True, "notes": ["the reconstruction holds NaN or infinity"]}
    metrics = MetricSet.model_validate(empty)
    return Comparison(
        amplitude=metrics,
        phase=metrics,
        alignment=None,
        pixels=int(region.sum()),
        rectangle_px=largest_rectangle(region).corners,
        collapsed=True,
    )
