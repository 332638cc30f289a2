"""Two halves of an export by torch: a registry that never changes, and a second trace that mostly changes nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._decomp import _should_decompose_because_unsafe_op
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node
from torch.onnx._internal.exporter import _fx_passes
from torch.onnx._internal.exporter._registration import ONNXRegistry

__all__ = ["exporter_shortcuts"]

_aten = torch.ops.aten
_read_torchlib = ONNXRegistry.from_torchlib
_decompose = _fx_passes.decompose_with_registry

# Removed by the exporter.
_CHECKS = {
    _aten._assert_scalar.default,
    _aten._assert_tensor_metadata.default,
    _aten.sym_constrain_range_for_size.default,
}
# A second trace replaces them by views, which are translated to the same operator.
_RESHAPES = {_aten.reshape.default, _aten.flatten.using_ints}


@contextmanager
def exporter_shortcuts() -> Iterator[None]:
    """In this context, torch's exporter reads its translations of operators once in a process, and traces once.

    It would trace every program a second time, to replace operators that have no translation or write into tensors. A
    program that has none of them is left as it is; it takes half of the time.
    """
    ONNXRegistry.from_torchlib = staticmethod(_torchlib)  # type: ignore[assignment, method-assign]
    _fx_passes.decompose_with_registry = _decomposed
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = _read_torchlib  # type: ignore[method-assign]
        _fx_passes.decompose_with_registry = _decompose


_read_once = functools.cache(_read_torchlib)


def _torchlib(opset_version: int) -> ONNXRegistry:
    """A registry of its own for each export, which adds translations to it."""
    known = _read_once(opset_version)
    registry = ONNXRegistry()
    registry._opset_version = known.opset_version
    registry.functions = {target: list(functions) for target, functions in known.functions.items()}
    return registry


def _decomposed(exported_program: ExportedProgram, registry: ONNXRegistry) -> ExportedProgram:
    nodes = [node for node in exported_program.graph.nodes if node.op not in ("placeholder", "output")]
    rewritten = {
        node: new
        for node in nodes
        if (rewrite := _REWRITTEN.get(node.target)) and (new := rewrite(*node.args, **node.kwargs))
    }
    if not all(node in rewritten or _has_translation(node, registry) for node in nodes):
        return _decompose(exported_program, registry)
    for node, (target, arguments) in rewritten.items():
        node.target, node.args, node.kwargs = target, arguments, {}
    return exported_program


def _has_translation(node: Node, registry: ONNXRegistry) -> bool:
    """Whether a node has a translation that a second trace would not change."""
    target: Any = node.target
    if node.op != "call_function" or target in _CHECKS:
        return node.op == "call_function"
    return registry.is_registered(target) and (not isinstance(target, OpOverload) or _is_kept(target))


def _is_kept(target: OpOverload) -> bool:
    """Whether a second trace would keep an operator: it keeps composite ones only if no argument is aliased."""
    schema = target._schema
    if schema.is_mutable or _should_decompose_because_unsafe_op(target):
        return False
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), "CompositeImplicitAutograd")
    aliased = any(argument.alias_info is not None for argument in schema.arguments)
    return not composite or not aliased or target in _RESHAPES


def _square(x: Node) -> tuple[OpOverload, tuple]:
    return _aten.pow.Tensor_Scalar, (x, 2)


def _rsub(x: Node, other: Any, alpha: Any = 1) -> tuple[OpOverload, tuple] | None:
    # Integers may become floating-point numbers.
    is_plain = alpha == 1 and x.meta["val"].is_floating_point()
    return (_aten.sub.Tensor, (other, x)) if is_plain else None


def _narrow(x: Node, axis: int, start: Any, length: Any) -> tuple[OpOverload, tuple] | None:
    is_plain = isinstance(start, int) and isinstance(length, int) and start >= 0
    return (_aten.slice.Tensor, (x, axis, start, start + length)) if is_plain else None


def _conv_transpose2d(
    x: Node,
    weight: Node,
    bias: Node | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    output_padding: Sequence[int] = (0, 0),
    groups: int = 1,
    dilation: Sequence[int] = (1, 1),
) -> tuple[OpOverload, tuple] | None:
    sizes = [list(size) for size in (stride, padding, dilation, output_padding)]
    if x.meta["val"].ndim != 4 or any(len(size) != 2 for size in sizes):
        return None
    return _aten.convolution.default, (x, weight, bias, *sizes[:3], True, sizes[3], groups)


# What a second trace replaces an operator without translation by; None if that is not a single operator.
_REWRITTEN: dict[OpOverload, Callable[..., tuple[OpOverload, tuple] | None]] = {
    _aten.square.default: _square,
    _aten.rsub.Scalar: _rsub,
    _aten.narrow.default: _narrow,
    _aten.conv_transpose2d.input: _conv_transpose2d,
}
