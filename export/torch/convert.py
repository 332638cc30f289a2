"""From a `torch.nn.Module` to an ONNX graph, Fourier layers included."""

from __future__ import annotations

import copy
import logging
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.conversion import INPUT_NAME, OUTPUT_NAME, Converted, quiet
from export.opset import DEFAULT_OPSET
from export.torch.spectral import LOWERING, lower_spectral
from runtime.errors import InputError

if TYPE_CHECKING:
    from train.torch.network import TorchNetwork

__all__ = ["convert_module", "convert_network"]

logger = logging.getLogger(__name__)


def convert_network(
    network: TorchNetwork, example: NDArray[np.float32], opset: int = DEFAULT_OPSET
) -> Converted:
    """`convert_module` for a network of `train.torch`."""
    return convert_module(network.module, example, opset=opset)


def convert_module(
    module: nn.Module,
    example: NDArray[np.float32],
    *,
    opset: int = DEFAULT_OPSET,
    names: tuple[str, str] = (INPUT_NAME, OUTPUT_NAME),
) -> Converted:
    """Convert a module of one input and one output; the first axis stays dynamic, the others are fixed.

    Parameters
    ----------
    module
        Left as it is: a copy is converted, in evaluation mode, on the CPU.
    example
        An input of the module, float32 [batch, ...]. Its values do not matter.
    opset
        Version of the operator set, see `export.opset`.
    names
        Of the input and the output.

    Raises
    ------
    InputError
        If a Fourier layer cannot be lowered, or the exporter cannot convert the module.
    VerificationError
        If a lowered layer does not give what its original gives.
    """
    # A batch of one would be taken for a constant.
    inputs = torch.from_numpy(np.repeat(example[:1], 2, axis=0))
    lowering = lower_spectral(copy.deepcopy(module).cpu(), inputs)
    frozen = lowering.module.requires_grad_(False)
    try:
        with quiet() as printed:
            program = torch.onnx.export(
                frozen,
                (inputs,),
                input_names=[names[0]],
                output_names=[names[1]],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=opset,
                dynamo=True,
                external_data=False,
            )
    except Exception as error:  # anything that the module or the exporter may raise
        logger.warning("%s", printed.getvalue())
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"the torch exporter cannot convert this module: {reason}") from error
    assert program is not None
    model = program.model_proto
    if len(model.graph.output) != 1:
        raise InputError(f"the module gives {len(model.graph.output)} outputs, expected one")
    exporter = f"torch.onnx {version('torch').split('+')[0]}"
    return Converted(model, exporter, LOWERING if lowering.layers else "none", lowering.layers)
