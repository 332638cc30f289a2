"""Convolves the parts of a concatenation by themselves where a part then takes less."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ptychonnx.export.passes.convolution_attributes import Convolution, make_constant, read_convolution
from ptychonnx.export.passes.subpixel_convolution import is_worth_subpixels
from ptychonnx.export.passes.subpixel_head import is_worth_parities

__all__ = ["ConcatenationSplittingPass"]

logger = logging.getLogger(__name__)


class ConcatenationSplittingPass(ir.passes.InPlacePass):
    """``Conv(Concat(a, b))`` becomes ``Conv(a) + Conv(b)``, each with its part of the weights.

    Only where `SubpixelPass` or `SubpixelHeadPass` takes a part once it stands alone; parts that neither takes
    stay together. The concatenation must be of channels, of known numbers, and read by the convolution alone.
    Sums are taken in another order, so outputs differ by rounding (below 1e-6 of the largest).
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if not {"Concat", "Resize"} <= {node.op_type for node in model.graph}:
            return ir.passes.PassResult(model, modified=False)
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
        replaced = sum(_split(model.graph, node) for node in list(model.graph))
        return ir.passes.PassResult(model, modified=replaced > 0)


def _split(graph: ir.Graph, node: ir.Node) -> bool:
    layer = read_convolution(node)
    joined = node.inputs[0]
    concat = None if joined is None else joined.producer()
    if layer is None or joined is None or concat is None or concat.op_type != "Concat":
        return False
    if (
        len(joined.uses()) != 1
        or joined.is_graph_output()
        or concat.attributes.get_int("axis", 0) not in (1, -3)
    ):
        return False
    members = _members(concat.inputs)
    if members is None or len(members) == 1:
        return False
    alone = [member for member in members if _is_worth_it(layer, *member)]
    together = [member for member in members if member not in alone]
    if not alone:
        return False
    parts = [[part] for part in alone] + ([together] if together else [])
    label = node.outputs[0].name
    nodes: list[ir.Node] = []
    sums: list[ir.Value] = []
    for number, part in enumerate(parts):
        values = [value for value, _ in part]
        chosen = [channel for _, channels in part for channel in channels]
        weight = make_constant(graph, f"{label}.part_{number}", layer.weight[:, chosen])
        if len(values) > 1:
            nodes.append(ir.node("Concat", values, {"axis": 1}))
            values = [nodes[-1].outputs[0]]
        # The bias goes to the last part.
        bias = node.inputs[2:] if number == len(parts) - 1 else ()
        nodes.append(ir.node("Conv", [values[0], weight, *bias], dict(node.attributes)))
        sums.append(nodes[-1].outputs[0])
    for value in sums[1:]:
        nodes.append(ir.node("Add", [sums[0], value]))
        sums[0] = nodes[-1].outputs[0]
    ir.convenience.replace_nodes_and_values(
        graph, node, [node, concat], nodes, [node.outputs[0]], [nodes[-1].outputs[0]]
    )
    logger.debug("%s: %d parts convolved by themselves", label, len(parts))
    return True


def _members(values: Sequence[ir.Value | None]) -> list[tuple[ir.Value, range]] | None:
    """Each part with its channels; None if a number of channels is not known."""
    members, end = [], 0
    for value in values:
        channels = None if value is None or value.shape is None or len(value.shape) != 4 else value.shape[1]
        if value is None or not isinstance(channels, int):
            return None
        members.append((value, range(end, end + channels)))
        end += channels
    return members


def _is_worth_it(layer: Convolution, value: ir.Value, channels: range) -> bool:
    part = Convolution(
        layer.weight[:, channels.start : channels.stop], None, layer.pads, layer.strides, layer.dilations
    )
    return is_worth_subpixels(part, value) or is_worth_parities(part, value)
