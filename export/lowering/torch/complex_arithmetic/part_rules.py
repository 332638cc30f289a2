"""Real and imaginary parts: taking them apart, joining them, converting their type."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.arithmetic_rules import scaled_along_one_axis
from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue, Term
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.products import compute
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import REAL_TYPES, Context, is_complex, rule


def _is_computed_whole(context: Context, x: Any) -> bool:
    """Whether the other part of a value is wanted as well, so that both are computed at once."""
    return not (isinstance(x, LinearValue) and x.is_pending and context.is_read_once(x))


@rule("real")
def _real(context: Context, operator: Any, x: Any) -> Any:
    if not is_complex(x):
        return x
    if _is_computed_whole(context, x):
        return context.pair(x).real
    return x.real_part()


@rule("imag")
def _imag(context: Context, operator: Any, x: Any) -> Any:
    if not _is_computed_whole(context, x):
        turned = scaled_along_one_axis(context, x, -1j)
        if turned is not None:
            return turned.real_part()
    return context.pair(x).imaginary


@rule("_conj", "conj", "conj_physical", "_conj_physical")
def _conj(context: Context, operator: Any, x: Any) -> Any:
    if not is_complex(x):
        return x
    real, imaginary = context.pair(x).parts
    return LinearValue.of_parts(real, -imaginary)


@rule("_neg_view")
def _negative(context: Context, operator: Any, x: Any) -> Any:
    """The imaginary part of a conjugate, which torch keeps as a view."""
    if not is_complex(x):
        return -context.real(x)
    return context.each(x, torch.neg)


@rule("view_as_real", "view_as_real_copy")
def _view_as_real(context: Context, operator: Any, x: Any) -> Tensor:
    value = context.value(x)
    return context.pair(value, value.ndim).stacked(value.ndim)


@rule("view_as_complex", "view_as_complex_copy")
def _view_as_complex(context: Context, operator: Any, x: Any) -> LinearValue:
    value = context.settled(x)
    if any(term.maps[-1] is not None or not isinstance(term.source, Tensor) for term in value.terms):
        value = LinearValue.of(compute(value, context.constants))
    terms = []
    for term in value.terms:
        assert isinstance(term.source, Tensor)
        terms.append(Term(Pair(stacked=term.source, gap=value.ndim - 1), term.maps[:-1]))
    return LinearValue(value.shape[:-1], value.dtype, terms)


@rule("complex")
def _from_parts(context: Context, operator: Any, real: Any, imaginary: Any) -> LinearValue:
    return LinearValue.of_parts(context.real(real), context.real(imaginary))


@rule("polar")
def _polar(context: Context, operator: Any, size: Any, angle: Any) -> LinearValue:
    size, angle = context.real(size), context.real(angle)
    return LinearValue.of_parts(size * torch.cos(angle), size * torch.sin(angle))


@rule("_to_copy", "to", "type_as")
def _to(context: Context, operator: Any, x: Any, **keywords: Any) -> Any:
    wanted = keywords.get("dtype")
    if not is_complex(x):
        real = x if isinstance(x, LinearValue) and x.is_pending else context.real(x)
        value = context.value(real)
        if wanted in REAL_TYPES and value.dtype != REAL_TYPES[wanted]:
            value = LinearValue.of(context.real(real).to(REAL_TYPES[wanted]))
        if value.takes_real_part:
            value = context.settled(value)
        return LinearValue(value.shape, value.dtype, value.terms)
    value = context.value(x)
    if wanted is None or REAL_TYPES.get(wanted) == value.dtype:
        return x
    if wanted in REAL_TYPES:
        return context.each(x, lambda part: part.to(REAL_TYPES[wanted]))
    return _real(context, operator, x).to(wanted) if not value.is_pending else context.pair(x).real.to(wanted)
