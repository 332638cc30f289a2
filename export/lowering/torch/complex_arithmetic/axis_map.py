"""A linear map along one axis: which entries are transformed, how, and which of the results are kept.

Slices, shifts, zero padding, diagonal scales and Fourier transforms along an axis are composed before anything is
computed, so that what is sliced away behind a transform, or was padded with zeros before it, never costs anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["AxisMap", "Fourier", "embedding", "is_same", "positions"]

# Two dense maps are multiplied if the product has at most this many entries.
_LARGEST_PRODUCT = 1 << 20


@dataclass(frozen=True)
class Fourier:
    """``scale * exp(sign * 2 pi i j k / size)``, from position j to frequency k or back."""

    size: int
    sign: int
    scale: float

    def matrix(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.complex128]:
        """The entries of some rows and columns."""
        # Reduced in integers, so that the angle is exact for any size.
        turns = np.outer(rows, columns) % self.size
        return self.scale * np.exp(self.sign * 2j * math.pi / self.size * turns)


@dataclass(frozen=True, eq=False)
class AxisMap:
    """``y[r] = row_scales[r] * sum over c of kernel[rows[r], columns[c]] * column_scales[c] * x[c]``.

    * `rows`: rows of the kernel, int64 [outputs]; -1 is a row of zeros.
    * `columns`: columns of the kernel, int64 [inputs]; -1 is a column of zeros.
    * `kernel`: A Fourier transform, a dense matrix complex128, or None for the identity, of size `inputs`.
    * `row_scales`, `column_scales`: complex128; None is 1.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    kernel: Fourier | NDArray[np.complex128] | None = None
    row_scales: NDArray[np.complex128] | None = None
    column_scales: NDArray[np.complex128] | None = None

    @classmethod
    def identity(cls, size: int) -> AxisMap:
        """The map that changes nothing."""
        return cls(np.arange(size), np.arange(size))

    @property
    def inputs(self) -> int:
        return len(self.columns)

    @property
    def outputs(self) -> int:
        return len(self.rows)

    @property
    def is_selection(self) -> bool:
        """Whether entries are only moved, dropped, or surrounded by zeros."""
        return self.kernel is None and self.row_scales is None

    @property
    def has_real_scales(self) -> bool:
        """Whether entries are moved, dropped and multiplied by real numbers alone."""
        return self.kernel is None and (self.row_scales is None or not self.row_scales.imag.any())

    @property
    def is_identity(self) -> bool:
        return self.is_selection and np.array_equal(self.rows, np.arange(self.inputs))

    @property
    def is_zero(self) -> bool:
        return bool((self.rows < 0).all() or (self.columns < 0).all())

    @cached_property
    def used_columns(self) -> NDArray[np.int64]:
        """The inputs that any output depends on."""
        if self.kernel is None:
            return np.unique(self.rows[self.rows >= 0])
        return np.flatnonzero(self.columns >= 0)

    def select(self, rows: NDArray[np.int64]) -> AxisMap:
        """Keep some outputs, in a new order; -1 is a zero."""
        kept = np.where(rows < 0, -1, self.rows[rows])
        scales = None if self.row_scales is None else self.row_scales[rows]
        return replace(self, rows=kept, row_scales=scales)

    def without_columns(self) -> AxisMap:
        """The map of `used_columns` alone."""
        used = self.used_columns
        if len(used) == self.inputs:
            return self
        if self.kernel is None:
            rows = np.where(self.rows < 0, -1, np.searchsorted(used, self.rows))
            return AxisMap(rows, np.arange(len(used)), None, self.row_scales)
        scales = None if self.column_scales is None else self.column_scales[used]
        return replace(self, columns=self.columns[used], column_scales=scales)

    def scaled(self, scales: NDArray) -> AxisMap:
        """Multiply each output by a number."""
        scales = np.broadcast_to(np.asarray(scales, np.complex128), self.rows.shape)
        return replace(self, row_scales=scales if self.row_scales is None else self.row_scales * scales)

    def then_fourier(self, transform: Fourier, scales: NDArray | None = None) -> AxisMap | None:
        """This map followed by a transform of its outputs, which are multiplied by `scales` first.

        Returns None if two transforms cost less one after the other than their product.
        """
        kept = transform.size
        if self.kernel is None:
            positive = self.rows >= 0
            if len(np.unique(self.rows[positive])) == positive.sum():
                columns = np.full(self.inputs, -1)
                columns[self.rows[positive]] = np.flatnonzero(positive)
                total = self._scales_of_rows(scales)
                column_scales = None if total is None else np.where(columns < 0, 0, total[columns])
                return AxisMap(np.arange(kept), columns, transform, None, column_scales)
        dense = np.arange(self.outputs)
        inner = len(np.flatnonzero(self.rows >= 0))
        used = len(self.used_columns)
        if kept * used > min(_LARGEST_PRODUCT, inner * (kept + used)):
            return None
        product = transform.matrix(np.arange(kept), dense)
        if scales is not None:
            product = product * scales
        return AxisMap(np.arange(kept), np.arange(self.inputs), product @ self.dense())

    def stacked(self, other: AxisMap) -> AxisMap | None:
        """The map to the outputs of both, one after the other, of the same inputs; None if their kernels differ."""
        if not (
            self._has_kernel_of(other)
            and np.array_equal(self.columns, other.columns)
            and _same(self.column_scales, other.column_scales)
        ):
            return None
        scales = _concatenated(self.row_scales, self.outputs, other.row_scales, other.outputs)
        return replace(self, rows=np.concatenate([self.rows, other.rows]), row_scales=scales)

    def _scales_of_rows(self, scales: NDArray | None) -> NDArray | None:
        if self.row_scales is None or scales is None:
            return scales if self.row_scales is None else self.row_scales
        return self.row_scales * scales

    def dense(self) -> NDArray[np.complex128]:
        """The matrix complex128 [outputs, inputs]."""
        if self.kernel is None:
            matrix = (self.rows[:, None] == np.arange(self.inputs)).astype(np.complex128)
        else:
            rows, columns = np.maximum(self.rows, 0), np.maximum(self.columns, 0)
            matrix = (
                self.kernel.matrix(rows, columns)
                if isinstance(self.kernel, Fourier)
                else self.kernel[np.ix_(rows, columns)]
            )
            if self.column_scales is not None:
                matrix = matrix * self.column_scales
            matrix[self.rows < 0] = 0
            matrix[:, self.columns < 0] = 0
        return matrix if self.row_scales is None else matrix * self.row_scales[:, None]

    def equals(self, other: AxisMap) -> bool:
        """Whether both are the same map, entry by entry of their description."""
        return self.has_rows_of(other) and (
            self.inputs == other.inputs
            and np.array_equal(self.columns, other.columns)
            and _same(self.column_scales, other.column_scales)
            and (self.kernel is not None or np.array_equal(self.rows, other.rows))
        )

    def has_rows_of(self, other: AxisMap) -> bool:
        """Whether the inputs of both may be concatenated to those of one map."""
        if self.outputs != other.outputs or not _same(self.row_scales, other.row_scales):
            return False
        return self._has_kernel_of(other) and (self.kernel is None or np.array_equal(self.rows, other.rows))

    def _has_kernel_of(self, other: AxisMap) -> bool:
        return self.kernel is other.kernel or (
            isinstance(self.kernel, Fourier)
            and isinstance(other.kernel, Fourier)
            and self.kernel == other.kernel
        )

    def can_join(self, other: AxisMap) -> bool:
        """Whether `joined` describes the sum of both maps."""
        if not self.has_rows_of(other):
            return False
        return self.kernel is not None or not ((self.rows >= 0) & (other.rows >= 0)).any()

    def joined(self, other: AxisMap) -> AxisMap:
        """The map of the concatenated inputs of both."""
        if self.kernel is None:
            rows = np.where(other.rows >= 0, other.rows + self.inputs, self.rows)
            return AxisMap(rows, np.arange(self.inputs + other.inputs), None, self.row_scales)
        scales = _concatenated(self.column_scales, self.inputs, other.column_scales, other.inputs)
        columns = np.concatenate([self.columns, other.columns])
        return replace(self, columns=columns, column_scales=scales)


def _concatenated(left: NDArray | None, first: int, right: NDArray | None, second: int) -> NDArray | None:
    """The scales of two axes of these lengths, where None is 1."""
    if left is None and right is None:
        return None
    pairs = ((left, first), (right, second))
    return np.concatenate([np.ones(size, np.complex128) if one is None else one for one, size in pairs])


def _same(left: NDArray | None, right: NDArray | None) -> bool:
    if left is None or right is None:
        return left is right
    return np.array_equal(left, right)


def is_same(left: AxisMap | None, right: AxisMap | None) -> bool:
    """Whether two maps are the same; None changes nothing."""
    return left is right or (left is not None and right is not None and left.equals(right))


def positions(start: int | None, stop: int | None, step: int, size: int) -> NDArray[np.int64]:
    """The positions of a slice along an axis of some size."""
    return np.arange(size)[slice(start, stop, step)]


def embedding(targets: Sequence[int] | NDArray[np.int64], size: int) -> AxisMap:
    """The map that puts its inputs at some positions of a longer axis, between zeros."""
    rows = np.full(size, -1)
    rows[np.asarray(targets, np.int64)] = np.arange(len(targets))
    return AxisMap(rows, np.arange(len(targets)))
