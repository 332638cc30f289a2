"""Convolve the parts of a concatenation separately where that makes a part cheaper."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import onnx_ir as ir

from ptychonnx.export.graph.editing import GraphTape, known_sizes, sole_producer
from ptychonnx.export.passes.convolution_attributes import Convolution, read_convolution
from ptychonnx.export.passes.node_rewriting import NodeRewritePass
from ptychonnx.export.passes.subpixel_convolution import becomes_subpixel_convolution
from ptychonnx.export.passes.subpixel_head import becomes_subpixel_head

__all__ = ["ConcatenationSplittingPass"]

logger = logging.getLogger(__name__)


class ConcatenationSplittingPass(NodeRewritePass):
    """``Conv(Concat(a, b))`` becomes ``Conv(a) + Conv(b)``, each with its part of the weights.

    This is done only if `SubpixelConvolutionPass` or `SubpixelHeadPass` can then rewrite a part; parts that neither
    can rewrite stay together. Channels must be concatenated, their numbers known, and only the convolution may read
    the concatenation.
    Sums are taken in another order, so outputs differ by rounding (below 1e-6 of the largest).
    """

    operators = frozenset({"Concat", "Resize"})

    def rewrite(self, graph: ir.Graph, node: ir.Node) -> bool:
        layer = read_convolution(node)
        concat = _concatenation(node.inputs[0]) if layer is not None else None
        members = None if concat is None else _members(concat.inputs)
        if layer is None or concat is None or members is None or len(members) == 1:
            return False
        alone = [member for member in members if _becomes_cheaper(layer, *member)]
        together = [member for member in members if member not in alone]
        if not alone:
            return False
        parts = [[part] for part in alone] + ([together] if together else [])
        target = node.outputs[0]
        tape = GraphTape(graph, target.name)
        convolved = []
        for number, part in enumerate(parts):
            values = [value for value, _ in part]
            chosen = [channel for _, channels in part for channel in channels]
            weight = tape.constant(layer.weight[:, chosen], name=f"part_{number}")
            image = values[0] if len(values) == 1 else tape.add("Concat", *values, axis=1)
            # The last part gets the bias.
            bias = node.inputs[2:] if number == len(parts) - 1 else ()
            convolved.append(tape.op("Conv", [image, weight, *bias], dict(node.attributes)))
        functools.reduce(partial(tape.add, "Add"), convolved)
        logger.debug("%s: %d parts convolved separately", target.name, len(parts))
        tape.replace([node, concat], target)
        return True


def _concatenation(value: ir.Value | None) -> ir.Node | None:
    """The concatenation of channels that computes a value, if the value is read once."""
    node = sole_producer(value, {"Concat"})
    return node if node is not None and node.attributes.get_int("axis", 0) in (1, -3) else None


def _members(values: Sequence[ir.Value | None]) -> list[tuple[ir.Value, range]] | None:
    """Every part with its channels; None if a number of channels is unknown."""
    members, end = [], 0
    for value in values:
        sizes = known_sizes(value)
        if value is None or sizes is None or len(sizes) != 4 or sizes[1] < 0:
            return None
        members.append((value, range(end, end + sizes[1])))
        end += sizes[1]
    return members


def _becomes_cheaper(layer: Convolution, value: ir.Value, channels: range) -> bool:
    part = replace(layer, weight=layer.weight[:, channels.start : channels.stop], bias=None)
    return becomes_subpixel_convolution(part, value) or becomes_subpixel_head(part, value)
