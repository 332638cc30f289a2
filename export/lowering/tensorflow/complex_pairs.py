"""Complex numbers and Fourier transforms of TensorFlow in real arithmetic.

The graph of a function is copied operation by operation. Complex tensors become pairs of real and imaginary parts, and
operations that touch one are copied by the rules below; all others as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from ptychonnx.export.lowering.tensorflow.fourier import (
    Pair,
    inverse_real_transform,
    real_transform,
    transform,
)
from ptychonnx.runtime.errors import UnsupportedError

__all__ = ["real_form"]

_PARTS = {tf.complex64: tf.float32, tf.complex128: tf.float64}
# Operations that act on both parts alike, with the same real arguments.
_LINEAR = {
    "AddN", "AddV2", "Add", "BroadcastTo", "ConcatV2", "Cumsum", "ExpandDims", "Fill", "GatherNd", "GatherV2",
    "Identity", "MatrixBandPart", "MatrixDiagPartV3", "MatrixDiagV3", "Mean", "MirrorPad", "Neg", "Pack", "Pad",
    "PadV2", "PlaceholderWithDefault", "PreventGradient", "Reshape", "ReverseV2", "Roll", "ScatterNd", "Select",
    "SelectV2", "Slice", "Split", "SplitV", "Squeeze", "StopGradient", "StridedSlice", "Sub", "Sum",
    "TensorScatterAdd", "TensorScatterUpdate", "Tile", "Transpose", "Unpack", "ZerosLike",
}  # fmt: skip


def real_form(function: Any) -> Callable[..., Mapping[str, Any]] | None:
    """A function that computes what a concrete function does, without complex tensors inside.

    Returns None if there are none. Inputs and outputs are real.

    Raises UnsupportedError when it is called, if an operation has no rule; the message names it and its layer.
    """
    if not _has_complex_types(function.graph.as_graph_def()):
        return None
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    # TensorFlow's Python code knows more sizes than the operations alone.
    known = [one for step in function.graph.get_operations() for one in step.outputs]
    # Weights have the names of their resources in the frozen graph, which are no tensors.
    shapes = {one.name: one.shape for one in known if one.dtype != tf.resource}
    names = list(function.structured_outputs)
    assert len(names) == len(frozen.outputs)
    # The outputs of a function are in the order of the sorted names.
    outputs = dict(zip(sorted(names), frozen.outputs, strict=True))

    def call(*arguments: tf.Tensor) -> dict[str, tf.Tensor]:
        values: dict[str, Any] = dict(zip((tensor.name for tensor in frozen.inputs), arguments, strict=True))
        for operation in frozen.graph.get_operations():
            if operation.type in ("Placeholder", "NoOp"):
                continue
            results = _copied(operation, [values[tensor.name] for tensor in operation.inputs])
            for tensor, result in zip(operation.outputs, results, strict=True):
                values[tensor.name] = result
                for part in result if isinstance(result, tuple) else (result,):
                    part.set_shape(shapes.get(tensor.name, tensor.shape))
        return {name: values[outputs[name].name] for name in names}

    return call


def _has_complex_types(definition: Any) -> bool:
    nodes = [*definition.node, *(node for one in definition.library.function for node in one.node_def)]
    types = {one.type for node in nodes for one in node.attr.values() if one.HasField("type")}
    return any(dtype.as_datatype_enum in types for dtype in _PARTS)


def _copied(operation: tf.Operation, inputs: Sequence[Any]) -> Sequence[Any]:
    """The outputs of a copy of one operation."""
    kind = operation.type
    if not any(tensor.dtype.is_complex for tensor in (*operation.inputs, *operation.outputs)):
        return _applied(operation, inputs)
    if kind == "Const":
        array = tf.make_ndarray(operation.get_attr("value"))
        return [(tf.constant(array.real), tf.constant(array.imag))]
    if kind in _LINEAR:
        parts = [[one[part] if isinstance(one, tuple) else one for one in inputs] for part in (0, 1)]
        return list(zip(*(_applied(operation, one) for one in parts), strict=True))
    if kind in ("Shape", "Size", "Rank", "ShapeN"):
        return _applied(operation, [one[0] for one in inputs])
    if "FFT" in kind:
        return [_fourier(operation, inputs)]
    if kind in _RULES:
        return [_RULES[kind](operation, *inputs)]
    raise UnsupportedError(
        f"{kind} of complex numbers in {operation.name} has no form in real arithmetic; write it with pairs of real "
        "numbers, such as those of keras.ops.rfft"
    )


def _applied(operation: tf.Operation, inputs: Sequence[Any]) -> Sequence[Any]:
    """The same operation on other tensors, of which complex ones became real."""
    attributes = {name: one for name, one in operation.node_def.attr.items() if not name.startswith("_")}
    for one in attributes.values():
        if one.HasField("type") and (dtype := tf.as_dtype(one.type)) in _PARTS:
            one.type = _PARTS[dtype].as_datatype_enum
    if any(one.HasField("func") for one in attributes.values()):
        raise UnsupportedError(
            f"{operation.type} in {operation.name} is a loop or a branch in a model of complex numbers, which tf2onnx "
            "loses; write it without, such as with unroll=True of recurrent layers"
        )
    graph = tf.compat.v1.get_default_graph()
    return graph.create_op(operation.type, list(inputs), attrs=attributes).outputs


def _fourier(operation: tf.Operation, inputs: Sequence[Any]) -> Any:
    kind = operation.type.removeprefix("Batch")
    axes = int(kind[-2]) if kind.endswith("D") and kind[-2].isdigit() else 1
    x, *others = inputs
    lengths: Any = [None] * axes
    if others:
        lengths = tf.get_static_value(others[0])
        if lengths is None or len(others) > 1:
            raise UnsupportedError(f"{kind} in {operation.name}: expected lengths known at export")
        lengths = [int(one) for one in lengths]
    outer = list(zip(range(-axes, -1), lengths[:-1], strict=True))
    if kind.startswith("RFFT"):
        x = real_transform(x, lengths[-1])
        for axis, length in reversed(outer):
            x = transform(x, -1, axis, length)
        return x
    sign = 1 if kind.startswith("I") else -1
    for axis, length in outer:
        x = transform(x, sign, axis, length)
    return inverse_real_transform(x, lengths[-1]) if kind.startswith("IR") else transform(x, sign, -1)


def _product(x: Pair, y: Pair, multiply: Callable[[Any, Any], Any] = tf.multiply) -> Pair:
    (a, b), (c, d) = x, y
    return multiply(a, c) - multiply(b, d), multiply(a, d) + multiply(b, c)


def _inverse(x: Pair, divide: Callable[[Any, Any], Any] = tf.divide) -> Pair:
    square = tf.square(x[0]) + tf.square(x[1])
    return divide(x[0], square), divide(-x[1], square)


def _size(x: Pair) -> Any:
    return tf.sqrt(tf.square(x[0]) + tf.square(x[1]))


def _cast(operation: tf.Operation, x: Any) -> Any:
    wanted = operation.outputs[0].dtype
    if not wanted.is_complex:
        return tf.cast(x[0], wanted)
    real, imaginary = x if isinstance(x, tuple) else (x, None)
    real = tf.cast(real, _PARTS[wanted])
    return real, tf.zeros_like(real) if imaginary is None else tf.cast(imaginary, _PARTS[wanted])


def _matmul(operation: tf.Operation, x: Pair, y: Pair) -> Pair:
    names = ("transpose_a", "transpose_b") if operation.type == "MatMul" else ("adj_x", "adj_y")
    turned = [operation.get_attr(name) for name in names]
    if operation.type != "MatMul":  # adjoint, and not only transposed
        x, y = ((one[0], -one[1]) if flag else one for one, flag in zip((x, y), turned, strict=True))
    return _product(x, y, lambda a, c: tf.matmul(a, c, transpose_a=turned[0], transpose_b=turned[1]))


def _einsum(operation: tf.Operation, *operands: Pair) -> Pair:
    equation = operation.get_attr("equation").decode()
    if len(operands) == 1:
        real, imaginary = (tf.einsum(equation, part) for part in operands[0])
        return real, imaginary
    x, y = operands
    return _product(x, y, lambda a, c: tf.einsum(equation, a, c))


def _exp(operation: tf.Operation, x: Pair) -> Pair:
    return tf.exp(x[0]) * tf.cos(x[1]), tf.exp(x[0]) * tf.sin(x[1])


def _sqrt(operation: tf.Operation, x: Pair) -> Pair:
    real, imaginary = x
    # The sum that does not cancel, and the other part from the product of both.
    large = tf.sqrt((_size(x) + tf.abs(real)) / 2)
    small = tf.math.divide_no_nan(tf.abs(imaginary), 2 * large)
    sign = tf.where(imaginary < 0, -tf.ones_like(large), tf.ones_like(large))
    return tf.where(real >= 0, large, small), sign * tf.where(real >= 0, small, large)


_RULES: dict[str, Callable[..., Any]] = {
    "Complex": lambda operation, real, imaginary: (
        real + tf.zeros_like(imaginary),
        imaginary + tf.zeros_like(real),
    ),
    "Real": lambda operation, x: x[0],
    "Imag": lambda operation, x: x[1],
    "ComplexAbs": lambda operation, x: _size(x),
    "Angle": lambda operation, x: tf.atan2(x[1], x[0]),
    "Conj": lambda operation, x: (x[0], -x[1]),
    "ConjugateTranspose": lambda operation, x, order: (tf.transpose(x[0], order), -tf.transpose(x[1], order)),
    "Cast": _cast,
    "OnesLike": lambda operation, x: (tf.ones_like(x[0]), tf.zeros_like(x[0])),
    "Mul": lambda operation, x, y: _product(x, y),
    "Square": lambda operation, x: _product(x, x),
    "Reciprocal": lambda operation, x: _inverse(x),
    "RealDiv": lambda operation, x, y: _product(x, _inverse(y)),
    "DivNoNan": lambda operation, x, y: _product(x, _inverse(y, tf.math.divide_no_nan)),
    "MatMul": _matmul,
    "BatchMatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "Einsum": _einsum,
    "Exp": _exp,
    "Log": lambda operation, x: (
        tf.math.log(tf.square(x[0]) + tf.square(x[1])) / 2,
        tf.atan2(x[1], x[0]),
    ),
    "Sqrt": _sqrt,
    "Tanh": lambda operation, x: _tanh(x),
    "Sigmoid": lambda operation, x: tuple(
        0.5 * part + offset for part, offset in zip(_tanh((x[0] / 2, x[1] / 2)), (0.5, 0.0), strict=True)
    ),
}


def _tanh(x: Pair) -> Pair:
    # With t = tanh(a) and u = tan(b): (t + i u) / (1 + i t u), which does not overflow.
    t, u = tf.tanh(x[0]), tf.tan(x[1])
    below = 1 + tf.square(t) * tf.square(u)
    return t * (1 + tf.square(u)) / below, u * (1 - tf.square(t)) / below
