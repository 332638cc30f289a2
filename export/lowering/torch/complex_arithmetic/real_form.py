"""Any module that computes with complex numbers, as a module of real operators alone.

The module is traced by `torch.export`; only operators that touch a complex number are decomposed, until rules exist for
all of them. `RealForm` then interprets the trace: real operators are applied as they are, the others by their rules.
Tracing `RealForm` again, as the ONNX exporter does, leaves real operators alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node
from torch.fx.traceback import preserve_node_meta
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ptychonnx.export.lowering.torch.author_line import author_line

# Each enters its rules when it is imported.
from ptychonnx.export.lowering.torch.complex_arithmetic import (  # noqa: F401
    arithmetic_rules,
    contraction_rules,
    convolution_rules,
    fourier_rules,
    function_rules,
    linear_algebra_rules,
    part_rules,
    selection_rules,
    structure_rules,
)
from ptychonnx.export.lowering.torch.complex_arithmetic.constants import Constants
from ptychonnx.export.lowering.torch.complex_arithmetic.linear_value import LinearValue
from ptychonnx.export.lowering.torch.complex_arithmetic.pair import Pair
from ptychonnx.export.lowering.torch.complex_arithmetic.products import compute
from ptychonnx.export.lowering.torch.complex_arithmetic.rules import (
    RULES,
    Constant,
    Context,
    NotLowered,
    is_complex,
)
from ptychonnx.export.lowering.torch.symbolic_batch import SymbolicBatch
from ptychonnx.runtime.errors import UnsupportedError, first_line

__all__ = ["RealForm", "computes_with_complex", "real_form"]

logger = logging.getLogger(__name__)

# Real operators that the exporter, or an engine, cannot take as they are.
_ALSO_REAL = {"unfold_backward", "_fft_c2r", "_neg_view", "resolve_neg", "resolve_conj"}


class _ComplexSeen(TorchDispatchMode):
    """Notes whether any operator returns a complex tensor."""

    seen = False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.seen = self.seen or _is_complex_value(result) or _is_complex_value(args)
        return result


def computes_with_complex(module: nn.Module, example: Sequence[Tensor]) -> bool:
    """Whether a forward pass uses a complex number anywhere."""
    with _ComplexSeen() as mode, torch.no_grad():
        module(*example)
    return mode.seen


def real_form(module: nn.Module, example: Sequence[Tensor], dynamic_shapes: Any) -> RealForm:
    """A module of real operators that computes what `module` does, whose inputs and outputs are real.

    Sizes of the example are fixed except for those that `dynamic_shapes` names, as for `torch.export.export`.

    Raises UnsupportedError if an operator has no real form; the message names it and the line of the author's code.
    """
    with SymbolicBatch():
        program = torch.export.export(module, tuple(example), dynamic_shapes=dynamic_shapes, strict=False)
    program = _decomposed(program)
    lowered = RealForm(program).eval()
    with torch.no_grad():
        # Constants are made here; a trace could not.
        lowered(*example)
    return lowered


def _decomposed(program: ExportedProgram) -> ExportedProgram:
    """Decompose what touches complex numbers and has no rule, until the same operators are left again."""
    table = torch.export.default_decompositions()
    seen: set[frozenset] = set()
    while True:
        operators = frozenset(
            node.target
            for node in program.graph.nodes
            if _touches_complex(node) and not _has_rule(node.target) and node.target in table
        )
        # The first trace also replaces what writes into tensors; another one without an operator would change nothing.
        if operators in seen or (seen and not operators):
            return program
        seen.add(operators)
        program = program.run_decompositions({one: table[one] for one in operators})


def _has_rule(operator: Any) -> bool:
    return isinstance(operator, torch._ops.OpOverload) and operator.overloadpacket.__name__ in RULES


def _is_complex_value(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_complex_value, value))
    return isinstance(value, Tensor) and value.is_complex()


def _touches_complex(node: Node) -> bool:
    """Whether an operator has complex numbers around it, or in it: a transform may take and return real ones alone."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    if node.target.overloadpacket.__name__.startswith(("fft_", "_fft_")):
        return True
    return any(_is_complex_value(one.meta.get("val")) for one in (node, *node.all_input_nodes))


class RealForm(nn.Module):
    """The interpretation of a traced module in real arithmetic.

    Weights keep their names; complex ones become parts of constants.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.graph = program.graph_module
        self.constants = Constants()
        self.weights = nn.Module()
        self._sources: list[str | Constant | None] = []
        values: dict[Node, Tensor] = {}
        placeholders = [node for node in self.graph.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
            if spec.kind == InputKind.USER_INPUT:
                self._sources.append(None)
                continue
            if spec.target is None:
                raise UnsupportedError(_effect(self.graph.graph.nodes))
            stored = program.state_dict.get(spec.target)
            stored = program.constants.get(spec.target) if stored is None else stored
            if not isinstance(stored, Tensor):
                raise UnsupportedError(f"{spec.target} of the module is no tensor")
            values[node] = stored.detach()
            if stored.is_complex():
                self._sources.append(Constant(_array(stored)))
            else:
                _set_buffer(self.weights, spec.target, stored.detach())
                self._sources.append(spec.target)
        self._kept_outputs = [
            spec.kind == OutputKind.USER_OUTPUT for spec in program.graph_signature.output_specs
        ]
        known = _known_values(self.graph.graph.nodes, values)
        self._known = {node: _array(one) for node, one in known.items() if isinstance(one, Tensor)}

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the module, flat, in its order."""
        remaining = iter(inputs)
        arguments: list[Any] = []
        for source in self._sources:
            if source is None:
                arguments.append(next(remaining))
            elif isinstance(source, Constant):
                arguments.append(source)
            else:
                owner, _, name = source.rpartition(".")
                arguments.append(getattr(self.weights.get_submodule(owner), name))
        interpreter = _Interpreter(self.graph, Context(self.constants), self._known)
        with preserve_node_meta():  # so that a trace of this module knows the author's lines
            outputs = interpreter.run(*arguments, enable_io_processing=False)
        kept = [one for one, wanted in zip(outputs, self._kept_outputs, strict=True) if wanted]
        return tuple(_real_output(one, interpreter.context) for one in kept)


def _effect(nodes: Sequence[Node]) -> str:
    """What checks or prints values, for a message."""
    node = next((node for node in nodes if "with_effects" in str(node.target)), None)
    operator = "the module" if node is None else str(node.args[1]).removesuffix(".default")
    place = f" at {line}" if node is not None and (line := author_line(node)) else ""
    return f"{operator}{place} checks or prints values while it runs, which a graph cannot; remove that"


def _real_output(value: Any, context: Context) -> Tensor:
    if isinstance(value, LinearValue | Constant):
        computed = compute(context.value(value), context.constants)
        return computed.stacked(len(computed.shape)) if isinstance(computed, Pair) else computed
    return value


def _array(value: Tensor) -> NDArray:
    return value.detach().cpu().resolve_conj().resolve_neg().numpy()


def _set_buffer(root: nn.Module, path: str, value: Tensor) -> None:
    *owners, name = path.split(".")
    for owner in owners:
        if not hasattr(root, owner):
            root.add_module(owner, nn.Module())
        root = root.get_submodule(owner)
    root.register_buffer(name, value)


def _known_values(nodes: Sequence[Node], values: dict[Node, Tensor]) -> dict[Node, Any]:
    """Values of all nodes that no input changes."""
    known: dict[Node, Any] = dict(values)
    for node in nodes:
        if node.op != "call_function" or not all(one in known for one in node.all_input_nodes):
            continue
        target = node.target
        if isinstance(target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in target.tags:
            continue
        arguments, keywords = torch.fx.node.map_arg((node.args, node.kwargs), lambda one: known[one])
        with torch.no_grad():
            known[node] = target(*arguments, **keywords)  # type: ignore[operator]
    return known


class _Interpreter(torch.fx.Interpreter):
    """Applies real operators as they are, and the others by their rules."""

    def __init__(self, graph: torch.fx.GraphModule, context: Context, known: dict[Node, NDArray]) -> None:
        # Values stay alive, so that the context may know them by `id`.
        super().__init__(graph, garbage_collect_values=False)
        # The messages of errors stay one line.
        self.extra_traceback = False
        self.context, self.known = context, known
        self.current_node: Node

    def run_node(self, n: Node) -> Any:
        known = self.known.get(n)
        if n.op == "call_function" and known is not None and np.iscomplexobj(known):
            return Constant(known)
        if n.op == "call_function" and known is not None and (_touches_complex(n) or _is_table(n)):
            result = self.context.constants.tensor(known, n.meta["val"].dtype)
        else:
            result = self._run(n)
        if known is not None and isinstance(result, Tensor):
            self.context.known[id(result)] = known
        self.context.readers[id(result)] = max(len(n.users), self.context.readers.get(id(result), 0))
        return result

    def _run(self, node: Node) -> Any:
        self.current_node = node
        try:
            return super().run_node(node)
        except NotLowered as error:
            raise UnsupportedError(_refusal(node, str(error), error.way_out)) from error
        except UnsupportedError:
            raise
        except (NotImplementedError, RuntimeError, TypeError, ValueError, KeyError, AssertionError) as error:
            if not _touches_complex(node):
                raise
            logger.debug("%s", node.format_node(), exc_info=True)
            raise UnsupportedError(_refusal(node, first_line(error), NotLowered("").way_out)) from error

    def call_function(self, target: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        if not isinstance(target, torch._ops.OpOverload):
            return super().call_function(target, args, kwargs)
        name = target.overloadpacket.__name__
        current = self.current_node
        complex_result = _is_complex_value(current.meta.get("val"))
        pending = any(isinstance(one, LinearValue) for one in tree_leaves(args))
        if complex_result or any(map(is_complex, tree_leaves((args, kwargs)))):
            if name not in RULES:
                raise NotLowered("there is no rule for it")
            return RULES[name](self.context, target, *args, **kwargs)
        if name in _ALSO_REAL or self._keeps_structure(name, args, pending):
            return RULES[name](self.context, target, *args, **kwargs)
        real_args, real_kwargs = tree_map(self.context.real, (args, kwargs))
        computed = target(*real_args, **real_kwargs)
        is_zero = name in ("zeros", "new_zeros", "zeros_like") or (name == "full" and real_args[1] == 0)
        if is_zero and _is_float(current.meta.get("val")):
            return LinearValue(computed.shape, computed.dtype, [], is_real=True, computed=computed)
        return computed

    def _keeps_structure(self, name: str, args: tuple, pending: bool) -> bool:
        if name in ("constant_pad_nd", "pad") and args[2:3] in ((), ("constant",), (0,), (0.0,)):
            return pending or _is_float(self.current_node.meta.get("val"))
        return pending and name in structure_rules.STRUCTURAL


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.float32, torch.float64)


def _is_table(node: Node) -> bool:
    """Whether numbers come from an operator without tensors, such as `fftfreq`, which ONNX may lack."""
    name = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
    return not node.all_input_nodes and name not in ("full", "zeros", "ones", "empty")


def _refusal(node: Node, why: str, way_out: str) -> str:
    operator = str(node.target).removesuffix(".default")
    where = author_line(node)
    place = f" at {where}" if where else ""
    return f"{operator} of complex numbers{place} has no form in real arithmetic: {why}; {way_out}"
