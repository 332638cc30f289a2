"""Convert a Keras model to an ONNX graph."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import onnx
import onnx_ir as ir
import tensorflow as tf
import tf2onnx
from numpy.typing import NDArray
from tf2onnx.constants import ENV_TF2ONNX_CATCH_ERRORS as _CATCH_ERRORS
from tf2onnx.graph import Graph, Node

from ptychonnx.export.graph.opset import DEFAULT_OPSET
from ptychonnx.export.graph.tensor_names import BEAM_NAMES, INPUT_NAME, OFFSETS_NAME, OUTPUT_NAME
from ptychonnx.export.lowering.converted_graph import COMPLEX_LOWERING, Converted, captured_output
from ptychonnx.export.lowering.tensorflow.complex_pairs import real_form
from ptychonnx.export.passes.reshape_merging import ReshapeEliminationPass
from ptychonnx.runtime.errors import UnsupportedError, first_line

if TYPE_CHECKING:
    from ptychonnx.train.tensorflow.network import KerasNetwork

__all__ = ["OPSET", "convert_function", "convert_model", "convert_network"]

logger = logging.getLogger(__name__)

# The last version of operators that tf2onnx writes.
OPSET = 18


def convert_network(
    network: KerasNetwork,
    *examples: NDArray[np.float32],
    opset: int = DEFAULT_OPSET,
    beam: Sequence[NDArray[np.float32]] = (),
) -> Converted:
    """`convert_model` for a network of `ptychonnx.train.tensorflow`; with a beam, for `KerasNetwork.general`.

    The graph is written in `OPSET`; convert it further with `ptychonnx.export.graph.opset.to_opset`.
    """
    names = (INPUT_NAME, OFFSETS_NAME)[: len(examples)]
    if not beam:
        return convert_model(network.model, names)
    shapes = [[None, *example.shape[1:]] for example in examples] + [values.shape for values in beam]
    signature = [
        tf.TensorSpec(shape, tf.float32, name=name)
        for name, shape in zip((*names, *BEAM_NAMES), shapes, strict=True)
    ]

    def call(*arguments: tf.Tensor) -> list[tf.Tensor]:
        return [network.call(arguments[: len(examples)], arguments[len(examples) :])]

    return convert_function(call, signature, [OUTPUT_NAME])


def convert_model(model: keras.Model, inputs: Sequence[str] = (INPUT_NAME,)) -> Converted:
    """Convert a Keras model with one output, naming its inputs; the first axis stays dynamic.

    Raises UnsupportedError if the model has other inputs or several outputs, an axis of unknown size other than the
    first, or operations without a counterpart in ONNX, such as those on complex numbers.
    """
    for kind, tensors, count in (("input", model.inputs, len(inputs)), ("output", model.outputs, 1)):
        if len(tensors) != count:
            expected = "one" if count == 1 else count
            raise UnsupportedError(f"the Keras model has {len(tensors)} {kind}s, expected {expected}")
    signature = []
    for name, tensor in zip(inputs, model.inputs, strict=True):
        shape = tensor.shape[1:]
        if None in shape:
            raise UnsupportedError(
                f"the Keras model takes [batch, {', '.join(map(str, shape))}], expected fixed sizes"
            )
        signature.append(tf.TensorSpec([None, *shape], tf.float32, name=name))

    def call(*arguments: tf.Tensor) -> list[tf.Tensor]:
        return [model([*arguments] if len(arguments) > 1 else arguments[0], training=False)]

    return convert_function(call, signature, [OUTPUT_NAME])


def convert_function(
    call: Callable[..., list[tf.Tensor]], signature: Sequence[tf.TensorSpec], outputs: Sequence[str]
) -> Converted:
    """Convert a function that returns a tensor for each of the named outputs.

    Raises UnsupportedError if there are operations without a counterpart in ONNX, or of complex numbers without a form
    in real arithmetic.
    """

    @tf.function(input_signature=signature)
    def named(*arguments: tf.Tensor) -> dict[str, tf.Tensor]:
        # The keys of a dictionary become the names of the outputs.
        return dict(zip(outputs, call(*arguments), strict=True))

    try:
        with captured_output() as printed:
            function = named
            real = real_form(named.get_concrete_function())
            if real is not None:
                function = tf.function(real, input_signature=signature, autograph=False)
            proto = _from_function(function, signature)
    except UnsupportedError:
        raise
    except Exception as error:  # the model and the exporter may raise anything
        logger.debug("%s", printed.getvalue())
        raise UnsupportedError(f"tf2onnx cannot convert this model: {first_line(error)}") from error
    _bind_constants(proto.graph, function.get_concrete_function(*signature))
    # tf2onnx copies unknown operations to the graph, and only logs them.
    unknown = {node.op_type for node in proto.graph.node if not _is_standard(node)}
    if unknown:
        raise UnsupportedError(
            f"tf2onnx cannot convert {', '.join(sorted(unknown))}: ONNX has no such operator"
        )
    _restore_order(proto.graph, [spec.name for spec in signature], outputs)
    # Some reshapes that change nothing appear only for some orders in which it traverses a set of names.
    graph = ReshapeEliminationPass()(ir.from_proto(proto)).model
    lowering = "none" if real is None else COMPLEX_LOWERING
    return Converted(ir.to_proto(graph), f"tf2onnx {tf2onnx.__version__}", lowering)


def _from_function(function: Any, signature: Sequence[tf.TensorSpec]) -> onnx.ModelProto:
    """The graph that tf2onnx writes.

    tf2onnx copies the whole graph before each of its optimizers, to go on without one that fails, and the copies are a
    quarter of an export. Copying is left to the case that one fails.
    """

    def convert() -> onnx.ModelProto:
        proto, _ = tf2onnx.convert.from_function(
            function, input_signature=signature, opset=OPSET, custom_op_handlers=_HANDLERS
        )
        return proto

    # Any value of this variable turns the copies off.
    if _CATCH_ERRORS in os.environ:
        return convert()
    os.environ[_CATCH_ERRORS] = "FALSE"
    try:
        return convert()
    except Exception as error:  # an optimizer may raise anything
        logger.debug("tf2onnx: %s; converting again, without what fails", first_line(error))
    finally:
        del os.environ[_CATCH_ERRORS]
    return convert()


def _restore_order(graph: onnx.GraphProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Inputs and outputs in the order of the function: tf2onnx sorts them, and leaves out unused inputs."""
    for values, names in ((graph.input, inputs), (graph.output, outputs)):
        by_name = {value.name: value for value in values}
        if set(by_name) != set(names):
            raise UnsupportedError(
                f"tf2onnx writes {', '.join(by_name) or 'nothing'}, expected {', '.join(names)}: every input must be "
                "used"
            )
        del values[:]
        values.extend(by_name[name] for name in names)


def _bind_constants(graph: onnx.GraphProto, function: Any) -> None:
    """Turn eager tensors of the model into constants: tf2onnx writes them as additional inputs."""
    tensors = {
        inside.name: tensor for tensor, inside in function.graph.captures if tensor.dtype != tf.resource
    }
    for value in [value for value in graph.input if value.name in tensors]:
        graph.initializer.append(onnx.numpy_helper.from_array(tensors[value.name].numpy(), value.name))
        graph.input.remove(value)


def _is_standard(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type, OPSET, "")


def _erfc(graph: Graph, node: Node, name: str, arguments: list[Any]) -> None:
    """``erfc(x) = 1 - erf(x)``, which Keras uses for the exact GELU."""
    node.type = "Erf"
    (output,) = node.output
    difference = graph.insert_new_node_on_output("Sub", output, name=f"{name}_sub", domain="")
    graph.replace_inputs(difference, [_one(graph, name), output])


def _log1p(graph: Graph, node: Node, name: str, arguments: list[Any]) -> None:
    """``log1p(x) = log(1 + x)``."""
    node.type = "Log"
    (x,) = node.input
    total = graph.make_node("Add", [_one(graph, name), x], name=f"{name}_add", domain="")
    graph.replace_inputs(node, [total.output[0]])


def _one(graph: Graph, name: str) -> str:
    return graph.make_const(f"{name}_one", np.ones((), dtype=np.float32)).output[0]


# Operations that tf2onnx does not support.
_HANDLERS: dict[str, tuple[Any, list[Any]]] = {"Erfc": (_erfc, []), "Log1p": (_log1p, [])}
