"""The table of operators that compute with complex numbers, and what its entries have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.constants import Constants
from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.products import compute

__all__ = [
    "REAL_TYPES",
    "RULES",
    "Constant",
    "Context",
    "NotLowered",
    "by_parts",
    "from_parts",
    "is_complex",
    "rule",
]

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}

# The type of the parts of each complex type.
REAL_TYPES: dict[Any, torch.dtype] = {
    torch.complex32: torch.float16,
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}


class NotLowered(Exception):
    """An operator, or one way to call it, has no real form: why, and what the author of the module can do."""

    def __init__(
        self, why: str, way_out: str = "write it with real numbers, such as those of torch.view_as_real"
    ) -> None:
        super().__init__(why)
        self.way_out = way_out


@dataclass(frozen=True, eq=False)
class Constant:
    """A complex tensor that no input changes, as an array, since a trace has no values of tensors."""

    array: NDArray[np.complexfloating]


@dataclass
class Context:
    """State that rules share.

    * `constants`: where constants of the new module are stored.
    * `known`: values of real tensors that no input changes, by `id`.
    * `readers`: number of nodes that read each argument, by `id`.
    """

    constants: Constants
    known: dict[int, NDArray] = field(default_factory=dict)
    readers: dict[int, int] = field(default_factory=dict)

    def value(self, x: Any) -> LinearValue:
        """Any argument as a `LinearValue`."""
        if isinstance(x, LinearValue):
            return x
        if isinstance(x, Constant):
            dtype = torch.float64 if x.array.dtype == np.complex128 else torch.float32
            return from_parts(lambda part: self.constants.tensor((x.array.real, x.array.imag)[part], dtype))
        if isinstance(x, Tensor):
            return LinearValue.of(x if x.is_floating_point() else x.to(torch.float32))
        raise NotLowered(f"an argument is {type(x).__name__}")

    def settled(self, x: Any) -> LinearValue:
        """`value`, computed unless nothing but a selection of entries is left to be done."""
        value = self.value(x)
        selections = all(one is None or one.is_selection for term in value.terms for one in term.maps)
        if selections and not value.takes_real_part:
            return value
        return LinearValue.of(compute(value, self.constants))

    def pair(self, x: Any, gap: int | None = None) -> Pair:
        """The computed parts of a complex argument; the imaginary part of a real one is zero."""
        computed = compute(self.value(x), self.constants, gap)
        return computed if isinstance(computed, Pair) else Pair(computed, torch.zeros_like(computed))

    def real(self, x: Any) -> Any:
        """A real argument as an ordinary tensor; numbers stay numbers."""
        if isinstance(x, LinearValue):
            computed = compute(x, self.constants)
            assert isinstance(computed, Tensor)
            return computed
        return x

    def parts(self, x: Any) -> tuple[Any, Any]:
        """Real and imaginary part, tensors or numbers; the imaginary part of a real argument is None."""
        if isinstance(x, complex):
            return x.real, x.imag
        return self.pair(x).parts if is_complex(x) else (self.real(x), None)

    def both_parts(self, x: Any) -> tuple[Any, Any]:
        """`parts`, with zeros for the imaginary part of a real argument."""
        real, imaginary = self.parts(x)
        if imaginary is None:
            imaginary = torch.zeros_like(real) if isinstance(real, Tensor) else 0.0
        return real, imaginary

    def constant(self, x: Any) -> NDArray | None:
        """The values of an argument that no input changes; None for any other."""
        if isinstance(x, Constant):
            return x.array
        return self.known.get(id(x)) if isinstance(x, Tensor) else None

    def each(self, x: Any, function: Callable[[Tensor], Tensor]) -> LinearValue:
        """A real-linear function of both parts."""
        return LinearValue.of(self.pair(x).each(function))

    def apply(self, name: str, *arguments: Any) -> Any:
        """Apply the rule of another operator."""
        packet = getattr(torch.ops.aten, name)
        return RULES[name](
            self, packet.Tensor if "Tensor" in packet.overloads() else packet.default, *arguments
        )

    def is_read_once(self, x: Any) -> bool:
        """Whether no other node reads this argument."""
        return self.readers.get(id(x), 1) <= 1


def is_complex(x: Any) -> bool:
    """Whether an argument of an operator is complex."""
    if isinstance(x, LinearValue):
        return not x.is_real
    return isinstance(x, Constant | complex)


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a function of a `Context`, the operator, and its arguments under names of operators."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def from_parts(function: Callable[[int], Tensor]) -> LinearValue:
    """The complex value whose real part is `function(0)`, and whose imaginary part is `function(1)`."""
    return LinearValue.of(Pair(function(0), function(1)))


def by_parts(context: Context, operator: Any, x: Any, *args: Any, **keywords: Any) -> Any:
    """Apply an operator to both parts of `x`; a rule for operators that do so."""
    if keywords.get("dtype") in REAL_TYPES:
        keywords["dtype"] = REAL_TYPES[keywords["dtype"]]
    pair = context.pair(x)
    real, imaginary = (operator(part, *args, **keywords) for part in pair.parts)
    if isinstance(real, Sequence):
        return [LinearValue.of(Pair(*both)) for both in zip(real, imaginary, strict=True)]
    return LinearValue.of(Pair(real, imaginary))
