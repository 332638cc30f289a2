"""Artifacts to deploy, and files to compare with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ptychonnx.export.deploy.deployable import Deployable, read_artifacts
from ptychonnx.runtime.contract import Contract
from tests.export.small_network import N, contract_of, small_network, write_artifact

GOLDEN = Path(__file__).with_name("golden")


def artifact(path: Path, **changes: object) -> Path:
    """A dynamic float32 artifact; `changes` of its contract."""
    return _write(path, small_network(), contract_of(path.stem, **changes))


def fixed_artifact(path: Path, batch: int) -> Path:
    """An artifact of one batch."""
    model = small_network()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    return _write(path, model, contract_of(path.stem, batch=batch))


def counts_artifact(path: Path) -> Path:
    """An artifact that takes uint16 counts."""
    model = small_network()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT16
    model.graph.node.insert(0, helper.make_node("Cast", ["diffraction"], ["floats"], to=TensorProto.FLOAT))
    model.graph.node[1].input[0] = "floats"
    given = {"scale": 0.05, "scale_rule": "a guess", "domain": "counts", "dtype": "uint16"}
    return _write(path, model, contract_of(path.stem, input=given))


def group_artifact(path: Path, *, offsets: bool = False) -> Path:
    """An artifact of gridsize 2: each patch is its own pattern, times a complex number; with offsets, plus a
    hundredth of row + i column.
    """
    nodes = [
        helper.make_node("Transpose", ["diffraction"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Unsqueeze", ["last", "axis"], ["pixels"]),
        helper.make_node("Mul", ["pixels", "factor"], ["parts" if offsets else "object"]),
    ]
    constants = {"axis": np.array([4]), "factor": np.array([0.05, 0.02], dtype=np.float32)}
    inputs = [helper.make_tensor_value_info("diffraction", TensorProto.FLOAT, ["batch", 4, N, N])]
    if offsets:
        inputs.append(helper.make_tensor_value_info("offsets", TensorProto.FLOAT, ["batch", 4, 2]))
        constants |= {"plane": np.array([1, 2]), "hundredth": np.array(0.01, dtype=np.float32)}
        nodes += [
            helper.make_node("Unsqueeze", ["offsets", "plane"], ["places"]),
            helper.make_node("Mul", ["places", "hundredth"], ["moved"]),
            helper.make_node("Add", ["parts", "moved"], ["object"]),
        ]
    graph = helper.make_graph(
        nodes,
        "group",
        inputs,
        [helper.make_tensor_value_info("object", TensorProto.FLOAT, ["batch", N, N, 4, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return _write(path, model, contract_of(path.stem, gridsize=2, offsets={} if offsets else None))


def offsets_artifact(path: Path) -> Path:
    """An artifact of gridsize 2 that takes offsets."""
    return group_artifact(path, offsets=True)


def _write(path: Path, model: ModelProto, contract: Contract) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_artifact(path, model, contract)


def deployable(path: Path, **changes: object) -> Deployable:
    """One artifact, checked and read."""
    return read_artifacts([artifact(path, **changes)])[0]


def files_of(root: Path) -> set[str]:
    """Every file under a folder."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def golden(name: str, found: str) -> str:
    """The text that is expected; `UPDATE_GOLDEN=1 pytest` writes what was found instead."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(found, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def published(config: Any) -> dict[str, str]:
    """Parameters of a Triton configuration."""
    return {key: value.string_value for key, value in config.parameters.items()}
