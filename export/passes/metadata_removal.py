"""Remove traces of the machine that exported a graph, and make names independent of the process."""

from __future__ import annotations

import re

import onnx_ir as ir

from ptychonnx.export.graph.editing import remove_metadata

__all__ = ["BATCH", "MetadataRemovalPass"]

BATCH = "batch"
# Inference servers of 2025 read up to this version.
_IR_VERSION = 10
# Name of a parameter in a framework: words and dots, without slashes and without a counter of the exporter.
_KEPT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)+")
# Name that this pass gave a value: a graph may be cleaned twice, with constants instead of inputs.
_GIVEN_NAME = re.compile(r"[A-Za-z]+_\d+\.(input|output)_\d+_*")


class MetadataRemovalPass(ir.passes.InPlacePass):
    """The last pass: afterwards a graph depends only on what it computes, not on where it was exported.

    * Metadata and documentation strings of model, graph, values and nodes are removed.
    * The dynamic first axis is called ``batch``; sizes of values inside the graph are left to shape
      inference.
    * Nodes and inner values are numbered by operator; initialisers keep a dotted parameter name, or are
      named after the first node that reads them. Inputs and outputs keep their names.
    * Producer and IR version are set; unused imports of operator sets are removed.
    """

    def __init__(self, producer_version: str) -> None:
        super().__init__()
        self._producer_version = producer_version

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        remove_metadata(model, self._producer_version)
        graph = model.graph
        model.ir_version = min(model.ir_version or _IR_VERSION, _IR_VERSION)
        for value in (*graph.inputs, *graph.outputs):
            # An axis such as 2 * batch keeps its name.
            if value.shape and not isinstance(value.shape[0], int) and "*" not in str(value.shape[0]):
                value.shape = ir.Shape([BATCH, *list(value.shape)[1:]])
        _rename(graph)
        used = {node.domain for node in ir.traversal.RecursiveGraphIterator(graph)} | {""}
        for domain in set(model.opset_imports) - used:
            del model.opset_imports[domain]
        return ir.passes.PassResult(model, modified=True)


def _rename(graph: ir.Graph) -> None:
    interface = {*graph.inputs, *graph.outputs}
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
    taken = {value.name for value in interface}
    for number, node in enumerate(ir.traversal.RecursiveGraphIterator(graph)):
        node.name = f"{node.op_type}_{number}"
        for index, value in enumerate(node.outputs):
            value.metadata_props.clear()
            value.doc_string = None
            if value not in interface:
                value.name = f"{node.name}.output_{index}"
                value.shape, value.type = None, None
    for value in list(graph.initializers.values()):
        name = value.name or ""
        if value in interface or (_KEPT_NAME.fullmatch(name) and not _GIVEN_NAME.fullmatch(name)):
            continue
        reader = next(iter(value.uses()), None)
        name = f"{reader.node.name}.input_{reader.idx}" if reader else "unused"
        while name in taken:
            name += "_"
        taken.add(name)
        value.name = name
    for value in graph.initializers.values():
        if (tensor := value.const_value) is not None:
            # A new tensor, since the old one has its own name, documentation string and metadata.
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)
