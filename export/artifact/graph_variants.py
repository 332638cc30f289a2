"""Variants of a finished graph: raw detector counts as input, any number of probe modes, or a fixed batch size."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ptychonnx.export.graph.tensor_names import INPUT_NAME, rename_reads
from ptychonnx.runtime.contract import MODES_AXIS
from ptychonnx.runtime.errors import InputError

__all__ = ["AMPLITUDE_NAME", "TRACED_MODES", "any_modes", "counts_input", "fix_batch", "with_defaults"]

AMPLITUDE_NAME = "amplitude"

# Probe modes of a graph that `any_modes` can change: no other axis of a network has this length next to the batch.
TRACED_MODES = 3


def counts_input(model: onnx.ModelProto, mask: NDArray[np.bool_] | None = None) -> onnx.ModelProto:
    """The graph with ``Cast, [Mul,] Sqrt`` before it, so that its input are uint16 counts instead of amplitudes.

    Pixels where the mask bool [N, N] is False are set to 0. The amplitude of a count is the same float32 square root
    that NumPy computes. `model` is left as it is.

    Raises InputError if the mask has another shape, or no valid pixel.
    """
    variant = copy.deepcopy(model)
    graph = variant.graph
    (value,) = (value for value in graph.input if value.name == INPUT_NAME)
    size = [axis.dim_value for axis in value.type.tensor_type.shape.dim[-2:]]
    rename_reads(graph, INPUT_NAME, AMPLITUDE_NAME)
    value.type.tensor_type.elem_type = TensorProto.UINT16
    nodes = [helper.make_node("Cast", [INPUT_NAME], ["counts"], name="counts_Cast", to=TensorProto.FLOAT)]
    takes_mask = any(entry.name == "mask" for entry in graph.input)
    is_masked = takes_mask or (mask is not None and not mask.all())
    if mask is not None and is_masked and not takes_mask:
        if list(mask.shape) != size:
            raise InputError(f"the mask is {mask.shape}, expected {tuple(size)}")
        if not mask.any():
            raise InputError("the mask has no valid pixel, expected at least one")
        graph.initializer.append(numpy_helper.from_array(mask.astype(np.float32), "mask"))
    if is_masked:
        nodes.append(helper.make_node("Mul", ["counts", "mask"], ["trusted"], name="counts_Mul"))
    nodes.append(helper.make_node("Sqrt", [nodes[-1].output[0]], [AMPLITUDE_NAME], name="counts_Sqrt"))
    _insert_first(graph, nodes)
    return variant


def _insert_first(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Nodes are sorted topologically, so new ones at the input come first."""
    nodes = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def with_defaults(model: onnx.ModelProto, defaults: Mapping[str, NDArray]) -> onnx.ModelProto:
    """The graph with defaults for inputs: initializers of the same name, which a caller may override.

    Added last, so that no pass takes them for constants.
    """
    variant = copy.deepcopy(model)
    for name, value in defaults.items():
        variant.graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
    return variant


def any_modes(model: onnx.ModelProto, probe: str) -> onnx.ModelProto:
    """The graph for any number of probe modes, which was converted with `TRACED_MODES` of them.

    Exit waves [batch, modes, N, 2, N] are the only values with two unknown sizes. Their shape is computed from that of
    the probe once a call; every other ``Reshape`` gets the modes by the number of elements.

    `model`, with an input of the name `probe` float32 [modes, N, N, 2], is left as it is.
    """
    variant = copy.deepcopy(model)
    graph = variant.graph
    (value,) = (value for value in graph.input if value.name == probe)
    modes, *rest = value.type.tensor_type.shape.dim
    modes.dim_param = MODES_AXIS
    size = rest[0].dim_value
    # Noted sizes of inner values would contradict the probe; engines infer them.
    del graph.value_info[:]
    waves = [-1, TRACED_MODES, size, 2, size]
    targets = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in graph.initializer}
    for node in graph.node:
        target = targets.get(node.input[1]) if node.op_type == "Reshape" else None
        if target == waves:
            node.input[1] = "waves_shape"
        elif target and TRACED_MODES in target and -1 not in target:
            name = f"{node.input[1]}_any_modes"
            if name not in targets:
                free = [-1 if axis == TRACED_MODES else axis for axis in target]
                graph.initializer.append(numpy_helper.from_array(np.array(free), name))
                targets[name] = free
            node.input[1] = name
    for name, axes in (("waves_batch", [-1]), ("waves_image", [size, 2, size])):
        graph.initializer.append(numpy_helper.from_array(np.array(axes), name))
    parts = ["waves_batch", "waves_modes", "waves_image"]
    shape = helper.make_node("Shape", [probe], ["waves_modes"], name="waves_Shape", start=0, end=1)
    concat = helper.make_node("Concat", parts, ["waves_shape"], name="waves_Concat", axis=0)
    _insert_first(graph, [shape, concat])
    return variant


def fix_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The graph for batches of a single size, for CUDA graphs and TensorRT.

    Raises InputError if the batch is not positive.

    `model`, with a dynamic first axis of its inputs and output, is left as it is.
    """
    if batch < 1:
        raise InputError(f"batch is {batch}, expected at least 1")
    variant = copy.deepcopy(model)
    graph = variant.graph
    # Noted sizes of inner values could contradict the new batch; engines infer them.
    del graph.value_info[:]
    defaults = {tensor.name for tensor in graph.initializer}
    for value in (*graph.input, *graph.output):
        if value.name not in defaults:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    return variant
