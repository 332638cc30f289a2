"""Convert a `torch.nn.Module` to an ONNX graph, including its Fourier layers."""

from __future__ import annotations

import copy
import inspect
import logging
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException

from ptychonnx.export.graph.opset import DEFAULT_OPSET
from ptychonnx.export.graph.tensor_names import (
    BEAM_NAMES,
    INPUT_NAME,
    OFFSETS_NAME,
    OUTPUT_NAME,
    name_inputs,
    name_outputs,
)
from ptychonnx.export.lowering.converted_graph import COMPLEX_LOWERING, Converted, captured_output
from ptychonnx.export.lowering.torch.author_line import (
    author_line,
    author_line_of_traceback,
    complete_stack_traces,
)
from ptychonnx.export.lowering.torch.batch_dependence import fixed_batch, transform_along_batch
from ptychonnx.export.lowering.torch.complex_arithmetic.real_form import computes_with_complex, real_form
from ptychonnx.export.lowering.torch.exporter_shortcuts import exporter_shortcuts
from ptychonnx.export.lowering.torch.spectral import LOWERING, Lowering, lower_spectral
from ptychonnx.export.lowering.torch.symbolic_batch import SymbolicBatch
from ptychonnx.export.lowering.torch.translations import TRANSLATIONS
from ptychonnx.export.lowering.torch.uno_resampling import real_resampling
from ptychonnx.runtime.errors import UnsupportedError, first_line

if TYPE_CHECKING:
    from ptychonnx.train.torch.network import TorchNetwork

__all__ = ["convert_lowered", "convert_module", "convert_network", "dynamic_batch", "reason"]

logger = logging.getLogger(__name__)


def convert_network(
    network: TorchNetwork,
    *examples: NDArray[np.float32],
    opset: int = DEFAULT_OPSET,
    beam: Sequence[NDArray[np.float32]] = (),
) -> Converted:
    """`convert_module` for a network of `ptychonnx.train.torch`; with a beam, for `TorchNetwork.general`."""
    names = (*(INPUT_NAME, OFFSETS_NAME)[: len(examples)], *BEAM_NAMES[: len(beam)])
    return convert_module(network.module, *examples, opset=opset, inputs=names, shared=beam)


def convert_module(
    module: nn.Module,
    *examples: NDArray[np.float32],
    opset: int = DEFAULT_OPSET,
    inputs: Sequence[str] = (INPUT_NAME,),
    outputs: Sequence[str] = (OUTPUT_NAME,),
    batch: int | None = None,
    shared: Sequence[NDArray[np.float32]] = (),
) -> Converted:
    """Convert a copy of a module, in evaluation mode, on the CPU.

    The first axis of inputs and outputs stays dynamic, unless `batch` is its only size; the others are those of the
    examples, float32 [batch, ...]. `shared` are further inputs, of fixed shape, which all elements of the batch share.

    Raises UnsupportedError if a Fourier layer cannot be lowered, or the exporter cannot convert the module. Raises
    InputError if the module does not run on the examples. Raises VerificationError if the output of a lowered layer
    differs from that of the original.
    """
    # The exporter would treat a dynamic batch of one as a constant.
    inputs_of_batch = tuple(
        torch.from_numpy(np.repeat(example[:1], batch or 2, axis=0)) for example in examples
    )
    inputs_of_batch += tuple(torch.from_numpy(np.asarray(values, order="C")) for values in shared)
    lowering = lower_spectral(copy.deepcopy(module).cpu(), *inputs_of_batch)
    return convert_lowered(
        lowering,
        *inputs_of_batch,
        opset=opset,
        inputs=inputs,
        outputs=outputs,
        batch=batch,
        shared=(*(False,) * len(examples), *(True,) * len(shared)) if shared else (),
    )


def convert_lowered(
    lowering: Lowering,
    *example: Tensor,
    opset: int = DEFAULT_OPSET,
    inputs: Sequence[str] = (INPUT_NAME,),
    outputs: Sequence[str] = (OUTPUT_NAME,),
    batch: int | None = None,
    shared: Sequence[bool] = (),
) -> Converted:
    """Second half of `convert_module`: convert a module without layers of neuraloperator to a graph.

    Whatever else computes with complex numbers is replaced by real arithmetic, see `complex_arithmetic`. The example is
    in a batch of `batch`, or of 2 for a dynamic batch; `shared` says which inputs have no batch axis, none if empty.

    Raises UnsupportedError if an operator has no real form, or the exporter cannot convert the module.
    """
    module = lowering.module.requires_grad_(False)
    kinds = [LOWERING] if lowering.layers else []
    try:
        with (
            captured_output() as printed,
            real_resampling(),
            complete_stack_traces(),
            SymbolicBatch(),
            exporter_shortcuts(),
        ):
            if computes_with_complex(module, example):
                shapes = None if batch else dynamic_batch(module, len(example), shared)
                module = real_form(module, example, shapes)
                kinds.append(COMPLEX_LOWERING)
            program = torch.onnx.export(
                module,
                example,
                input_names=[*inputs],
                output_names=[*outputs],
                dynamic_shapes=None if batch else dynamic_batch(module, len(example), shared),
                opset_version=opset,
                custom_translation_table=TRANSLATIONS,
                dynamo=True,
                external_data=False,
                optimize=False,  # our passes fold the same constants, and a second time costs 10-20 % of an export
            )
    except UnsupportedError:
        raise
    except Exception as error:  # the module and the exporter may raise anything
        logger.debug("%s", printed.getvalue())
        why = None if batch else _cause_in_batch(lowering.module, module, example, shared)
        if why is None:
            raise UnsupportedError(
                f"the torch exporter cannot convert this module: {reason(error)}"
            ) from error
        raise UnsupportedError(_for_any_batch(why)) from error
    assert program is not None
    model = program.model_proto
    if not batch and _has_fixed_batch(model.graph, shared):
        why = _cause_in_batch(lowering.module, module, example, shared)
        raise UnsupportedError(_for_any_batch(why or "torch fixes its batch"))
    if len(model.graph.output) != len(outputs):
        raise UnsupportedError(
            f"the module returns {len(model.graph.output)} outputs, expected {len(outputs)}"
        )
    name_inputs(model.graph, inputs)
    name_outputs(model.graph, outputs)
    exporter = f"torch.onnx {version('torch').split('+')[0]}"
    return Converted(model, exporter, " and ".join(kinds) or "none", lowering.layers, lowering.notes)


def _cause_in_batch(
    module: nn.Module, lowered: nn.Module, example: Sequence[Tensor], shared: Sequence[bool]
) -> str | None:
    """What keeps a module from batches of any size, with the author's line; None if nothing does."""
    with captured_output(), SymbolicBatch():
        if line := transform_along_batch(module, example, shared):
            return f"it transforms or shifts along the batch at {line}"
        modules = [module] if lowered is module else [module, lowered]
        causes = (fixed_batch(one, example, dynamic_batch(one, len(example), shared)) for one in modules)
        return next(filter(None, causes), None)


def _for_any_batch(why: str) -> str:
    return (
        f"the torch exporter cannot convert this module for any batch: {why}; "
        "--batch N exports it for batches of N alone"
    )


def _has_fixed_batch(graph: onnx.GraphProto, shared: Sequence[bool]) -> bool:
    """Whether an input that has a batch takes one size of it alone."""
    inputs = zip(graph.input, shared or (False,) * len(graph.input), strict=False)
    return any(
        not is_shared and value.type.tensor_type.shape.dim[0].HasField("dim_value")
        for value, is_shared in inputs
    )


def dynamic_batch(module: nn.Module, count: int, shared: Sequence[bool] = ()) -> tuple:
    """A dynamic first axis for each argument that has a batch, nested as the arguments of `forward`."""
    batch = {0: torch.export.Dim("batch")}
    axes = tuple(None if is_shared else batch for is_shared in shared) or (batch,) * count
    parameters = list(inspect.signature(module.forward).parameters.values())
    is_variable = [parameter.kind == inspect.Parameter.VAR_POSITIONAL for parameter in parameters]
    if True not in is_variable:
        return axes
    single = min(is_variable.index(True), count)
    return (*axes[:single], axes[single:])


def reason(error: BaseException) -> str:
    """The first cause of `error`, with operator, layer and line that were exported, and a way out, if they are known.

    The message of the exporter is general advice in many lines. The cause is in the exception that it was raised
    from, and the layer is in the node that was being translated.
    """
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    text = re.sub(r"[.!]* For more information, run with .*", "", first_line(chain[-1]))
    nodes = [node for one in reversed(chain) for node in _nodes(one.__traceback__)]
    line = author_line(nodes[0]) if nodes else author_line_of_traceback(chain[-1].__traceback__)
    way_out = "compute it outside of the module, or from other operators"
    if operator := re.match(r"No ONNX function found for <OpOverload\(op='([^']+)'", text):
        text = f"No ONNX function found for {operator[1]}"
    elif "SymbolicTensor" in text and nodes and any(map(_is_symbol, nodes[0].all_input_nodes)):
        text = f"{str(nodes[0].target).removesuffix('.default')} has an attribute that depends on the batch"
        way_out = "--batch N exports it for batches of N alone"
    elif "data-dependent" in text or isinstance(chain[-1], DataDependentOutputException):
        text = f"{text}: the module decides by values of its input"
        way_out = "choose between results with torch.where"
    if line:
        text += f" at {line}; {way_out}"
    path = next((path for node in nodes if (path := _path(node))), None)
    return f"layer {path}: {text}" if path else text


def _is_symbol(node: torch.fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.SymInt)


def _path(node: torch.fx.Node) -> str | None:
    layers = list(node.meta.get("nn_module_stack", {}).values())
    return (re.sub(r"^L\['self'\]\.?", "", layers[-1][0]) or "(the module itself)") if layers else None


def _nodes(trace: TracebackType | None) -> Iterator[torch.fx.Node]:
    while trace is not None:
        node = trace.tb_frame.f_locals.get("node")
        if isinstance(node, torch.fx.Node):
            yield node
        trace = trace.tb_next
