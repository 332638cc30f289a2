"""Read a foreign ONNX file, and bring it to operators and types that engines share."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import version_converter

from ptychonnx.export.graph.opset import DEFAULT_OPSET, HIGHEST_OPSET, LOWEST_OPSET, opset_of, to_opset
from ptychonnx.runtime.contract.integrity import check_model_file
from ptychonnx.runtime.errors import UnsupportedError

__all__ = ["in_portable_opset", "read_foreign"]

# The oldest and the newest opset that onnxruntime supports.
_OLDEST, _NEWEST = 7, 26
# The first IR version in which weights need not be listed among the inputs.
_SEPARATE_WEIGHTS = 4
# Since this opset, Resize has attributes for what it used to do in a fixed way.
_RESIZE_ATTRIBUTES = 11


def read_foreign(path: Path) -> onnx.ModelProto:
    """Read a file with its external data; functions are written out, and weights are no inputs.

    Raises InputError if the file is unsafe, is not an ONNX model, or is in an opset that onnxruntime does not run.
    """
    check_model_file(path)
    model = onnx.load(path)  # with weights from other files in its folder, which were checked
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    used = {"ai.onnx" if node.domain == "" else node.domain for node in model.graph.node} | {"", "ai.onnx"}
    for entry in [entry for entry in model.opset_import if entry.domain not in used]:
        model.opset_import.remove(entry)
    standard = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(standard) != 1 or not _OLDEST <= standard[0].version <= _NEWEST:
        versions = [entry.version for entry in standard] or "none"
        raise UnsupportedError(
            f"{path}: opset is {versions if len(standard) != 1 else standard[0].version}, expected {_OLDEST} to "
            f"{_NEWEST}: export the network again with an opset of {DEFAULT_OPSET}"
        )
    standard[0].domain = ""
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in constants]:
        model.graph.input.remove(value)
    model.ir_version = max(model.ir_version, _SEPARATE_WEIGHTS)
    return model


def in_portable_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in an opset that exporters, engines and servers share.

    Older opsets are raised to the lowest that the project writes. Newer ones than it writes are lowered; an operator
    that has no older form keeps the graph in its own opset.

    Raises UnsupportedError if an old graph cannot be converted.
    """
    original = opset_of(model)
    if original > HIGHEST_OPSET:
        return _lowered(model)
    raised = to_opset(model, max(original, DEFAULT_OPSET if original >= LOWEST_OPSET else LOWEST_OPSET))
    if original < _RESIZE_ATTRIBUTES:
        _keep_old_resize(raised.graph)
    return raised


def _lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    for opset in (DEFAULT_OPSET, HIGHEST_OPSET):
        try:
            lowered = version_converter.convert_version(model, opset)
            lowered.ir_version = onnx.helper.find_min_ir_version_for(list(lowered.opset_import))
            onnx.checker.check_model(lowered, full_check=True)
        except Exception:  # onnx raises several different types
            continue
        return lowered
    return model


def _keep_old_resize(graph: onnx.GraphProto) -> None:
    """Resize as opset 10 defines it; the converter of onnx leaves the newer default, which is another sampling."""
    for node in graph.node:
        if node.op_type != "Resize":
            continue
        attributes = {attribute.name for attribute in node.attribute}
        for name, value in (("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor")):
            if name not in attributes:
                node.attribute.append(onnx.helper.make_attribute(name, value))
