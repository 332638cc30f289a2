"""A complex tensor as real and imaginary part, apart or stacked along an axis of 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["JoinableProduct", "Pair"]


class JoinableProduct(Protocol):
    """A product that several parts of one value went through, each with other constants."""

    def joined(self, other: JoinableProduct | None, axis: int) -> Pair | None:
        """The results of both, one after the other along an axis, as one product; None if there is no such product."""
        ...


class Pair:
    """A complex tensor; both forms are computed when they are first asked for.

    * `real`, `imaginary`: the parts, of equal shape; with a `gap`, with an axis of 1 in front of the axis `gap` of the
      complex tensor.
    * `stacked`: instead of the parts: both in one tensor, along an axis of 2 there.
    * `gap`: the axis (behind all axes if it is their number).

    `product`: the product that it was computed by, if that can be joined with others.
    """

    product: JoinableProduct | None = None

    def __init__(
        self,
        real: Tensor | None = None,
        imaginary: Tensor | None = None,
        *,
        stacked: Tensor | None = None,
        gap: int | None = None,
    ) -> None:
        parts = None if real is None or imaginary is None else (real, imaginary)
        self._parts = parts if gap is None else None
        self._kept = None if gap is None else parts
        self._stacked = stacked
        self.gap = gap

    @property
    def parts(self) -> tuple[Tensor, Tensor]:
        """Real and imaginary part."""
        if self._parts is None and self._kept is not None:
            assert self.gap is not None
            real, imaginary = self._kept
            self._parts = real.squeeze(self.gap), imaginary.squeeze(self.gap)
        elif self._parts is None:
            assert self._stacked is not None
            assert self.gap is not None
            self._parts = self._stacked.select(self.gap, 0), self._stacked.select(self.gap, 1)
        return self._parts

    @property
    def real(self) -> Tensor:
        return self.parts[0]

    @property
    def imaginary(self) -> Tensor:
        return self.parts[1]

    @property
    def dtype(self) -> torch.dtype:
        tensor = self._kept[0] if self._kept is not None else self._stacked
        return self.real.dtype if tensor is None else tensor.dtype

    @property
    def shape(self) -> tuple:
        if self._parts is not None:
            return tuple(self._parts[0].shape)
        tensor = self._kept[0] if self._kept is not None else self._stacked
        assert tensor is not None
        assert self.gap is not None
        shape = tuple(tensor.shape)
        return (*shape[: self.gap], *shape[self.gap + 1 :])

    def stacked(self, gap: int) -> Tensor:
        """Both parts in one tensor, along an axis of 2 in front of the axis `gap`."""
        if self._stacked is None and self._kept is not None and self.gap is not None:
            self._stacked = torch.cat(self._kept, dim=self.gap)
        elif self._stacked is None:
            self._stacked, self.gap = torch.stack(self.parts, dim=gap), gap
        assert self.gap is not None
        return self._stacked if self.gap == gap else self._stacked.movedim(self.gap, gap)

    def each(self, function: Callable[[Tensor], Tensor]) -> Pair:
        """Apply a real-linear function to both parts."""
        return Pair(function(self.real), function(self.imaginary))

    def along(self, axis: int, function: Callable[[Tensor, int], Tensor]) -> Pair:
        """Apply a function of a tensor and an axis, which changes nothing but that axis, to both parts at once."""
        if self._stacked is None or self.gap is None:
            return Pair(function(self.real, axis), function(self.imaginary, axis))
        return Pair(
            stacked=function(self._stacked, axis + (axis >= self.gap)),
            gap=self.gap,
        )
