"""Variants of a finished graph: raw detector counts as input, or a fixed batch size."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ptychonnx.export.graph.tensor_names import INPUT_NAME
from ptychonnx.runtime.errors import InputError

__all__ = ["AMPLITUDE_NAME", "counts_input", "fix_batch", "with_defaults"]

AMPLITUDE_NAME = "amplitude"


def counts_input(model: onnx.ModelProto, mask: NDArray[np.bool_] | None = None) -> onnx.ModelProto:
    """The graph with uint16 counts instead of amplitudes as input, and with mask and square root inside.

    Parameters
    ----------
    model
        With an input `INPUT_NAME`, float32 [batch, C, N, N], amplitudes; left as it is.
    mask
        bool [N, N], True for valid pixels; all are valid if None. Invalid pixels are set to 0.

    Returns
    -------
    The graph with ``Cast, [Mul,] Sqrt`` before it. The amplitude of a count is the same float32 square root that
    NumPy computes.

    Raises
    ------
    InputError
        If the mask has another shape, or no valid pixel.
    """
    variant = copy.deepcopy(model)
    graph = variant.graph
    (value,) = (value for value in graph.input if value.name == INPUT_NAME)
    size = [axis.dim_value for axis in value.type.tensor_type.shape.dim[-2:]]
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == INPUT_NAME:
                node.input[index] = AMPLITUDE_NAME
    value.type.tensor_type.elem_type = TensorProto.UINT16
    nodes = [helper.make_node("Cast", [INPUT_NAME], ["counts"], name="counts_Cast", to=TensorProto.FLOAT)]
    if any(entry.name == "mask" for entry in graph.input):
        nodes.append(helper.make_node("Mul", ["counts", "mask"], ["trusted"], name="counts_Mul"))
    elif mask is not None and not mask.all():
        if list(mask.shape) != size:
            raise InputError(f"the mask is {mask.shape}, expected {tuple(size)}")
        if not mask.any():
            raise InputError("the mask has no valid pixel, expected at least one")
        graph.initializer.append(numpy_helper.from_array(mask.astype(np.float32), "mask"))
        nodes.append(helper.make_node("Mul", ["counts", "mask"], ["trusted"], name="counts_Mul"))
    nodes.append(helper.make_node("Sqrt", [nodes[-1].output[0]], [AMPLITUDE_NAME], name="counts_Sqrt"))
    # Nodes are sorted topologically, so the new ones come first.
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    return variant


def with_defaults(model: onnx.ModelProto, defaults: Mapping[str, NDArray]) -> onnx.ModelProto:
    """The graph with defaults for inputs: initializers of the same name, which a caller may override.

    Added last, so that no pass takes them for constants.
    """
    variant = copy.deepcopy(model)
    for name, value in defaults.items():
        variant.graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
    return variant


def fix_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The graph for batches of a single size, for CUDA graphs and TensorRT.

    Parameters
    ----------
    model
        With a dynamic first axis of its inputs and output; left as it is.

    Raises
    ------
    InputError
        If the batch is not positive.
    """
    if batch < 1:
        raise InputError(f"batch is {batch}, expected at least 1")
    variant = copy.deepcopy(model)
    graph = variant.graph
    # Noted sizes of inner values could contradict the new batch; engines infer them.
    del graph.value_info[:]
    defaults = {tensor.name for tensor in graph.initializer}
    for value in (*graph.input, *graph.output):
        if value.name in defaults:
            continue
        value.type.tensor_type.shape.dim[0].dim_value = batch
    return variant
