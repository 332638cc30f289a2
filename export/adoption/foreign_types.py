"""Types of a foreign network's input, and patterns cast to them."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.runtime.errors import UnsupportedError

__all__ = ["cast_patterns", "input_type", "type_limits"]

_FLOATING = (np.float16, np.float32, np.float64)
_WHOLE = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64)


def input_type(value: onnx.ValueInfoProto) -> np.dtype:
    """Type of the foreign input.

    Raises UnsupportedError if it is not real numbers.
    """
    kind = value.type.tensor_type.elem_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    except KeyError:
        dtype = np.dtype(object)
    if dtype.type not in (*_FLOATING, *_WHOLE):
        name = onnx.TensorProto.DataType.Name(kind).lower()
        raise UnsupportedError(f"input {value.name!r} is {name}, expected whole or real numbers")
    return dtype


def type_limits(dtype: np.dtype) -> tuple[np.float32, np.float32]:
    """Smallest and largest float32 that the type holds."""
    bounds = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    lowest, highest = np.float32(bounds.min), np.float32(bounds.max)
    # Rounded to float32, the largest whole number of a type may be one more than the type holds.
    if float(highest) > float(bounds.max):
        highest = np.nextafter(highest, np.float32(0))
    return lowest, highest


def cast_patterns(patterns: NDArray[np.float32], dtype: np.dtype) -> NDArray:
    """Patterns as the foreign input takes them: rounded to whole numbers for such a type, and limited to its range."""
    if dtype in (np.float32, np.float64):
        return patterns.astype(dtype)
    lowest, highest = type_limits(dtype)
    rounded = np.rint(patterns) if dtype.kind in "iu" else patterns
    return np.minimum(np.maximum(rounded, lowest), highest).astype(dtype)
