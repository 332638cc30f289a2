"""From a `torch.nn.Module` to an ONNX graph, Fourier layers included."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.graph import INPUT_NAME, OUTPUT_NAME
from export.torch.spectral import LOWERING, lower_spectral
from runtime.errors import InputError

__all__ = ["EXPORTER", "OPSET", "TorchGraph", "convert_module"]

# The first with the operator Gelu, and the last that inference servers of 2025 know.
OPSET = 20
EXPORTER = f"torch.onnx {torch.__version__.split('+')[0]}"


@dataclass(frozen=True)
class TorchGraph:
    """What `convert_module` gives.

    Attributes
    ----------
    model
        The graph as the exporter wrote it; `export.passes` cleans it.
    lowering
        What replaced the spectral convolutions, or ``none``.
    layers
        Relative error of each lowered layer, by dotted path.
    """

    model: onnx.ModelProto
    lowering: str
    layers: dict[str, float]


def convert_module(module: nn.Module, example: NDArray[np.float32]) -> TorchGraph:
    """Convert a module of one input and one output; the first axis stays dynamic, the others are fixed.

    Parameters
    ----------
    module
        Left as it is: the conversion works on a copy, in evaluation mode, on the CPU.
    example
        An input of the module, float32 [batch, ...]. Its values do not matter.

    Raises
    ------
    InputError
        If a Fourier layer cannot be lowered, or the exporter cannot convert the module.
    VerificationError
        If a lowered layer does not give what its original gives.
    """
    # A batch of one would be taken for a constant.
    inputs = torch.from_numpy(np.repeat(example[:1], 2, axis=0))
    lowering = lower_spectral(module.cpu(), inputs)
    module = _OneOutput(lowering.module).eval().requires_grad_(False)
    try:
        with _silence() as messages:
            program = torch.onnx.export(
                module,
                (inputs,),
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
            )
    except Exception as error:  # whatever the module's code and the exporter raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"the torch exporter cannot convert this module: {reason}\n{messages.getvalue()}".rstrip()
        ) from error
    assert program is not None
    return TorchGraph(program.model_proto, LOWERING if lowering.layers else "none", lowering.layers)
