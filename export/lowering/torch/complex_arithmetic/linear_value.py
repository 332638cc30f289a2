"""A tensor as a sum of linear maps of other tensors, which are applied when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.axis_map import AxisMap, Fourier, embedding
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair

__all__ = ["LinearValue", "Term"]


@dataclass(frozen=True, eq=False)
class Term:
    """A tensor, and a map along each of its axes; None changes nothing.

    * `source`: complex if it is a pair.
    * `maps`: one for each axis; an axis of symbolic size has none.
    """

    source: Tensor | Pair
    maps: tuple[AxisMap | None, ...]

    @property
    def shape(self) -> tuple:
        sizes = self.source.shape
        return tuple(size if one is None else one.outputs for size, one in zip(sizes, self.maps, strict=True))

    def with_map(self, axis: int, value: AxisMap | None) -> Term:
        """Another map along one axis."""
        return replace(self, maps=(*self.maps[:axis], value, *self.maps[axis + 1 :]))

    def map_of(self, axis: int) -> AxisMap:
        """The map along an axis."""
        return self.maps[axis] or AxisMap.identity(int(self.source.shape[axis]))


class LinearValue:
    """``sum of the terms``, or its real part.

    * `shape`, `dtype`: of the tensor; the type is that of its real numbers.
    * `terms`: empty for zeros.
    * `is_real`: whether the real part is meant.
    """

    def __init__(
        self,
        shape: Sequence,
        dtype: torch.dtype,
        terms: Sequence[Term],
        *,
        is_real: bool = False,
        computed: Tensor | Pair | None = None,
    ) -> None:
        self.shape, self.dtype = tuple(shape), dtype
        self.terms = tuple(
            term for term in terms if not any(one is not None and one.is_zero for one in term.maps)
        )
        self.is_real = is_real
        self.computed = computed

    @classmethod
    def of(cls, value: Tensor | Pair) -> LinearValue:
        """A tensor that is known already."""
        is_real = isinstance(value, Tensor)
        term = Term(value, (None,) * len(value.shape))
        return cls(value.shape, value.dtype, [term], is_real=is_real, computed=value)

    @classmethod
    def of_parts(cls, real: Tensor, imaginary: Tensor) -> LinearValue:
        """A complex tensor whose parts are known; they are broadcast to one shape."""
        if real.shape != imaginary.shape:
            real, imaginary = torch.broadcast_tensors(real, imaginary)
        return cls.of(Pair(real, imaginary))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def is_zero(self) -> bool:
        return not self.terms

    @property
    def is_pending(self) -> bool:
        """Whether something is left to be computed."""
        return self.computed is None

    @property
    def takes_real_part(self) -> bool:
        """Whether the terms are complex and only their real part is meant, so that no complex map may follow."""
        return self.is_real and any(
            isinstance(term.source, Pair) or any(one and not one.is_selection for one in term.maps)
            for term in self.terms
        )

    def axis(self, number: int) -> int:
        """The number of an axis, counted from the front."""
        return number % max(self.ndim, 1)

    def fixed(self, axis: int) -> bool:
        """Whether the size of an axis is known."""
        return isinstance(self.shape[axis], int)

    def mapped(
        self,
        axis: int,
        change: Callable[[AxisMap], AxisMap | None],
        outputs: int,
        *,
        is_real: bool | None = None,
    ) -> LinearValue | None:
        """Follow the map along an axis by another one; None if any of the terms cannot be followed."""
        terms = []
        for term in self.terms:
            changed = change(term.map_of(axis))
            if changed is None:
                return None
            terms.append(term.with_map(axis, None if changed.is_identity else changed))
        shape = (*self.shape[:axis], outputs, *self.shape[axis + 1 :])
        return LinearValue(shape, self.dtype, terms, is_real=self.is_real if is_real is None else is_real)

    def select(self, axis: int, rows: NDArray[np.int64]) -> LinearValue:
        """Entries along an axis, in a new order; -1 is a zero."""
        selected = self.mapped(axis, lambda one: one.select(rows), len(rows))
        assert selected is not None
        return selected

    def transformed(self, axis: int, transform: Fourier, scales: NDArray | None = None) -> LinearValue | None:
        """A Fourier transform along an axis."""
        if self.takes_real_part:
            return None
        return self.mapped(
            axis, lambda one: one.then_fourier(transform, scales), transform.size, is_real=False
        )

    def embedded(self, axis: int, targets: NDArray[np.int64], size: int) -> LinearValue:
        """Put the entries along an axis at some positions of a longer axis, between zeros."""
        return self.select(axis, embedding(targets, size).rows)

    def plus(self, other: LinearValue) -> LinearValue:
        """The sum, without computing either."""
        return LinearValue(
            self.shape, self.dtype, [*self.terms, *other.terms], is_real=self.is_real and other.is_real
        )

    def real_part(self) -> LinearValue:
        """The real part of a complex value."""
        return LinearValue(self.shape, self.dtype, self.terms, is_real=True)
