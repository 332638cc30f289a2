"""Operators of a graph against the operators that engines support."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Literal, get_args

import onnx
from onnx import TensorProto

from ptychonnx.export.graph.inspection import element_types, graphs_inside
from ptychonnx.export.graph.opset import opset_of
from ptychonnx.runtime.errors import InputError, VerificationError

__all__ = [
    "NAMES",
    "Operator",
    "Portability",
    "Target",
    "TargetName",
    "has_kernel",
    "portability",
    "require",
    "targets",
]

TargetName = Literal["cpu", "cuda", "tensorrt", "openvino"]
NAMES: tuple[TargetName, ...] = get_args(TargetName)


@dataclass(frozen=True)
class Kernel:
    """One implementation of an operator.

    * `since`, `until`: first and last version of the operator that it implements; `until` is None if it is open.
    * `types`: element types that it accepts, by the name of the type variable in the schema of the operator; ``*`` is
      the variable of the first input.
    """

    since: int
    until: int | None
    types: Mapping[str, frozenset[str]]

    def implements(self, version: int) -> bool:
        """As in onnxruntime, which uses an open kernel only for the version that it was written for."""
        return self.since == version if self.until is None else self.since <= version <= self.until


@dataclass(frozen=True)
class Target:
    """An engine on one kind of hardware, and where its list of operators comes from."""

    name: str
    title: str  # for people
    source: str
    version: str
    opsets: tuple[int, int]  # first and last version of the operator set that it reads
    kernels: Mapping[str, tuple[Kernel, ...]]  # implementations by operator


@dataclass(frozen=True)
class Operator:
    """One operator of a graph, used with the same element types."""

    name: str
    version: int  # in the graph's operator set
    types: tuple[str, ...]  # of its inputs, as ONNX names them, such as ``float``
    node: str  # name of the first such node
    count: int  # of such nodes


@dataclass(frozen=True)
class Portability:
    """The table of one graph, with operators in rows and targets in columns.

    `missing` says why a target cannot run an operator, by (operator, name of the target); no entry if it can.
    """

    operators: tuple[Operator, ...]
    targets: tuple[Target, ...]
    missing: Mapping[tuple[Operator, str], str]

    def runs_on(self, target: str) -> bool:
        """Whether a target has a kernel for every node."""
        return all(name != target for _, name in self.missing)


@functools.cache
def targets() -> tuple[Target, ...]:
    """All targets, from the data files of the package."""
    return tuple(_read(name) for name in NAMES)


def portability(model: onnx.ModelProto) -> Portability:
    """Look up every operator of a graph in every target.

    An operator is supported if the target implements its version for the types of its inputs, according to the
    operator list of the engine. Nothing is run.
    """
    rows = _operators(model)
    opset = opset_of(model)
    missing = {}
    for target in targets():
        for row in rows:
            reason = _reason(row, target, opset)
            if reason:
                missing[row, target.name] = reason
    return Portability(rows, targets(), missing)


def require(model: onnx.ModelProto, target: str) -> None:
    """Raise if a target cannot run every node of a graph.

    Raises InputError if the target is unknown. Raises VerificationError with the first such node, its operator, and the
    reason.
    """
    if target not in NAMES:
        raise InputError(f"target {target!r} is unknown, expected one of {', '.join(NAMES)}")
    table = portability(model)
    lacking = [(row, reason) for (row, name), reason in table.missing.items() if name == target]
    if lacking:
        row, reason = lacking[0]
        others = f" (and {len(lacking) - 1} more kinds of node)" if len(lacking) > 1 else ""
        raise VerificationError(
            f"{target}: node {row.node} ({row.name}) would not run there: {reason}{others}"
        )


def has_kernel(target: TargetName, node: onnx.NodeProto, types: tuple[str, ...], opset: int) -> bool:
    """Whether a target can run one node of a graph, whose inputs have these element types."""
    version = onnx.defs.get_schema(node.op_type, opset, node.domain).since_version
    row = Operator(node.op_type, version, types, node.name, 1)
    return not _reason(row, targets()[NAMES.index(target)], opset)


def _read(name: str) -> Target:
    file = resources.files("ptychonnx.export.portability").joinpath(f"{name}.json")
    data = json.loads(file.read_text(encoding="utf-8"))
    kernels = {
        operator: tuple(
            Kernel(since, until, {variable: frozenset(types) for variable, types in allowed.items()})
            for since, until, allowed in entries
        )
        for operator, entries in data["operators"].items()
    }
    return Target(name, data["title"], data["source"], data["version"], tuple(data["opsets"]), kernels)


def _operators(model: onnx.ModelProto) -> tuple[Operator, ...]:
    inferred = onnx.shape_inference.infer_shapes(model)
    opset = opset_of(model)
    names: dict[tuple[str, int, tuple[str, ...]], list[str]] = {}
    for node, types in _typed_nodes(inferred.graph, {}):
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
        names.setdefault((node.op_type, schema.since_version, types), []).append(node.name or node.output[0])
    return tuple(Operator(*key, names[key][0], len(names[key])) for key in sorted(names))


def _typed_nodes(
    graph: onnx.GraphProto, outside: Mapping[str, int]
) -> Iterator[tuple[onnx.NodeProto, tuple[str, ...]]]:
    """Nodes with the types of their inputs; nodes in branches and loops can read values outside."""
    kinds = {**outside, **element_types(graph)}
    for node in graph.node:
        yield node, tuple(_type_name(kinds.get(name, 0)) if name else "" for name in node.input)
        for inner in graphs_inside(node):
            yield from _typed_nodes(inner, kinds)


def _type_name(kind: int) -> str:
    return TensorProto.DataType.Name(kind).lower().replace("undefined", "unknown")


def _reason(row: Operator, target: Target, opset: int) -> str | None:
    if row.name == "Constant":
        return None  # read when the graph is loaded, without a kernel
    low, high = target.opsets
    if not low <= opset <= high:
        return f"{target.title} reads opset {low} to {high}, the graph is in {opset}"
    if row.name not in target.kernels:
        return f"{target.title} has no {row.name}"
    kernels = [kernel for kernel in target.kernels[row.name] if kernel.implements(row.version)]
    if not kernels:
        return f"{target.title} has {row.name}, but not version {row.version} of it"
    reasons = [_wrong_type(row, kernel) for kernel in kernels]
    if None in reasons:
        return None
    return f"{target.title} has no {row.name} for {reasons[0]}"


def _wrong_type(row: Operator, kernel: Kernel) -> str | None:
    formal = onnx.defs.get_schema(row.name, row.version).inputs
    for index, kind in enumerate(row.types):
        variable = formal[min(index, len(formal) - 1)].type_str
        allowed = kernel.types.get(variable)
        if allowed is None and "*" in kernel.types and variable == formal[0].type_str:
            allowed = kernel.types["*"]
        if kind and allowed is not None and kind not in allowed:
            return kind
    return None
