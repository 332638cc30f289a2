"""Operators that torch's exporter lacks, or translates to another result than torch's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnxscript.onnx_opset import opset18 as onnx_operators

from ptychonnx.runtime.errors import UnsupportedError

__all__ = ["TRANSLATIONS"]


def _copy(self, src, non_blocking: bool = False):  # type: ignore[no-untyped-def]
    """``copy``, with the broadcast that the exporter leaves out: ``z[..., 0] = 0.0``."""
    cast = onnx_operators.CastLike(src, self)
    if src.shape is not None and self.shape is not None and list(src.shape) == list(self.shape):
        return cast
    return onnx_operators.Expand(cast, onnx_operators.Shape(self))


def _hypot(x, y):  # type: ignore[no-untyped-def]
    """``hypot``, which the exporter lacks."""
    squares = (onnx_operators.Mul(one, one) for one in (x, y))
    return onnx_operators.Sqrt(onnx_operators.Add(*squares))


def _extreme(operator: Callable) -> Callable:
    """``amax`` and ``amin``, also without axes, which the exporter fails on."""

    def extreme(self, dim: Sequence[int] = (), keepdim: bool = False):  # type: ignore[no-untyped-def]
        axes = [onnx_operators.Constant(value_ints=list(dim))] if dim else []
        return operator(self, *axes, keepdims=int(keepdim))

    return extreme


def _median(self, dim: int = -1, keepdim: bool = False):  # type: ignore[no-untyped-def]
    """``median`` along an axis: the lower of two middle values, which the exporter lacks."""
    size = self.shape[dim]
    if not isinstance(size, int):
        raise UnsupportedError("a median along an axis of dynamic size, expected a fixed one")
    count = onnx_operators.Constant(value_ints=[(size + 1) // 2])
    smallest = onnx_operators.TopK(self, count, axis=dim, largest=0, sorted=1)
    last = (size - 1) // 2
    index = onnx_operators.Constant(value_ints=[last]) if keepdim else onnx_operators.Constant(value_int=last)
    return tuple(onnx_operators.Gather(one, index, axis=dim) for one in smallest)


def _resampling(operator: Any) -> Callable:
    """Antialiased interpolation as products with constant matrices.

    It acts on rows and columns separately: the matrices are torch's own results for images with a single one. ONNX has
    another filter where corners are aligned.
    """

    def resample(  # type: ignore[no-untyped-def]
        self,
        output_size: Sequence[int],
        align_corners: bool,
        scales_h: float | None = None,
        scales_w: float | None = None,
    ):
        sizes = list(self.shape[-2:])
        if not all(isinstance(size, int) for size in (*sizes, *output_size)):
            raise UnsupportedError("an antialiased interpolation has a dynamic size, expected a fixed one")
        matrices = []
        for size, new, scale in zip(sizes, output_size, (scales_h, scales_w), strict=True):
            # Two equal columns: of images with a single one, torch makes something else.
            ones = torch.eye(size)[:, None, :, None].repeat(1, 1, 1, 2)
            matrix = operator(ones, [new, 2], align_corners, scale, None)[:, 0, :, 0]
            matrices.append(ir.tensor(matrix.numpy().astype(self.dtype.numpy())))
        rows, columns = (onnx_operators.Constant(value=matrix) for matrix in matrices)
        resized = onnx_operators.MatMul(self, columns)
        return onnx_operators.MatMul(onnx_operators.Transpose(rows, perm=[1, 0]), resized)

    return resample


# For `torch.onnx.export`.
TRANSLATIONS: dict[Callable, Callable] = {
    torch.ops.aten.copy.default: _copy,
    torch.ops.prims.hypot.default: _hypot,
    torch.ops.aten.median.dim: _median,
    torch.ops.aten.amax.default: _extreme(onnx_operators.ReduceMax),
    torch.ops.aten.amin.default: _extreme(onnx_operators.ReduceMin),
    **{
        operator.default: _resampling(operator.default)
        for operator in (torch.ops.aten._upsample_bicubic2d_aa, torch.ops.aten._upsample_bilinear2d_aa)
    },
}
