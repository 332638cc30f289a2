"""Steps that move, cut, pad, bin or resample the pixels of a pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptychonnx.export.adoption.interpolation import interpolate, interpolation_matrix
from ptychonnx.export.adoption.step import Argument, Patterns, Step

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptychonnx.export.graph.editing import GraphTape

__all__ = ["DETECTOR_STEPS"]

# A pattern grows by at most this factor along each axis.
_LARGEST = 8


def _crop(x: Patterns, size: Argument) -> Patterns:
    start = x.shape[-1] // 2 - size // 2
    return x[..., start : start + size, start : start + size]


def _crop_in_graph(tape: GraphTape, value: ir.Value, n: int, size: Argument) -> ir.Value:
    start = n // 2 - size // 2
    for axis in (2, 3):
        value = tape.slice(value, axis, start, start + size)
    return value


def _pad(x: Patterns, size: Argument) -> Patterns:
    n = x.shape[-1]
    start = size // 2 - n // 2
    padded = np.zeros((*x.shape[:-2], size, size), x.dtype)
    padded[..., start : start + n, start : start + n] = x
    return padded


def _pad_in_graph(tape: GraphTape, value: ir.Value, n: int, size: Argument) -> ir.Value:
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
    weights = interpolation_matrix(n, size, n / size, n // 2, size // 2)
    rows = tape.add("MatMul", tape.constant(weights, np.float32), value)
    return tape.add("MatMul", rows, tape.constant(weights.T, np.float32))


def _roll_in_graph(tape: GraphTape, value: ir.Value, n: int) -> ir.Value:
    """`numpy.fft.ifftshift` along rows and columns."""
    for axis in (2, 3):
        parts = [tape.slice(value, axis, n // 2, n), tape.slice(value, axis, 0, n // 2)]
        value = tape.add("Concat", *parts, axis=axis)
    return value


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
        _crop,
        _crop_in_graph,
        side=lambda n, size: size,
        moves_pixels=True,
        keeps_window=True,
    ),
    "pad": Step(
        "Adds zeros around the pattern, up to this many pixels.",
        "size",
        _pad,
        _pad_in_graph,
        side=lambda n, size: size,
        moves_pixels=True,
        keeps_window=True,
        fits=lambda n, size: n <= size <= _LARGEST * n,
    ),
    "rebin_mean": Step(
        "Replaces blocks of factor x factor pixels by their mean.",
        "factor",
        lambda x, factor: _rebin(x, factor, False),
        lambda tape, value, n, factor: _rebin_in_graph(tape, value, factor, False),
        side=lambda n, factor: n // factor,
        moves_pixels=True,
        fits=lambda n, factor: n % factor == 0,
    ),
    "rebin_sum": Step(
        "Replaces blocks of factor x factor pixels by their sum.",
        "factor",
        lambda x, factor: _rebin(x, factor, True),
        lambda tape, value, n, factor: _rebin_in_graph(tape, value, factor, True),
        side=lambda n, factor: n // factor,
        moves_pixels=True,
        fits=lambda n, factor: n % factor == 0,
    ),
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
