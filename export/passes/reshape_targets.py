"""Gives constant targets to `Reshape` nodes that compute theirs only to carry the batch along."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

__all__ = ["ConstantReshapePass"]

logger = logging.getLogger(__name__)


class ConstantReshapePass(ir.passes.InPlacePass):
    """A computed target becomes constant, with -1 for the one size that is not known.

    Exporters compute it by ``Shape``, ``Gather``, ``Cast`` and ``Concat``, which GPU providers leave to the CPU.
    Shape inference tells all sizes but the batch; the number of elements then tells the batch.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        computed = [
            node for node in model.graph if node.op_type == "Reshape" and _is_computed(node.inputs[1])
        ]
        if not computed:
            return ir.passes.PassResult(model, modified=False)
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
        return ir.passes.PassResult(model, modified=sum(_replace(model.graph, node) for node in computed) > 0)


def _is_computed(value: ir.Value | None) -> bool:
    return value is not None and value.producer() is not None


def _replace(graph: ir.Graph, node: ir.Node) -> bool:
    shape = node.outputs[0].shape
    if shape is None:
        logger.debug("%s: nothing is known of its result", node.name)
        return False
    target = [size if isinstance(size, int) else -1 for size in shape]
    # A size of 0 would mean "as before" in a target.
    if target.count(-1) > 1 or 0 in target:
        logger.debug("%s: not determined by the number of elements: %s", node.name, shape)
        return False
    name = f"{node.outputs[0].name}.target"
    constant = ir.val(name, const_value=ir.tensor(np.array(target, dtype=np.int64), name=name))
    graph.register_initializer(constant)
    node.replace_input_with(1, constant)
    return True
