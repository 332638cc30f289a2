"""Steps that move, cut, pad, bin or resample the pixels of a pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ptychonnx.export.adoption.interpolation import interpolate, interpolate_in_graph
from ptychonnx.export.adoption.step import Argument, Patterns, Step

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptychonnx.export.graph.editing import GraphTape

__all__ = ["DETECTOR_STEPS", "crop", "crop_in_graph", "pad", "pad_in_graph"]

# A pattern grows by at most this factor along each axis.
_LARGEST = 8


def crop(x: NDArray, size: Argument) -> NDArray:
    """The central pixels [..., size, size] of images."""
    start = x.shape[-1] // 2 - size // 2
    return x[..., start : start + size, start : start + size]


def crop_in_graph(tape: GraphTape, value: ir.Value, n: int, size: Argument) -> ir.Value:
    """`crop` of images [B, C, n, n] as nodes of a graph."""
    start = n // 2 - size // 2
    for axis in (2, 3):
        value = tape.slice(value, axis, start, start + size)
    return value


def pad(x: NDArray, size: Argument) -> NDArray:
    """Images with zeros around them, [..., size, size]."""
    n = x.shape[-1]
    start = size // 2 - n // 2
    padded = np.zeros((*x.shape[:-2], size, size), x.dtype)
    padded[..., start : start + n, start : start + n] = x
    return padded


def pad_in_graph(tape: GraphTape, value: ir.Value, n: int, size: Argument) -> ir.Value:
    """`pad` of images [B, C, n, n] as nodes of a graph."""
    start = size // 2 - n // 2
    end = size - n - start
    return tape.add("Pad", value, tape.integers(0, 0, start, start, 0, 0, end, end))


def _rebin(x: Patterns, factor: int, total: bool) -> Patterns:
    side = x.shape[-1] // factor
    blocks = x.reshape(*x.shape[:-2], side, factor, side, factor).astype(np.float64)
    rebinned = blocks.sum((-3, -1)) if total else blocks.mean((-3, -1))
    return rebinned.astype(np.float32)


def _rebin_in_graph(tape: GraphTape, value: ir.Value, factor: int, total: bool) -> ir.Value:
    value = tape.add("AveragePool", value, kernel_shape=[factor] * 2, strides=[factor] * 2)
    return tape.add("Mul", value, tape.constant(factor**2, np.float32)) if total else value


def _resample(x: Patterns, size: Argument) -> Patterns:
    n = x.shape[-1]
    return interpolate(x, size, n / size, n // 2, size // 2).astype(np.float32)


def _resample_in_graph(tape: GraphTape, value: ir.Value, n: int, size: Argument) -> ir.Value:
    return interpolate_in_graph(tape, value, n, size, n / size, n // 2, size // 2)


def _roll_in_graph(tape: GraphTape, value: ir.Value, n: int) -> ir.Value:
    """`numpy.fft.ifftshift` along rows and columns."""
    for axis in (2, 3):
        parts = [tape.slice(value, axis, n // 2, n), tape.slice(value, axis, 0, n // 2)]
        value = tape.add("Concat", *parts, axis=axis)
    return value


def _rebin_step(summary: str, total: bool) -> Step:
    return Step(
        summary,
        "factor",
        lambda x, factor: _rebin(x, factor, total),
        lambda tape, value, n, factor: _rebin_in_graph(tape, value, factor, total),
        side=lambda n, factor: n // factor,
        moves_pixels=True,
        fits=lambda n, factor: n % factor == 0,
    )


DETECTOR_STEPS: dict[str, Step] = {
    "dc_to_corner": Step(
        "Moves the direct beam to pixel [0, 0].",
        "none",
        lambda x, _: np.fft.ifftshift(x, axes=(-2, -1)),
        lambda tape, value, n, _: _roll_in_graph(tape, value, n),
        moves_pixels=True,
    ),
    "crop": Step(
        "Keeps a square of this many pixels in the centre.",
        "size",
        crop,
        crop_in_graph,
        side=lambda n, size: size,
        moves_pixels=True,
        keeps_window=True,
    ),
    "pad": Step(
        "Adds zeros around the pattern, up to this many pixels.",
        "size",
        pad,
        pad_in_graph,
        side=lambda n, size: size,
        moves_pixels=True,
        keeps_window=True,
        fits=lambda n, size: n <= size <= _LARGEST * n,
    ),
    "rebin_mean": _rebin_step("Replaces blocks of factor x factor pixels by their mean.", total=False),
    "rebin_sum": _rebin_step("Replaces blocks of factor x factor pixels by their sum.", total=True),
    "resample": Step(
        "Interpolates the pattern to this many pixels of another size; the direct beam stays in the centre.",
        "size",
        _resample,
        _resample_in_graph,
        side=lambda n, size: size,
        moves_pixels=True,
        fits=lambda n, size: size <= _LARGEST * n,
    ),
}
