"""Inference engines with one interface: a serialised graph in, a function from inputs to outputs out.

The engines are independent implementations: onnxruntime, OpenVINO (an extra), and the reference evaluator of the ONNX
project, in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from ptychonnx.runtime.errors import VerificationError, first_line
from ptychonnx.runtime.inference.onnxruntime_session import session_threads
from ptychonnx.runtime.inference.openvino_import import import_openvino

__all__ = [
    "Engine",
    "cpu_session",
    "installed_engines",
    "open_onnxruntime",
    "open_openvino",
    "open_reference",
    "open_values",
    "reference_evaluator",
]


class Engine(Protocol):
    """A loaded graph. Several outputs are returned as one vector with the elements of all of them."""

    name: str

    def __call__(self, *inputs: NDArray) -> NDArray:
        """Output for a batch of all inputs, in the order of the graph.

        Raises VerificationError if the engine cannot run the graph.
        """
        ...


class _Engine:
    """Turn whatever an engine raises into one line."""

    def __init__(self, name: str, load: Callable[[], Callable[..., Sequence[NDArray]]]) -> None:
        self.name = name
        try:
            self._run = load()
        except Exception as error:  # engines raise a dozen different types
            raise VerificationError(f"graph: {name} refuses it: {first_line(error)}") from error

    def __call__(self, *inputs: NDArray) -> NDArray:
        try:
            # `ascontiguousarray` would add an axis to a single number.
            outputs = self._run(*(np.asarray(array, order="C") for array in inputs))
        except Exception as error:  # as above
            raise VerificationError(
                f"graph: {self.name} does not run it on {_shapes(inputs)}: {first_line(error)}"
            ) from error
        return outputs[0] if len(outputs) == 1 else np.concatenate([np.ravel(output) for output in outputs])


def _shapes(inputs: Sequence[NDArray]) -> str:
    if len(inputs) == 1 and inputs[0].ndim:
        return f"a batch of {len(inputs[0])}"
    return f"inputs of shape {', '.join(str(list(array.shape)) for array in inputs)}"


def open_onnxruntime(data: bytes, *, optimised: bool = True) -> Engine:
    """Load a graph in onnxruntime on the CPU.

    Raises VerificationError if the graph cannot be loaded.

    * `data`: a serialised ONNX model.
    * `optimised`: whether onnxruntime may fuse and reorder nodes; otherwise every node runs as it is written.
    """

    def load() -> Callable[..., Sequence[NDArray]]:
        session = cpu_session(data, optimised=optimised)
        names = _names(data)
        return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=False)))

    suffix = "" if optimised else " without optimisation"
    return _Engine(f"onnxruntime {ort.__version__} CPUExecutionProvider{suffix}", load)


def cpu_session(data: bytes, *, optimised: bool = True) -> ort.InferenceSession:
    """A session of onnxruntime on the CPU; raises whatever onnxruntime raises."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = session_threads()
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def open_openvino(data: bytes) -> Engine:
    """Load a graph in OpenVINO on the CPU, in float32.

    Raises InputError if OpenVINO is not installed. Raises VerificationError if the graph cannot be loaded.
    """
    openvino = import_openvino()

    def load() -> Callable[..., Sequence[NDArray]]:
        core = openvino.Core()
        # Otherwise, OpenVINO uses bfloat16 on processors that have it.
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled: Any = core.compile_model(core.read_model(data), "CPU", settings)
        # The next run overwrites the buffers of the results.
        return lambda *inputs: [np.array(output) for output in compiled(list(inputs)).values()]

    return _Engine(f"OpenVINO {openvino.__version__.split('-')[0]} CPU", load)


def open_reference(data: bytes) -> Engine:
    """Load a graph in the reference evaluator of the ONNX project, which follows the standard exactly and is slow.

    Raises VerificationError if the graph cannot be loaded.
    """

    def load() -> Callable[..., Sequence[NDArray]]:
        evaluator = reference_evaluator(data)
        names = evaluator.input_names
        constants = {tensor.name: tensor for tensor in evaluator.proto_.graph.initializer}
        defaults = {name: onnx.numpy_helper.to_array(constants[name]) for name in names if name in constants}

        def run(*inputs: NDArray) -> Sequence[NDArray]:
            # NaN and infinity are judged by the comparison.
            with np.errstate(all="ignore"):
                return evaluator.run(None, defaults | dict(zip(names, inputs, strict=False)))

        return run

    return _Engine(f"onnx {onnx.__version__} reference evaluator", load)


def reference_evaluator(model: bytes | onnx.ModelProto) -> Any:
    """The reference evaluator, with a `GatherElements` as the standard has it.

    Its own stops at 64 entries, the limit of `numpy.choose`, and misreads negative axes.
    """
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):
        op_domain = ""

        def _run(self, data: NDArray, indices: NDArray, axis: int = 0) -> tuple[NDArray]:
            axis %= data.ndim
            # Along the other axes, the indices may be fewer than the data.
            data = data[tuple(slice(None if at == axis else size) for at, size in enumerate(indices.shape))]
            return (
                np.take_along_axis(data, np.where(indices < 0, indices + data.shape[axis], indices), axis),
            )

    evaluator = ReferenceEvaluator(model, new_ops=[GatherElements])
    _release_dead_values(evaluator)
    return evaluator


class _Release:
    """A node of the reference evaluator that forgets values; the evaluator itself keeps all of them to the end."""

    op_type, input, output, has_linked_attribute = "Release", (), (), False

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def need_context(self) -> bool:
        return True

    def run(self, context: dict[str, Any], **_: Any) -> tuple[()]:
        for name in self._names:
            del context[name]
        return ()


def _release_dead_values(evaluator: Any) -> None:
    """Forget each inner value of a graph after the last node that reads it: all of them are gigabytes at N = 256."""
    last: dict[str, int] = {}
    for place, node in enumerate(evaluator.proto_.graph.node):
        last |= dict.fromkeys((name for name in node.output if name), place)
        last |= dict.fromkeys((name for name in _read_by(node) if name in last), place)
    dead: dict[int, list[str]] = {}
    for name, place in last.items():
        if name not in evaluator.output_names:
            dead.setdefault(place, []).append(name)
    nodes = [(node, _Release(dead.get(place, ()))) for place, node in enumerate(evaluator.rt_nodes_)]
    evaluator.rt_nodes_ = [step for pair in nodes for step in pair]


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Names of values that a node reads, those in its subgraphs included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inside in graph.node:
                yield from _read_by(inside)
            yield from (value.name for value in graph.output)


def open_values(data: bytes) -> Callable[..., dict[str, NDArray]]:
    """Load a graph in onnxruntime without optimisation, so that a run returns every value of the graph by name."""
    model = onnx.load_from_string(data)
    present = {value.name for value in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in present:
                model.graph.output.append(onnx.ValueInfoProto(name=name))
    session = cpu_session(model.SerializeToString(), optimised=False)
    names = [value.name for value in session.get_outputs()]
    input_names = _names(data)
    return lambda *inputs: dict(
        zip(names, session.run(None, dict(zip(input_names, inputs, strict=False))), strict=True)
    )


def _names(data: bytes) -> list[str]:
    """All inputs in the order of the graph; those with a default come last, and may be left out."""
    return [value.name for value in onnx.load_from_string(data).graph.input]


def installed_engines() -> dict[str, Callable[[bytes], Engine]]:
    """Functions that load a graph, by the short name of the engine; OpenVINO only if it is installed."""
    openvino = {} if find_spec("openvino") is None else {"openvino": open_openvino}
    return {"onnxruntime": open_onnxruntime, **openvino, "reference": open_reference}
