"""The foreign graph with preprocessing before it and conversion of its output after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ptychonnx.export.adoption.detector_steps import crop_in_graph, pad_in_graph
from ptychonnx.export.adoption.foreign_graph import (
    PatchGeometry,
    exit_wave_factor,
    foreign_names,
    patch_geometry,
)
from ptychonnx.export.adoption.interpolation import interpolate_in_graph
from ptychonnx.export.adoption.preprocessing import STEPS
from ptychonnx.export.adoption.sidecar import QUANTITIES, Channel, Layout, Specification
from ptychonnx.export.adoption.type_nodes import cast_in_graph
from ptychonnx.export.graph.editing import GraphTape, remove_metadata
from ptychonnx.export.graph.tensor_names import INPUT_NAME, OUTPUT_NAME
from ptychonnx.runtime.scan.orientation import ORIENTATIONS, Orientation

__all__ = ["orient_in_graph", "wrap"]

_TO_THE_START = -(2**31)
_PREFIX = "foreign."


def wrap(model: onnx.ModelProto, specification: Specification, batch: int | None) -> onnx.ModelProto:
    """A graph from amplitudes float32 [B, 1, N, N] to object parts float32 [B, N, N, 1, 2].

    * `model`: the foreign graph, in opset 18 or later; left as it is.
    * `batch`: the only batch size of the foreign graph; None if it takes any.
    """
    n, size = specification.n, batch or "batch"
    source, heads = foreign_names(model, specification)
    wrapped = ir.from_proto(onnx.compose.add_prefix(model, _PREFIX))
    graph = wrapped.graph
    inputs = {value.name: value for value in graph.inputs}
    outputs = {value.name: value for value in graph.outputs}
    foreign_input = inputs[_PREFIX + source]
    assert foreign_input.dtype is not None

    patterns = ir.val(INPUT_NAME, ir.DataType.FLOAT, [size, 1, n, n])
    before = GraphTape(graph, "before")
    preprocessed = _preprocess(before, patterns, specification)
    preprocessed = cast_in_graph(before, preprocessed, foreign_input.dtype.numpy())
    ir.convenience.replace_all_uses_with(foreign_input, preprocessed)
    graph.inputs.clear()
    graph.inputs.append(patterns)
    graph.insert_before(graph[0], before.nodes)

    after = GraphTape(graph, "after")
    parts: dict[str, ir.Value] = {}
    for name, channels in heads.items():
        output = outputs[_PREFIX + name]
        if output.dtype != ir.DataType.FLOAT:
            output = after.add("Cast", output, to=int(ir.DataType.FLOAT))
        parts |= _channels(after, output, specification.output.layout, channels)
    result = _convert_output(after, parts, specification)
    result.name, result.dtype, result.shape = OUTPUT_NAME, ir.DataType.FLOAT, ir.Shape([size, n, n, 1, 2])
    graph.outputs.clear()
    graph.outputs.append(result)
    graph.extend(after.nodes)
    return _without_traces(wrapped)


def _preprocess(tape: GraphTape, value: ir.Value, specification: Specification) -> ir.Value:
    value = orient_in_graph(
        tape, value, specification.input.orientation, keeps_first=specification.n % 2 == 0
    )
    *steps, _ = specification.resolved_steps()
    for name, argument, side in steps:
        value = STEPS[name].graph(tape, value, side, argument)
    match specification.input.layout:
        case "BNNC":
            return tape.add("Transpose", value, perm=[0, 2, 3, 1])
        case "BNN":
            return tape.add("Squeeze", value, tape.integers(1))
    return value


def _channels(
    tape: GraphTape, value: ir.Value, layout: Layout, channels: Sequence[Channel]
) -> dict[str, ir.Value]:
    """[B, 1, M, M] of each channel of one foreign output."""
    if layout == "BNN":
        value = tape.add("Unsqueeze", value, tape.integers(1))
    if layout == "BNNC":
        value = tape.add("Transpose", value, perm=[0, 3, 1, 2])
    if len(channels) == 1:
        return {channels[0]: value}
    return {
        channel: tape.slice(value, 1, number, number + 1)
        for number, channel in enumerate(channels)
        if channel in QUANTITIES
    }


def _convert_output(tape: GraphTape, parts: dict[str, ir.Value], specification: Specification) -> ir.Value:
    """Real and imaginary part of the object [B, N, N, 1, 2] from the foreign quantities [B, 1, M, M]."""
    geometry = patch_geometry(specification)
    for quantity in specification.output.steps:
        for name, argument in specification.output_steps(quantity, geometry.side):
            parts[quantity] = STEPS[name].graph(tape, parts[quantity], geometry.side, argument)
    real, imaginary = (
        _place(tape, orient_in_graph(tape, part, specification.output.orientation), geometry, specification.n)
        for part in _complex_parts(tape, parts)
    )
    factor = exit_wave_factor(specification)
    if factor is not None:
        real, imaginary = _multiply(tape, real, imaginary, factor)
    last = tape.integers(4)
    stacked = tape.add("Concat", *(tape.add("Unsqueeze", part, last) for part in (real, imaginary)), axis=4)
    return tape.add("Transpose", stacked, perm=[0, 2, 3, 1, 4])


def _complex_parts(tape: GraphTape, parts: dict[str, ir.Value]) -> tuple[ir.Value, ir.Value]:
    if "real" in parts:
        return parts["real"], parts["imag"]
    real, imaginary = tape.add("Cos", parts["phase"]), tape.add("Sin", parts["phase"])
    if "amplitude" in parts:
        real, imaginary = (tape.add("Mul", parts["amplitude"], part) for part in (real, imaginary))
    return real, imaginary


def _place(tape: GraphTape, value: ir.Value, geometry: PatchGeometry, n: int) -> ir.Value:
    """The central part of a patch in pixels of the scan, with zeros around it up to `n` pixels."""
    window, kept = geometry.window, geometry.kept
    if kept != geometry.side:
        value = crop_in_graph(tape, value, geometry.side, kept)
    if geometry.pixel != 1:
        centres = (kept - 1) / 2, (window - 1) / 2
        value = interpolate_in_graph(tape, value, kept, window, 1 / geometry.pixel, *centres)
    return value if window == n else pad_in_graph(tape, value, window, n)


def _multiply(
    tape: GraphTape, real: ir.Value, imaginary: ir.Value, factor: NDArray[np.complex64]
) -> tuple[ir.Value, ir.Value]:
    a, b = tape.constant(factor.real), tape.constant(factor.imag)
    products = [[tape.add("Mul", part, constant) for constant in (a, b)] for part in (real, imaginary)]
    return (tape.add("Sub", products[0][0], products[1][1]), tape.add("Add", products[0][1], products[1][0]))


def _without_traces(model: ir.Model) -> onnx.ModelProto:
    """Without metadata, documentation strings and the sizes that the foreign exporter noted."""
    remove_metadata(model, None)
    interface = {*model.graph.inputs, *model.graph.outputs}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for value in node.outputs:
            if value not in interface:
                value.shape = value.type = None
    return ir.to_proto(model)


def orient_in_graph(
    tape: GraphTape, value: ir.Value, orientation: Orientation, *, keeps_first: bool = False
) -> ir.Value:
    """A value [B, C, n, n] in another orientation about its centre.

    With `keeps_first`, the first row and column stay, as about the direct beam at [n // 2, n // 2] for an even n.
    """
    transposed, *flips = ORIENTATIONS[orientation]
    if transposed:
        value = tape.add("Transpose", value, perm=[0, 1, 3, 2])
    for axis, flipped in zip((2, 3), flips, strict=True):
        if flipped and keeps_first:
            first, others = tape.slice(value, axis, 0, 1), tape.slice(value, axis, -1, 0, -1)
            value = tape.add("Concat", first, others, axis=axis)
        elif flipped:
            value = tape.slice(value, axis, -1, _TO_THE_START, -1)
    return value
