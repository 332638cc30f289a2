"""The foreign graph in operators, types and batches that every engine runs."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ptychonnx.export.adoption.dft_products import replace_dft
from ptychonnx.export.adoption.foreign_model import in_portable_opset
from ptychonnx.export.adoption.foreign_network import DFT_AS_PRODUCTS, Foreign
from ptychonnx.export.adoption.numpy_reference import ForeignNetwork, run_of_graph
from ptychonnx.export.adoption.sidecar import Specification
from ptychonnx.export.adoption.type_nodes import has_half_precision, in_single_precision
from ptychonnx.export.graph.editing import add_constant, constant_array, infer_shapes, known_sizes
from ptychonnx.export.verification.verify import relative_difference
from ptychonnx.runtime.errors import InputError

__all__ = ["portable", "with_any_batch"]

# Largest relative difference between patterns together and one by one: engines sum in another order.
_EXACT = 2e-6
_log = logging.getLogger(__name__)

# Patterns on which a graph with a dynamic batch is compared with one pattern at a time.
_TOGETHER = 5


def portable(foreign: Foreign, specification: Specification, amplitudes: NDArray[np.float32]) -> Foreign:
    """The foreign network with a graph in single precision, in a common opset and without Fourier operators.

    How its author runs it stays as it is, except that a network in half precision is compared in single precision:
    engines round float16 differently, and by how much that matters on the amplitudes float32 [n, 1, N, N] is logged.

    Raises UnsupportedError if the graph cannot be converted.
    """
    changes = list(foreign.changes)
    model = in_single_precision(foreign.model)
    if model is not foreign.model:
        changes.append("single precision")
        if has_half_precision(foreign.model):
            single = replace(
                foreign,
                run=run_of_graph(model, foreign.source, list(foreign.heads)),
                dtype=np.dtype(np.float32) if foreign.dtype == np.float16 else foreign.dtype,
            )
            outputs = [network.between_steps(specification)(amplitudes) for network in (foreign, single)]
            _log.info(
                "%s: float16 becomes float32, which changes its output by up to %.1e of the largest",
                foreign.name,
                relative_difference(*outputs),
            )
            foreign = single
    model, transforms = replace_dft(in_portable_opset(model))
    if transforms:
        changes.append(DFT_AS_PRODUCTS)
    return replace(foreign, model=model, changes=tuple(changes))


def with_any_batch(
    foreign: Foreign, specification: Specification, amplitudes: NDArray[np.float32]
) -> Foreign:
    """A network that takes any batch, where running it on several patterns together changes nothing.

    A network of one pattern at a time becomes dynamic if patterns together and one by one give the same. A network
    that says it takes any batch, but does not run on several patterns or lets them depend on each other, is run one
    by one. Another fixed batch stays. Amplitudes float32 [n, 1, N, N] are tried.
    """
    if foreign.batch not in (None, 1):
        return foreign
    one_by_one = replace(foreign, run_batch=1).between_steps(specification)
    patterns = amplitudes.take(range(_TOGETHER), axis=0, mode="wrap")
    # Patterns of different flux, so that an operation across patterns shows.
    patterns = patterns * np.array([1, 3, 0.3, 0, 1], np.float32).reshape(-1, 1, 1, 1)
    if foreign.batch is None:
        difference = _difference(foreign, specification, one_by_one, patterns)
        if difference is not None and difference <= _EXACT:
            return foreign
        reason = "does not run on" if difference is None else f"differs by {difference:.1e} on"
        _log.warning("%s %s several patterns together and is run one by one", foreign.name, reason)
        foreign = replace(foreign, run_batch=1, batch=1)
    model = _with_dynamic_batch(foreign.model)
    try:
        run = run_of_graph(model, foreign.source, list(foreign.heads))
    except InputError:
        return foreign
    dynamic = replace(foreign, run=run, exact_run=None, run_batch=None)
    difference = _difference(dynamic, specification, one_by_one, patterns)
    if difference is None or difference > _EXACT:
        return foreign
    _log.info(
        "batch: from 1 to any; %d patterns together and one by one differ by at most %.1e of the largest output",
        len(patterns),
        difference,
    )
    return replace(foreign, model=model, batch=None, changes=(*foreign.changes, "dynamic batch"))


def _difference(
    foreign: Foreign, specification: Specification, one_by_one: ForeignNetwork, patterns: NDArray[np.float32]
) -> float | None:
    """Largest relative difference between patterns together and one by one; None if they do not run together."""
    try:
        together = foreign.between_steps(specification)(patterns)
        return relative_difference(together, one_by_one(patterns))
    except InputError:
        return None


def _with_dynamic_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph whose batch is 1, with a dynamic batch instead; whether it is right must be shown by running it.

    Shapes noted by the exporter are dropped, and constant targets of Reshape that begin with the batch copy it from
    their input.
    """
    graph = ir.from_proto(model)
    infer_shapes(graph)
    for node in graph.graph:
        if node.op_type != "Reshape" or node.attributes.get_int("allowzero", 0):
            continue
        target, sizes = constant_array(node.inputs[1]), known_sizes(node.inputs[0])
        if target is not None and sizes and [*target[:1]] == sizes[:1] == [1]:
            name = f"{node.outputs[0].name}.batched_shape"
            shape = add_constant(graph.graph, name, np.array([0, *target[1:]], np.int64))
            node.replace_input_with(1, shape)
    for value in (*graph.graph.inputs, *graph.graph.outputs):
        if value.shape is not None and len(value.shape):
            value.shape = ir.Shape(["batch", *list(value.shape)[1:]])
    for node in ir.traversal.RecursiveGraphIterator(graph.graph):
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    return ir.to_proto(graph)
