"""The foreign graph between what our contract takes and what it gives."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper

from ptychonnx.export.adoption.orientation_nodes import orient_image_in_graph, orient_pattern_in_graph
from ptychonnx.export.adoption.preprocessing import STEPS
from ptychonnx.export.adoption.sidecar import Layout, Specification
from ptychonnx.export.graph.builder import Builder
from ptychonnx.export.lowering.converted_graph import INPUT_NAME, OUTPUT_NAME
from ptychonnx.runtime.errors import InputError

__all__ = ["exit_wave_factor", "foreign_names", "patch_sides", "wrap"]

_FOREIGN = "foreign."
# Where the illumination is weaker than this part of its maximum, an exit wave says little of the object.
_DARK = 1e-3


def foreign_names(model: onnx.ModelProto, specification: Specification) -> tuple[str, dict[str, str]]:
    """Input of the foreign graph, and its output for each channel (the same one if it holds several).

    Raises
    ------
    InputError
        If the graph has no such input or output, or several where the specification names none.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in constants]
    outputs = [value.name for value in model.graph.output]
    if len(inputs) != 1 or specification.input.name not in (None, *inputs):
        wanted_input = specification.input.name or "of any name"
        raise InputError(f"the graph takes {inputs}, expected one input {wanted_input}")
    wanted = dict(specification.output.names)
    if not wanted:
        if len(outputs) != 1:
            raise InputError(f"the graph gives {outputs}, expected output.names, one for each channel")
        wanted = dict.fromkeys(specification.output.channels, outputs[0])
    for channel, output in wanted.items():
        if output not in outputs:
            raise InputError(f"the graph gives {outputs}, the {channel} is said to be {output!r}")
    return inputs[0], {str(channel): output for channel, output in wanted.items()}


def patch_sides(specification: Specification) -> tuple[int, int]:
    """(side of the network's patterns, side of the window they cover in pixels of the scan).

    Cropping a detector makes the pixels of the object larger and leaves the window; rebinning it makes the
    window smaller and leaves the pixels.

    Raises
    ------
    InputError
        If the window is less than half of the pattern's.
    """
    *steps, (_, _, side) = specification.resolved_steps()
    rebinned = int(np.prod([argument for name, argument, _ in steps if name.startswith("rebin")]))
    window = specification.n // rebinned
    if 2 * window < specification.n:
        raise InputError(f"rebinning by {rebinned} leaves less than half of a window, expected 2 at most")
    return side, window


def exit_wave_factor(specification: Specification) -> NDArray[np.complex64] | None:
    """What an exit wave [N, N] is multiplied with to give the object; None for an object.

    ``conj(P) / max(|P|^2, 0.001 max |P|^2)``.
    """
    output = specification.output
    if output.probe is None:
        return None
    probe = specification.read_array(output.probe, (specification.n,) * 2, np.complex64)
    power = np.abs(probe) ** 2
    if not power.max() > 0:
        raise InputError(f"{output.probe}: is dark everywhere, expected a probe")
    return (probe.conj() / np.maximum(power, _DARK * power.max())).astype(np.complex64)


def wrap(model: onnx.ModelProto, specification: Specification, batch: int | None) -> onnx.ModelProto:
    """A graph from amplitudes float32 [B, 1, N, N] to object parts float32 [B, N, N, 1, 2].

    Parameters
    ----------
    model
        The foreign graph, in an opset of 18 or later; left as it is.
    batch
        Of the foreign graph; None if it takes any.
    """
    n = specification.n
    source, channels = foreign_names(model, specification)
    foreign = compose.add_prefix(model, _FOREIGN)
    size = batch or "batch"
    before, after = Builder("before"), Builder("after")

    value = orient_pattern_in_graph(before, INPUT_NAME, n, specification.input.orientation)
    *steps, (_, _, side) = specification.resolved_steps()
    for name, argument, current in steps:
        value = STEPS[name].graph(before, value, current, argument)
    value = _from_ours(before, value, specification.input.layout)
    before.nodes.append(helper.make_node("Identity", [value], [_FOREIGN + source], name="before.Identity"))

    order = specification.output.channels
    parts = {
        channel: _to_ours(
            after,
            _FOREIGN + output,
            specification.output.layout,
            order.index(channel) if order else None,  # type: ignore[arg-type]
        )
        for channel, output in channels.items()
    }
    real, imaginary = _complex_parts(after, parts)
    _, window = patch_sides(specification)
    factor = exit_wave_factor(specification)
    placed = []
    for part in (real, imaginary):
        part = orient_image_in_graph(after, part, specification.output.orientation)
        placed.append(_place(after, part, side, window, n))
    real, imaginary = placed
    if factor is not None:
        real, imaginary = _multiply(after, real, imaginary, factor)
    last = after.constant([4], np.int64)
    stacked = after.add("Concat", *(after.add("Unsqueeze", part, last) for part in (real, imaginary)), axis=4)
    after.nodes.append(
        helper.make_node("Transpose", [stacked], [OUTPUT_NAME], perm=[0, 2, 3, 1, 4], name="out")
    )

    graph = helper.make_graph(
        [*before.nodes, *foreign.graph.node, *after.nodes],
        "network",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [size, 1, n, n])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [size, n, n, 1, 2])],
        [*before.initializers, *foreign.graph.initializer, *after.initializers],
    )
    made = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    made.producer_name = "ptychonnx"
    for node in made.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    return made


def _from_ours(builder: Builder, value: str, layout: Layout) -> str:
    if layout == "BNNC":
        return builder.add("Transpose", value, perm=[0, 2, 3, 1])
    return builder.add("Squeeze", value, builder.constant([1], np.int64)) if layout == "BNN" else value


def _to_ours(builder: Builder, value: str, layout: Layout, channel: int | None) -> str:
    """[B, 1, M, M] of one channel."""
    if layout == "BNN":
        return builder.add("Unsqueeze", value, builder.constant([1], np.int64))
    if layout == "BNNC":
        value = builder.add("Transpose", value, perm=[0, 3, 1, 2])
    return value if channel is None else builder.cut(value, 1, channel, channel + 1)


def _complex_parts(builder: Builder, parts: dict[str, str]) -> tuple[str, str]:
    if "real" in parts:
        return parts["real"], parts["imag"]
    real, imaginary = builder.add("Cos", parts["phase"]), builder.add("Sin", parts["phase"])
    if "amplitude" in parts:
        real, imaginary = (builder.add("Mul", parts["amplitude"], part) for part in (real, imaginary))
    return real, imaginary


def _place(builder: Builder, value: str, side: int, window: int, n: int) -> str:
    """A patch of `side` pixels that covers `window` pixels, on `n` pixels with zeros around."""
    if side != window:
        scales = builder.constant([1, 1, window / side, window / side])
        value = builder.add(
            "Resize", value, "", scales, mode="linear", coordinate_transformation_mode="half_pixel"
        )
    if window != n:
        start = n // 2 - window // 2
        end = n - window - start
        pads = builder.constant([0, 0, start, start, 0, 0, end, end], np.int64)
        value = builder.add("Pad", value, pads)
    return value


def _multiply(builder: Builder, real: str, imaginary: str, factor: NDArray[np.complex64]) -> tuple[str, str]:
    a, b = builder.constant(factor.real), builder.constant(factor.imag)
    products = [[builder.add("Mul", part, constant) for constant in (a, b)] for part in (real, imaginary)]
    return (
        builder.add("Sub", products[0][0], products[1][1]),
        builder.add("Add", products[0][1], products[1][0]),
    )
