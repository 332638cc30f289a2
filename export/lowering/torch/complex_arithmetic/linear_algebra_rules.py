"""Determinant, inverse and solution of complex systems of up to three unknowns, by cofactors."""

from __future__ import annotations

from typing import Any

import torch

from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import RULES, Context, NotLowered, rule

_WAY_OUT = "solve larger systems outside of the graph, or write the elimination with complex arithmetic"


def _apply(context: Context, name: str, x: Any, y: Any) -> Any:
    overload = getattr(torch.ops.aten, name)
    return RULES[name](context, overload.Tensor, x, y)


def _determinant_and_adjugate(context: Context, matrix: Any) -> tuple[Any, Any]:
    """The determinant [...], and the transposed cofactors [..., n, n]."""
    pair = context.pair(matrix)
    size = pair.shape[-1]
    if size not in (1, 2, 3):
        raise NotLowered(f"the matrix has {size} rows, expected up to three", _WAY_OUT)

    def entry(row: int, column: int) -> LinearValue:
        return LinearValue.of(pair.each(lambda part: part[..., row % size, column % size]))

    def minor(row: int, column: int) -> Any:
        if size == 1:
            return LinearValue.of(
                Pair(torch.ones_like(pair.real[..., 0, 0]), torch.zeros_like(pair.real[..., 0, 0]))
            )
        if size == 2:
            other = entry(row + 1, column + 1)
            return other if row == column else _apply(context, "mul", other, -1.0)
        # Cyclic indices have the sign of the cofactor in them.
        first = _apply(context, "mul", entry(row + 1, column + 1), entry(row + 2, column + 2))
        second = _apply(context, "mul", entry(row + 1, column + 2), entry(row + 2, column + 1))
        return _apply(context, "sub", first, second)

    cofactors = [[minor(row, column) for column in range(size)] for row in range(size)]
    determinant: Any = None
    for column in range(size):
        term = _apply(context, "mul", entry(0, column), cofactors[0][column])
        determinant = term if determinant is None else _apply(context, "add", determinant, term)
    parts = []
    for part in (0, 1):
        columns = [torch.stack([context.pair(one).parts[part] for one in row], -1) for row in cofactors]
        parts.append(torch.stack(columns, -1))
    return determinant, LinearValue.of(Pair(*parts))


def _inverse(context: Context, matrix: Any) -> Any:
    determinant, adjugate = _determinant_and_adjugate(context, matrix)
    wide = LinearValue.of(context.pair(determinant).each(lambda part: part[..., None, None]))
    return RULES["div"](context, torch.ops.aten.div.Tensor, adjugate, wide)


@rule("linalg_det", "det")
def _det(context: Context, operator: Any, matrix: Any) -> Any:
    return _determinant_and_adjugate(context, matrix)[0]


@rule("linalg_inv", "inverse")
def _inv(context: Context, operator: Any, matrix: Any) -> Any:
    """A singular matrix returns infinities instead of an error."""
    return _inverse(context, matrix)


@rule("linalg_solve")
def _solve(context: Context, operator: Any, matrix: Any, right: Any, *, left: bool = True) -> Any:
    inverse = _inverse(context, matrix)
    is_vector = len(context.value(right).shape) < len(context.value(matrix).shape)
    equation = ("...ij,...j->...i" if left else "...j,...ji->...i") if is_vector else "...ij,...jk->...ik"
    operands = [inverse, right] if left else [right, inverse]
    return RULES["einsum"](context, torch.ops.aten.einsum.default, equation, operands)
