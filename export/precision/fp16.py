"""Half precision: layers and the operators between them in float16, operators on the input in float32."""

from __future__ import annotations

import copy
from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ptychonnx.export.graph.opset import opset_of
from ptychonnx.export.precision.reducible_layers import Reduction, inferred_types

__all__ = ["half_precision"]

_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# Their output type depends on an attribute or on another input.
_NEVER = {"Cast", "CastLike"}
_HALF = "tensor(float16)"


def half_precision(model: onnx.ModelProto) -> Reduction:
    """Reduce convolutions and matrix products to float16.

    * Inputs, outputs and weights of a reduced layer are float16.
    * Any other operator computes in float16 if all values that it reads are float16 already, and in float32
      otherwise. The scale and the logarithm of the input, and sums with unreduced values, therefore stay in float32.
    * A value is cast once, before its first reader of the other type.

    Values between two float32 nodes are never rounded, and a constant with readers of both types exists in both
    (the converter of onnxruntime rounds both, and silently clips values that overflow).

    The CPU provider of onnxruntime computes float16 graphs in float32 and omits the roundings between nodes, so that
    nothing overflows. `Reduction.emulate` adds the roundings.

    `model`, from `with_named_nodes`, is left as it is.
    """
    types = inferred_types(model)
    layers = tuple(
        node.name
        for node in model.graph.node
        if node.op_type in _LAYERS
        and all(types.get(name) == TensorProto.FLOAT for name in node.input if name)
    )
    return Reduction(
        layers,
        build=lambda chosen: _render(model, types, chosen, emulated=False),
        emulate=lambda chosen: _render(model, types, chosen, emulated=True),
    )


def _half_nodes(model: onnx.ModelProto, types: dict[str, int], layers: Collection[str]) -> set[str]:
    constants = {tensor.name for tensor in model.graph.initializer}
    version = opset_of(model)
    nodes: set[str] = set()
    values: set[str] = set()
    for node in model.graph.node:
        read = [
            name
            for index, name in enumerate(node.input)
            if types.get(name) == TensorProto.FLOAT
            and name not in constants
            and _takes_half(node, index, version)
        ]
        follows = bool(read) and values.issuperset(read) and node.op_type not in _LAYERS | _NEVER
        if node.name in layers or (follows and _gives_half(node, version)):
            nodes.add(node.name)
            values.update(name for name in node.output if types.get(name) == TensorProto.FLOAT)
    return nodes


def _takes_half(node: onnx.NodeProto, index: int, version: int) -> bool:
    formal = onnx.defs.get_schema(node.op_type, version).inputs
    return _HALF in formal[min(index, len(formal) - 1)].types


def _gives_half(node: onnx.NodeProto, version: int) -> bool:
    formal = onnx.defs.get_schema(node.op_type, version).outputs
    # Shape and similar operators return integers for any input.
    return all(_HALF in output.types or "tensor(float)" not in output.types for output in formal)


def _render(
    model: onnx.ModelProto, types: dict[str, int], layers: Collection[str], *, emulated: bool
) -> onnx.ModelProto:
    """The graph with `layers` in float16, or, emulated, in float32 with a rounding after each such node."""
    half_nodes = _half_nodes(model, types, layers)
    rendered = copy.deepcopy(model)
    del rendered.graph.node[:], rendered.graph.value_info[:]
    rendering = _Rendering(model, rendered.graph, types, emulated)
    for node in model.graph.node:
        rendering.add(node, half=node.name in half_nodes)
    _remove_unused_constants(rendered.graph)
    return rendered


class _Rendering:
    """Nodes that are added to `graph` one by one, with casts wherever the precision changes."""

    def __init__(
        self, model: onnx.ModelProto, graph: onnx.GraphProto, types: dict[str, int], emulated: bool
    ) -> None:
        self._graph, self._types, self._emulated = graph, types, emulated
        self._version = opset_of(model)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._outputs = {value.name for value in graph.output}
        self._rounded: set[str] = set()  # values of the graph that are float16, or emulated
        self._copies: set[str] = set()

    def add(self, node: onnx.NodeProto, *, half: bool) -> None:
        new = copy.deepcopy(node)
        for index, name in enumerate(node.input):
            if self._types.get(name) == TensorProto.FLOAT:
                new.input[index] = self._name_in(name, half and _takes_half(node, index, self._version))
        halved = [name for name in node.output if half and self._types.get(name) == TensorProto.FLOAT]
        for index, name in enumerate(node.output):
            if name in halved and (self._emulated or name in self._outputs):
                new.output[index] = f"{name}_exact" if self._emulated else f"{name}_half"
        self._graph.node.append(new)
        for name in halved:
            if self._emulated:
                self._round_to(f"{name}_exact", name)
                self._rounded.add(name)
            elif name in self._outputs:
                self._cast(f"{name}_half", name, TensorProto.FLOAT)
                # Other readers may use the float16 value.
                self._copies.add(f"{name}_half")
            else:
                self._rounded.add(name)

    def _name_in(self, name: str, half: bool) -> str:
        """Name of the value in float16, or in float32; casts it if necessary."""
        if (name in self._rounded) == half or (self._emulated and not half):
            return name
        target = f"{name}_half" if half else f"{name}_float"
        if target not in self._copies:
            self._copies.add(target)
            if name in self._constants:
                constant = _half_constant(self._constants[name], target, self._emulated)
                self._graph.initializer.append(constant)
            elif half:
                self._round_to(name, target)
            else:
                self._cast(name, target, TensorProto.FLOAT)
        return target

    def _cast(self, source: str, target: str, kind: int) -> None:
        self._graph.node.append(helper.make_node("Cast", [source], [target], name=f"{target}_Cast", to=kind))

    def _round_to(self, source: str, target: str) -> None:
        if self._emulated:
            self._cast(source, f"{target}_16", TensorProto.FLOAT16)
            self._cast(f"{target}_16", target, TensorProto.FLOAT)
        else:
            self._cast(source, target, TensorProto.FLOAT16)


def _remove_unused_constants(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _half_constant(tensor: onnx.TensorProto, name: str, emulated: bool) -> onnx.TensorProto:
    with np.errstate(over="ignore", under="ignore"):
        values = numpy_helper.to_array(tensor).astype(np.float16)
    return numpy_helper.from_array(values.astype(np.float32) if emulated else values, name)
