"""The foreign graph with preprocessing before it and conversion of its output after it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from ptychonnx.export.adoption.foreign_graph import exit_wave_factor, foreign_names, patch_sides
from ptychonnx.export.adoption.orientation_nodes import orient_image_in_graph, orient_pattern_in_graph
from ptychonnx.export.adoption.preprocessing import STEPS
from ptychonnx.export.adoption.sidecar import Layout, Specification
from ptychonnx.export.graph.editing import GraphTape
from ptychonnx.export.graph.tensor_names import INPUT_NAME, OUTPUT_NAME

__all__ = ["wrap"]

_PREFIX = "foreign."


def wrap(model: onnx.ModelProto, specification: Specification, batch: int | None) -> onnx.ModelProto:
    """A graph from amplitudes float32 [B, 1, N, N] to object parts float32 [B, N, N, 1, 2].

    Parameters
    ----------
    model
        The foreign graph, in opset 18 or later; left as it is.
    batch
        The only batch size of the foreign graph; None if it takes any.
    """
    n, size = specification.n, batch or "batch"
    source, channels = foreign_names(model, specification)
    wrapped = ir.from_proto(onnx.compose.add_prefix(model, _PREFIX))
    graph = wrapped.graph
    inputs = {value.name: value for value in graph.inputs}
    outputs = {value.name: value for value in graph.outputs}

    patterns = ir.val(INPUT_NAME, ir.DataType.FLOAT, [size, 1, n, n])
    before = GraphTape(graph, "before")
    ir.convenience.replace_all_uses_with(
        inputs[_PREFIX + source], _preprocess(before, patterns, specification)
    )
    graph.inputs.clear()
    graph.inputs.append(patterns)
    graph.insert_before(graph[0], before.nodes)

    parts = {channel: outputs[_PREFIX + output] for channel, output in channels.items()}
    after = GraphTape(graph, "after")
    result = _convert_output(after, parts, specification)
    result.name, result.dtype, result.shape = OUTPUT_NAME, ir.DataType.FLOAT, ir.Shape([size, n, n, 1, 2])
    graph.outputs.clear()
    graph.outputs.append(result)
    graph.extend(after.nodes)
    return _without_traces(wrapped)


def _preprocess(tape: GraphTape, value: ir.Value, specification: Specification) -> ir.Value:
    value = orient_pattern_in_graph(tape, value, specification.n, specification.input.orientation)
    *steps, _ = specification.resolved_steps()
    for name, argument, side in steps:
        value = STEPS[name].graph(tape, value, side, argument)
    match specification.input.layout:
        case "BNNC":
            return tape.add("Transpose", value, perm=[0, 2, 3, 1])
        case "BNN":
            return tape.add("Squeeze", value, tape.integers(1))
    return value


def _convert_output(tape: GraphTape, outputs: dict[str, ir.Value], specification: Specification) -> ir.Value:
    """Real and imaginary part of the object [B, N, N, 1, 2] from the foreign output of each channel."""
    n, is_single = specification.n, bool(specification.output.channels)
    parts = {
        channel: _channel(tape, output, specification.output.layout, number if is_single else None)
        for number, (channel, output) in enumerate(outputs.items())
    }
    side, window = patch_sides(specification)
    real, imaginary = (
        _place(tape, orient_image_in_graph(tape, part, specification.output.orientation), side, window, n)
        for part in _complex_parts(tape, parts)
    )
    factor = exit_wave_factor(specification)
    if factor is not None:
        real, imaginary = _multiply(tape, real, imaginary, factor)
    last = tape.integers(4)
    stacked = tape.add("Concat", *(tape.add("Unsqueeze", part, last) for part in (real, imaginary)), axis=4)
    return tape.add("Transpose", stacked, perm=[0, 2, 3, 1, 4])


def _channel(tape: GraphTape, value: ir.Value, layout: Layout, channel: int | None) -> ir.Value:
    """[B, 1, M, M] of one channel."""
    if layout == "BNN":
        return tape.add("Unsqueeze", value, tape.integers(1))
    if layout == "BNNC":
        value = tape.add("Transpose", value, perm=[0, 3, 1, 2])
    return value if channel is None else tape.slice(value, 1, channel, channel + 1)


def _complex_parts(tape: GraphTape, parts: dict[str, ir.Value]) -> tuple[ir.Value, ir.Value]:
    if "real" in parts:
        return parts["real"], parts["imag"]
    real, imaginary = tape.add("Cos", parts["phase"]), tape.add("Sin", parts["phase"])
    if "amplitude" in parts:
        real, imaginary = (tape.add("Mul", parts["amplitude"], part) for part in (real, imaginary))
    return real, imaginary


def _place(tape: GraphTape, value: ir.Value, side: int, window: int, n: int) -> ir.Value:
    """A patch of `side` pixels, resized to the `window` pixels that it covers and padded with zeros to `n` pixels."""
    if side != window:
        scales = tape.constant([1, 1, window / side, window / side], np.float32)
        value = tape.add(
            "Resize", value, None, scales, mode="linear", coordinate_transformation_mode="half_pixel"
        )
    if window != n:
        start = n // 2 - window // 2
        end = n - window - start
        value = tape.add("Pad", value, tape.integers(0, 0, start, start, 0, 0, end, end))
    return value


def _multiply(
    tape: GraphTape, real: ir.Value, imaginary: ir.Value, factor: NDArray[np.complex64]
) -> tuple[ir.Value, ir.Value]:
    a, b = tape.constant(factor.real), tape.constant(factor.imag)
    products = [[tape.add("Mul", part, constant) for constant in (a, b)] for part in (real, imaginary)]
    return (
        tape.add("Sub", products[0][0], products[1][1]),
        tape.add("Add", products[0][1], products[1][0]),
    )


def _without_traces(model: ir.Model) -> onnx.ModelProto:
    """Without metadata, documentation strings and the sizes that the foreign exporter noted."""
    ClearMetadataAndDocStringPass()(model)
    interface = {*model.graph.inputs, *model.graph.outputs}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for value in node.outputs:
            if value not in interface:
                value.shape = value.type = None
    model.graph.name, model.graph.doc_string, model.doc_string = "network", None, None
    model.producer_name, model.producer_version = "ptychonnx", None
    model.domain, model.model_version = None, None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    return ir.to_proto(model)
