"""Products that sum over axes: `einsum` and the matrix products."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptychonnx.export.lowering.torch.complex_arithmetic.axis_map import is_same
from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import (
    Constant,
    Context,
    NotLowered,
    is_complex,
    rule,
)
from ptychonnx.export.lowering.torch.complex_arithmetic.tensor_views import permuted, reshaped

# The axis of real and imaginary part, in equations of their stacked tensors.
_PART = "@"


@rule("einsum")
def _einsum(context: Context, operator: Any, equation: str, operands: Sequence[Any], **_: Any) -> Any:
    if not any(map(is_complex, operands)):
        return operator(equation, [context.real(one) for one in operands])
    inputs, output = _letters(equation, [len(context.value(one).shape) for one in operands])
    value, letters = operands[0], inputs[0]
    for number in range(1, len(operands)):
        later = set(output).union(*inputs[number + 1 :])
        kept = [letter for letter in dict.fromkeys(letters + inputs[number]) if letter in later]
        kept = list(output) if number == len(operands) - 1 else kept
        value = _contract(context, value, letters, operands[number], inputs[number], "".join(kept))
        letters = "".join(kept)
    if len(operands) == 1:
        return context.each(value, lambda part: torch.einsum(f"{letters}->{output}", part))
    return value


def _letters(equation: str, sizes: Sequence[int]) -> tuple[list[str], str]:
    """The axes of each operand and of the result as letters, without ellipses."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    free = [letter for letter in string.ascii_letters if letter not in equation]
    widest = max(
        (size - len(one) + 3 for one, size in zip(inputs, sizes, strict=True) if "..." in one), default=0
    )
    axes = free[:widest]
    inputs = [
        one.replace("...", "".join(axes[widest - (size - len(one) + 3) :])) if "..." in one else one
        for one, size in zip(inputs, sizes, strict=True)
    ]
    if arrow:
        return inputs, right.replace("...", "".join(axes))
    joined = "".join(inputs)
    once = sorted(letter for letter in set(joined) - set(axes) if joined.count(letter) == 1)
    return inputs, "".join([*axes, *once])


def _contract(context: Context, x: Any, of_x: str, y: Any, of_y: str, output: str) -> Any:
    """Two operands of an equation."""
    if isinstance(x, Constant) and isinstance(y, Constant):
        return Constant(np.einsum(f"{of_x},{of_y}->{output}", x.array, y.array))
    if len(set(of_x)) < len(of_x) or len(set(of_y)) < len(of_y):
        raise NotLowered("an operand repeats a letter")
    if not is_complex(x) and not is_complex(y):
        return _real_product(context.real(x), of_x, context.real(y), of_y, output)
    if isinstance(x, Constant):
        x, of_x, y, of_y = y, of_y, x, of_x
    if isinstance(y, Constant) and _sums(of_x, of_y, output):
        return _by_constant(context, x, of_x, y.array, of_y, output)
    if not _sums(of_x, of_y, output) and not set(of_x + of_y) - set(output):
        aligned = [_aligned(context, one, letters, output) for one, letters in ((x, of_x), (y, of_y))]
        return context.apply("mul", *aligned)
    if is_complex(x) != is_complex(y):
        if is_complex(y):
            x, of_x, y, of_y = y, of_y, x, of_x
        return _by_real(context, x, of_x, context.real(y), of_y, output)
    left, right = context.pair(x), context.pair(y)

    def product(one: Tensor, other: Tensor) -> Tensor:
        return _real_product(one, of_x, other, of_y, output)

    return LinearValue.of_parts(
        product(left.real, right.real) - product(left.imaginary, right.imaginary),
        product(left.real, right.imaginary) + product(left.imaginary, right.real),
    )


def _sums(of_x: str, of_y: str, output: str) -> bool:
    """Whether a letter of both operands is summed over."""
    return bool((set(of_x) & set(of_y)) - set(output))


def _aligned(context: Context, x: Any, letters: str, output: str) -> Any:
    """The axes of an operand in the order of the result, of size 1 where it has none."""
    order = sorted(range(len(letters)), key=lambda axis: output.index(letters[axis]))
    if isinstance(x, Constant):
        missing = [axis for axis, letter in enumerate(output) if letter not in letters]
        return Constant(np.expand_dims(x.array.transpose(order), missing))

    def align(part: Tensor) -> Tensor:
        part = permuted(part, order)
        for axis, letter in enumerate(output):
            part = part if letter in letters else part.unsqueeze(axis)
        return part

    if not is_complex(x):
        return align(context.real(x))
    if letters == output:
        return x
    return context.each(x, align)


def _by_real(context: Context, x: Any, of_x: str, y: Tensor, of_y: str, output: str) -> LinearValue:
    """A real second operand: the parts are one more axis of the first."""
    own = [letter for letter in output if letter in of_x and letter not in of_y]
    gap = of_x.index(own[-1]) if own else len(of_x)
    place = output.index(own[-1]) if own else len(output)
    pair = context.pair(x, gap)
    gap = gap if pair.gap is None else pair.gap
    stacked = pair.stacked(gap)
    result = _real_product(
        stacked, of_x[:gap] + _PART + of_x[gap:], y, of_y, output[:place] + _PART + output[place:]
    )
    return LinearValue.of(Pair(stacked=result, gap=place))


def _by_constant(context: Context, x: Any, of_x: str, y: NDArray, of_y: str, output: str) -> LinearValue:
    """A constant complex second operand: one product with blocks ``[[re, im], [-im, re]]``, parts next to sums."""
    both = [letter for letter in of_x if letter in of_y]
    batch = [letter for letter in both if letter in output]
    summed = [letter for letter in both if letter not in output]
    own = [letter for letter in of_x if letter not in of_y]
    new = [letter for letter in of_y if letter not in of_x]
    if any(letter not in output for letter in own + new):
        raise NotLowered("a letter of one operand alone is summed over")
    # The axes of the result, as they come out of the product, are in the order in which the result has them.
    for group in (batch, own, new):
        group.sort(key=output.index)

    weight = y.transpose([of_y.index(letter) for letter in batch + summed + new])
    sizes = dict(zip(batch + summed + new, weight.shape, strict=True))
    blocks, rows, columns = (math.prod(sizes[one] for one in group) for group in (batch, summed, new))
    flat = weight.reshape(blocks, rows, columns)
    real, imaginary = flat.real, flat.imag
    block = np.stack([np.stack([real, imaginary], -1), np.stack([-imaginary, real], -1)], 2)

    if is_complex(x):
        gap = of_x.index(summed[-1]) + 1
        stacked, letters = context.pair(x, gap).stacked(gap), of_x[:gap] + _PART + of_x[gap:]
        left = _grouped(stacked, letters, batch, own, [*summed, _PART])
    else:
        block = block[:, :, :1]
        left = _grouped(context.real(x), of_x, batch, own, summed)
    shape = (blocks, -1, 2 * columns) if batch else (-1, 2 * columns)
    product = left @ context.constants.tensor(block.reshape(shape), left.dtype)
    lengths = dict(zip(of_x, context.value(x).shape, strict=True)) | {letter: sizes[letter] for letter in new}
    axes = [*batch, *own, *new, _PART]
    product = reshaped(product, [2 if letter == _PART else lengths[letter] for letter in axes])
    place = output.index(new[-1]) + 1 if new else len(output)
    wanted = output[:place] + _PART + output[place:]
    pair = Pair(stacked=permuted(product, [axes.index(letter) for letter in wanted]), gap=place)
    if isinstance(x, LinearValue) and len(x.terms) == 1:
        pair.product = _ConstantProduct(context, x, of_x, y, of_y, output)
    return LinearValue.of(pair)


@dataclass(frozen=True, eq=False)
class _ConstantProduct:
    """A product of `_by_constant`: the corners of one spectrum, each with its own weights, become one product."""

    context: Context
    value: LinearValue
    of_x: str
    weight: NDArray
    of_y: str
    output: str

    def joined(self, other: Any, axis: int) -> Pair | None:
        letter = self.output[axis]
        equation = (self.of_x, self.of_y, self.output)
        if other is None or equation != (other.of_x, other.of_y, other.output):
            return None
        if letter not in self.of_x or letter not in self.of_y:
            return None
        (first,), (second,), place = self.value.terms, other.value.terms, self.of_x.index(letter)
        maps = first.map_of(place).stacked(second.map_of(place))
        if first.source is not second.source or maps is None:
            return None
        if not all(
            is_same(left, right)
            for number, (left, right) in enumerate(zip(first.maps, second.maps, strict=True))
            if number != place
        ):
            return None
        shape = [*self.value.shape]
        shape[place] = maps.outputs
        value = LinearValue(
            shape, self.value.dtype, [first.with_map(place, maps)], is_real=self.value.is_real
        )
        weight = np.concatenate([self.weight, other.weight], self.of_y.index(letter))
        (term,) = _by_constant(self.context, value, *equation[:1], weight, *equation[1:]).terms
        assert isinstance(term.source, Pair)
        return term.source


def _grouped(x: Tensor, letters: str, *groups: list[str]) -> Tensor:
    """Each group of axes as one axis; without an axis for an empty first group."""
    order = [letters.index(letter) for group in groups for letter in group]
    sizes = [
        math.prod(x.shape[letters.index(letter)] for letter in group)
        for number, group in enumerate(groups)
        if group or number
    ]
    return reshaped(permuted(x, order), sizes)


def _without(x: Tensor, letters: str, wanted: str) -> tuple[Tensor, str]:
    """The sum over the axes that neither the other operand nor the result has, and the letters of the others."""
    summed = [axis for axis, letter in enumerate(letters) if letter not in wanted]
    kept = "".join(letter for letter in letters if letter in wanted)
    return (x.sum(summed) if summed else x), kept


def _real_product(x: Tensor, of_x: str, y: Tensor, of_y: str, output: str) -> Tensor:
    """An equation of two real operands as one batched matrix product."""
    x, of_x = _without(x, of_x, of_y + output)
    y, of_y = _without(y, of_y, of_x + output)
    both = [letter for letter in of_x if letter in of_y]
    batch = sorted((letter for letter in both if letter in output), key=output.index)
    summed = [letter for letter in both if letter not in output]
    own = sorted((letter for letter in of_x if letter not in of_y), key=output.index)
    new = sorted((letter for letter in of_y if letter not in of_x), key=output.index)
    lengths = dict(zip(of_x, x.shape, strict=True)) | dict(zip(of_y, y.shape, strict=True))
    product = _grouped(x, of_x, batch, own, summed) @ _grouped(y, of_y, batch, summed, new)
    axes = [*batch, *own, *new]
    product = reshaped(product, [lengths[letter] for letter in axes])
    return permuted(product, [axes.index(letter) for letter in output])


@rule("mm", "bmm", "mv", "dot", "vdot")
def _matrix_product(context: Context, operator: Any, x: Any, y: Any) -> Any:
    name = operator.overloadpacket.__name__
    equations = {"mm": "ij,jk->ik", "bmm": "bij,bjk->bik", "mv": "ij,j->i", "dot": "i,i->", "vdot": "i,i->"}
    x = context.apply("conj", x) if name == "vdot" else x
    return _einsum(context, operator, equations[name], [x, y])


@rule("matmul")
def _matmul(context: Context, operator: Any, x: Any, y: Any) -> Any:
    left, right = len(context.value(x).shape), len(context.value(y).shape)
    of_x, of_y = "j" if left == 1 else "...ij", "j" if right == 1 else "...jk"
    output = "..." + ("i" if left > 1 else "") + ("k" if right > 1 else "")
    return _einsum(context, operator, f"{of_x},{of_y}->{output}", [x, y])


@rule("linear")
def _linear(context: Context, operator: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    result = _einsum(context, operator, "...j,kj->...k", [x, weight])
    return result if bias is None else context.apply("add", result, bias)


@rule("addmm", "baddbmm", "addbmm", "addmv")
def _add_product(
    context: Context, operator: Any, x: Any, left: Any, right: Any, beta: Any = 1, alpha: Any = 1
) -> Any:
    name = operator.overloadpacket.__name__
    equation = {"addmm": "ij,jk->ik", "baddbmm": "bij,bjk->bik", "addbmm": "bij,bjk->ik", "addmv": "ij,j->i"}
    product = _einsum(context, operator, equation[name], [left, right])
    if alpha != 1:
        product = context.apply("mul", product, alpha)
    if beta != 1:
        x = context.apply("mul", x, beta)
    return context.apply("add", product, x)
