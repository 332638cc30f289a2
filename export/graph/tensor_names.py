"""Names of the inputs and the outputs of every graph of this project."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

__all__ = ["BEAM_NAMES", "INPUT_NAME", "OFFSETS_NAME", "OUTPUT_NAME", "name_inputs", "name_outputs"]

INPUT_NAME = "diffraction"
OFFSETS_NAME = "offsets"
OUTPUT_NAME = "object"

# Inputs of a general artifact that have defaults, see `ptychonnx.runtime.contract.BeamInputs`.
BEAM_NAMES = ("probe", "mask", "scale")


def name_inputs(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Give each input of a graph its name again: exporters rename an input that the module returns as an output."""
    for value, name in zip(graph.input, names, strict=True):
        if value.name == name:
            continue
        for node in graph.node:
            node.input[:] = [name if one == value.name else one for one in node.input]
        graph.node.append(onnx.helper.make_node("Identity", [name], [value.name], name=f"copy_of_{name}"))
        value.name = name


def name_outputs(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Give each output of a graph its name again: exporters and passes merge outputs that are equal into one name.

    `names`: unique, in order.
    """
    for value, name in zip(graph.output, names, strict=True):
        if value.name != name:
            graph.node.append(onnx.helper.make_node("Identity", [value.name], [name], name=f"copy_to_{name}"))
            value.name = name
