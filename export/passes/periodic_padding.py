"""Periodic padding as a concatenation, which every engine has."""

from __future__ import annotations

import onnx_ir as ir

from ptychonnx.export.graph.editing import GraphTape, constant_array
from ptychonnx.export.passes.node_rewriting import NodeRewritePass

__all__ = ["PeriodicPaddingPass"]

_TO_THE_END = 2**31 - 1


class PeriodicPaddingPass(NodeRewritePass):
    """``Pad`` of mode ``wrap`` becomes ``Concat`` of the end, the tensor and its beginning, one axis after the other.

    OpenVINO has no such mode, which convolutions with periodic boundaries need.
    """

    operators = frozenset({"Pad"})

    def rewrite(self, graph: ir.Graph, node: ir.Node) -> bool:
        if node.op_type != "Pad" or node.attributes.get_string("mode") != "wrap":
            return False
        value, pads = node.inputs[0], constant_array(node.inputs[1])
        if value is None or value.shape is None or pads is None:
            return False
        axes = constant_array(node.inputs[3]) if len(node.inputs) > 3 else range(len(value.shape))
        if axes is None:
            return False
        widths = [
            (int(axis) % len(value.shape), int(before), int(after))
            for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True)
            if before or after
        ]
        sizes = [value.shape[axis] for axis, _, _ in widths]
        if not widths or not all(
            isinstance(size, int) and 0 <= before <= size and 0 <= after <= size
            for size, (_, before, after) in zip(sizes, widths, strict=True)
        ):
            return False
        tape = GraphTape(graph, node.outputs[0].name)
        for axis, before, after in widths:
            parts = [value]
            if before:
                parts.insert(0, tape.slice(value, axis, -before, _TO_THE_END))
            if after:
                parts.append(tape.slice(value, axis, 0, after))
            value = tape.add("Concat", *parts, axis=axis)
        tape.replace([node], node.outputs[0])
        return True
