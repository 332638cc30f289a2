"""Removes transpositions between channel layouts, and joins the `Resize` nodes that then meet."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir

from ptychonnx.export.passes.nearest_resize import make_resize

__all__ = ["TransposeCancellationPass"]

logger = logging.getLogger(__name__)


class TransposeCancellationPass(ir.passes.InPlacePass):
    """Three rules, applied until none fits; nothing is computed differently.

    * ``Resize, Transpose`` becomes ``Transpose, Resize`` with the scales in the new order: fewer pixels are
      moved.
    * ``Transpose, Transpose`` becomes one, or none if they cancel.
    * ``Resize, Resize`` by whole factors becomes one.

    A value that is read elsewhere too, or is an output of the graph, is left as it is.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        while any(_rewrite(model.graph, node) for node in model.graph):
            modified = True
        return ir.passes.PassResult(model, modified=modified)


def _rewrite(graph: ir.Graph, node: ir.Node) -> bool:
    if node.op_type not in ("Transpose", "Resize") or node.inputs[0] is None:
        return False
    previous = node.inputs[0].producer()
    kinds = (previous.op_type if previous else None, node.op_type)
    if kinds[1] == "Transpose" and kinds[0] not in ("Transpose", "Resize"):
        return _drop_identity(graph, node)
    if kinds not in (("Resize", "Transpose"), ("Transpose", "Transpose"), ("Resize", "Resize")):
        return False
    assert previous is not None
    shared = len(previous.outputs[0].uses()) != 1 or previous.outputs[0].is_graph_output()
    source = previous.inputs[0]
    if source is None or (shared and kinds != ("Transpose", "Transpose")):
        return False
    new: list[ir.Node]
    if kinds == ("Transpose", "Transpose"):
        first, second = _permutation(previous), _permutation(node)
        new = [ir.node("Transpose", [source], {"perm": [first[axis] for axis in second]})]
    else:
        factors = _factors(previous)
        if factors is None:
            return False
        name = f"{node.outputs[0].name}.joined"
        if node.op_type == "Transpose":
            permutation = _permutation(node)
            moved = ir.node("Transpose", [source], {"perm": permutation})
            ordered = tuple(factors[axis] for axis in permutation)
            new = [moved, make_resize(graph, moved.outputs[0], ordered, name)]
        else:
            further = _factors(node)
            if further is None:
                return False
            product = tuple(one * other for one, other in zip(factors, further, strict=True))
            new = [make_resize(graph, source, product, name)]
    old = [node] if shared else [node, previous]
    logger.debug("%s: %s, %s joined", node.outputs[0].name, *kinds)
    ir.convenience.replace_nodes_and_values(graph, node, old, new, [node.outputs[0]], [new[-1].outputs[0]])
    if new[-1].op_type == "Transpose":
        _drop_identity(graph, new[-1])
    return True


def _drop_identity(graph: ir.Graph, node: ir.Node) -> bool:
    """Remove a transposition that moves nothing, unless it gives an output of the graph its name."""
    permutation = _permutation(node)
    source, target = node.inputs[0], node.outputs[0]
    if source is None or permutation != sorted(permutation) or target.is_graph_output():
        return False
    ir.convenience.replace_all_uses_with(target, source)
    graph.remove(node, safe=True)
    return True


def _permutation(node: ir.Node) -> list[int]:
    if "perm" in node.attributes:
        return list(node.attributes["perm"].as_ints())
    source = node.inputs[0]
    assert source is not None
    assert source.shape is not None, "a transposition without perm needs a known rank"
    return list(range(len(source.shape)))[::-1]


def _factors(node: ir.Node) -> tuple[int, ...] | None:
    """Whole factors of a nearest-neighbour Resize as `make_resize` writes it; None for any other."""
    kinds = {
        name: attribute.as_string()
        for name, attribute in node.attributes.items()
        if attribute.type == ir.AttributeType.STRING
    }
    expected = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if kinds != expected or len(node.inputs) != 3 or node.inputs[2] is None:
        return None
    scales = ir.convenience.get_const_tensor(node.inputs[2])
    if scales is None:
        return None
    values = scales.numpy()
    return tuple(int(value) for value in values) if np.array_equal(values, np.rint(values)) else None
