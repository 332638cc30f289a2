"""Determinant, inverse and solution of complex systems of up to three unknowns, by cofactors."""

from __future__ import annotations

import functools
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import Context, NotLowered, from_parts, rule

_WAY_OUT = "solve larger systems outside of the graph, or write the elimination with complex arithmetic"


def _determinant_and_adjugate(context: Context, matrix: Any) -> tuple[Any, Any]:
    """The determinant [...], and the transposed cofactors [..., n, n]."""
    pair = context.pair(matrix)
    size = pair.shape[-1]
    if size not in (1, 2, 3):
        raise NotLowered(f"the matrix has {size} rows, expected up to three", _WAY_OUT)

    def entry(row: int, column: int) -> LinearValue:
        return context.each(matrix, lambda part: part[..., row % size, column % size])

    def minor(row: int, column: int) -> Any:
        if size == 1:
            one = torch.ones_like(pair.real[..., 0, 0])
            return LinearValue.of_parts(one, torch.zeros_like(one))
        if size == 2:
            other = entry(row + 1, column + 1)
            return other if row == column else context.apply("mul", other, -1.0)
        # Cyclic indices have the sign of the cofactor in them.
        first = context.apply("mul", entry(row + 1, column + 1), entry(row + 2, column + 2))
        second = context.apply("mul", entry(row + 1, column + 2), entry(row + 2, column + 1))
        return context.apply("sub", first, second)

    cofactors = [[minor(row, column) for column in range(size)] for row in range(size)]
    terms = (context.apply("mul", entry(0, column), cofactors[0][column]) for column in range(size))
    determinant = functools.reduce(partial(context.apply, "add"), terms)

    def adjugate(part: int) -> Tensor:
        columns = [torch.stack([context.pair(one).parts[part] for one in row], -1) for row in cofactors]
        return torch.stack(columns, -1)

    return determinant, from_parts(adjugate)


@rule("linalg_det", "det")
def _det(context: Context, operator: Any, matrix: Any) -> Any:
    return _determinant_and_adjugate(context, matrix)[0]


@rule("linalg_inv", "inverse")
def _inverse(context: Context, operator: Any, matrix: Any) -> Any:
    """A singular matrix returns infinities instead of an error."""
    determinant, adjugate = _determinant_and_adjugate(context, matrix)
    return context.apply("div", adjugate, context.each(determinant, lambda part: part[..., None, None]))


@rule("linalg_solve")
def _solve(context: Context, operator: Any, matrix: Any, right: Any, *, left: bool = True) -> Any:
    inverse = _inverse(context, operator, matrix)
    is_vector = len(context.value(right).shape) < len(context.value(matrix).shape)
    equation = ("...ij,...j->...i" if left else "...j,...ji->...i") if is_vector else "...ij,...jk->...ik"
    operands = [inverse, right] if left else [right, inverse]
    return context.apply("einsum", equation, operands)
