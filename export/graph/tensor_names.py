"""Names of the inputs and the outputs of every graph of this project."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

__all__ = [
    "BEAM_NAMES",
    "INPUT_NAME",
    "OFFSETS_NAME",
    "OUTPUT_NAME",
    "name_inputs",
    "name_outputs",
    "rename_reads",
]

INPUT_NAME = "diffraction"
OFFSETS_NAME = "offsets"
OUTPUT_NAME = "object"

# Inputs of a general artifact that have defaults, see `ptychonnx.runtime.contract.BeamInputs`.
BEAM_NAMES = ("probe", "mask", "scale")


def rename_reads(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Let the nodes of a graph read one value instead of another."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def name_inputs(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Give each input of a graph its name again: exporters rename an input that the module returns as an output."""
    for value, name in zip(graph.input, names, strict=True):
        if value.name == name:
            continue
        rename_reads(graph, value.name, name)
        graph.node.append(onnx.helper.make_node("Identity", [name], [value.name], name=f"copy_of_{name}"))
        value.name = name


def name_outputs(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Give each output of a graph its name again: exporters and passes merge outputs that are equal into one name."""
    for value, name in zip(graph.output, names, strict=True):
        if value.name != name:
            graph.node.append(onnx.helper.make_node("Identity", [value.name], [name], name=f"copy_to_{name}"))
            value.name = name
