"""Variants of a finished graph: raw detector counts as its input, or a batch of one fixed size."""

from __future__ import annotations

import copy

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ptychonnx.export.lowering.converted_graph import INPUT_NAME
from ptychonnx.runtime.errors import InputError

__all__ = ["AMPLITUDE_NAME", "counts_input", "fix_batch"]

AMPLITUDE_NAME = "amplitude"


def counts_input(model: onnx.ModelProto, mask: NDArray[np.bool_] | None = None) -> onnx.ModelProto:
    """A graph that takes uint16 counts instead of amplitudes, with mask and square root inside.

    Parameters
    ----------
    model
        With an input `INPUT_NAME`, float32 [batch, C, N, N], amplitudes; left as it is.
    mask
        bool [N, N], True = trust. Other pixels count as 0, whatever the detector says. None trusts all.

    Returns
    -------
    The graph with ``Cast, [Mul,] Sqrt`` in front. The amplitude of a count is the float32 square root that
    NumPy gives too, so nothing is lost against amplitudes made elsewhere.

    Raises
    ------
    InputError
        If the mask has another shape, or trusts no pixel.
    """
    made = copy.deepcopy(model)
    graph = made.graph
    (value,) = (given for given in graph.input if given.name == INPUT_NAME)
    size = [axis.dim_value for axis in value.type.tensor_type.shape.dim[-2:]]
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == INPUT_NAME:
                node.input[index] = AMPLITUDE_NAME
    value.type.tensor_type.elem_type = TensorProto.UINT16
    nodes = [helper.make_node("Cast", [INPUT_NAME], ["counts"], name="counts_Cast", to=TensorProto.FLOAT)]
    if mask is not None and not mask.all():
        if list(mask.shape) != size:
            raise InputError(f"the mask is {mask.shape}, expected {tuple(size)}")
        if not mask.any():
            raise InputError("the mask trusts no pixel, expected one at least")
        graph.initializer.append(numpy_helper.from_array(mask.astype(np.float32), "mask"))
        nodes.append(helper.make_node("Mul", ["counts", "mask"], ["trusted"], name="counts_Mul"))
    nodes.append(helper.make_node("Sqrt", [nodes[-1].output[0]], [AMPLITUDE_NAME], name="counts_Sqrt"))
    # Where the input is used decides where the new nodes stand: they come first.
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    return made


def fix_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A graph that takes batches of one size only, as CUDA graphs and TensorRT want it.

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
    made = copy.deepcopy(model)
    graph = made.graph
    # Sizes of values inside are left to whoever loads the graph; none may contradict the new batch.
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    return made
