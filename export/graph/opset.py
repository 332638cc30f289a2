"""The version of the ONNX operators that a graph is written in."""

from __future__ import annotations

import onnx
from onnx import helper, version_converter

from ptychonnx.runtime.errors import InputError, UnsupportedError, first_line

__all__ = ["DEFAULT_OPSET", "HIGHEST_OPSET", "LOWEST_OPSET", "check_opset", "opset_of", "to_opset"]

# Written by tf2onnx, and the first that the exporter of torch writes natively.
LOWEST_OPSET = 18
# The first with the operator Gelu. onnxruntime reads it since 1.17, and artifacts from torch, which are written in
# IR version 10, since 1.18 (docs/results/portability.md); inference servers of 2025 do too.
DEFAULT_OPSET = 20
# The last that the exporter of torch writes.
HIGHEST_OPSET = 23


def check_opset(opset: int) -> int:
    """Return `opset`.

    Raises InputError if the exporters cannot write it.
    """
    if not LOWEST_OPSET <= opset <= HIGHEST_OPSET:
        raise InputError(f"opset is {opset}, expected {LOWEST_OPSET} to {HIGHEST_OPSET}")
    return opset


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators of a model."""
    (version,) = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return version


def to_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same graph in a later version of the standard operators.

    Raises InputError if the version is out of range. Raises UnsupportedError if the version is earlier than that of the
    model, since newer operators have no older form, or if the model cannot be converted.

    `model`, written in `opset` or an earlier one, is left as it is.
    """
    present = opset_of(model)
    if check_opset(opset) < present:
        raise UnsupportedError(f"the graph is written in opset {present}, expected at most {opset}")
    if present == opset:
        return model
    try:
        raised = version_converter.convert_version(model, opset)
    except Exception as error:  # onnx raises bare RuntimeErrors
        raise UnsupportedError(
            f"the graph cannot be converted from opset {present} to {opset}: {first_line(error)}"
        ) from error
    # Readers refuse operators that are newer than the IR version of the file.
    oldest = helper.find_min_ir_version_for(list(raised.opset_import))
    raised.ir_version = max(raised.ir_version, oldest)
    return raised
