"""The first difference between an artifact and its network: a layer of the network, or a node of the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.verification.engines import installed_engines, open_onnxruntime, open_values
from ptychonnx.train.run import LayerOutput

__all__ = ["difference_locator", "first_different_layer", "first_different_node"]

# Fraction of the tolerance. A wrong weight changes the sorted output of its layer less than the output of the network,
# while correct inner values agree to rounding.
_INSIDE = 0.1


def difference_locator(
    data: bytes, layers: Callable[..., Sequence[LayerOutput]], tolerance: float
) -> Callable[..., str | None]:
    """A function that describes where the run of a serialised graph first differs.

    It takes the short name of the engine, see `engines.installed_engines`, and the inputs. `layers` computes the
    outputs of the native network's layers, in the order of computation; the tolerance is relative.
    """

    def find(engine: str, *inputs: NDArray) -> str | None:
        if engine == "onnxruntime":
            values = list(open_values(data)(*inputs).values())
            name = first_different_layer(layers(*inputs), values, tolerance)
            return None if name is None else f"the first layer that differs is {name}"
        name = first_different_node(data, installed_engines()[engine], *inputs, tolerance=tolerance)
        return None if name is None else f"the first node that differs from onnxruntime's is {name}"

    return find


def first_different_layer(
    layers: Sequence[LayerOutput], values: Sequence[NDArray], tolerance: float
) -> str | None:
    """The first layer whose output is no value of the graph, and neither is that of any layer that depends on it.

    Layers are recognised by their sorted outputs, so neither names nor layouts matter. A correct layer may have no
    counterpart because passes fold layers into each other; then a layer that depends on it has one.

    Layers of the native network come after those that they read from; `values` are all values of the graph for the
    same input. None if every layer agrees or is followed by one that does.
    """
    known: dict[int, list[NDArray]] = {}
    for value in values:
        if np.issubdtype(value.dtype, np.floating):
            known.setdefault(value.size, []).append(np.sort(value, axis=None))

    # Backwards: layers that agree, and all layers that they depend on.
    proved: set[str] = set()
    different = None
    for layer in reversed(layers):
        if layer.name in proved or _agrees(layer.output, known, tolerance):
            earlier = [other.name for other in layers] if layer.after is None else layer.after
            proved.update((layer.name, *earlier))
            if layer.after is None:
                break
        else:
            different = layer.name
    return different


def _agrees(output: NDArray, known: dict[int, list[NDArray]], tolerance: float) -> bool:
    ordered = np.sort(output, axis=None)
    # A constant output identifies no layer.
    if not ordered.size or ordered[0] == ordered[-1]:
        return False
    allowed = _INSIDE * tolerance * float(np.abs(ordered).max())
    return any(np.abs(ordered - value).max() <= allowed for value in known.get(ordered.size, []))


def first_different_node(
    data: bytes, load: Callable[[bytes], Callable[..., NDArray]], *inputs: NDArray, tolerance: float
) -> str | None:
    """The first node at which another engine differs from onnxruntime.

    The graph is cut after a node and run in both engines; bisection finds the node, assuming that all later nodes
    differ too.

    `load`: function that loads a serialised graph in the other engine.
    Returns ``name (operator)``, or None if no cut differs.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(data))
    types = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    nodes = [
        node
        for node in model.graph.node
        if node.output[0] in types
        and types[node.output[0]].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]

    def differs(index: int) -> bool:
        cut = onnx.ModelProto()
        cut.CopyFrom(model)
        del cut.graph.output[:]
        cut.graph.output.append(types[nodes[index].output[0]])
        serialised = cut.SerializeToString()
        expected = open_onnxruntime(serialised)(*inputs)
        difference = np.abs(load(serialised)(*inputs) - expected).max()
        return not difference <= _INSIDE * tolerance * np.abs(expected).max()

    if not nodes or not differs(len(nodes) - 1):
        return None
    low, high = 0, len(nodes) - 1
    while low < high:
        middle = (low + high) // 2
        if differs(middle):
            high = middle
        else:
            low = middle + 1
    return f"{nodes[low].name} ({nodes[low].op_type})"
