"""Torch networks: built from settings, saved and loaded without unpickling code."""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from types import MethodType

import numpy as np
import torch
from neuralop.layers.base_spectral_conv import BaseSpectralConv
from neuralop.models.base_model import BaseModel
from numpy.typing import NDArray
from torch import Tensor, nn

from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import RetrievalConstants
from ptychonnx.train.registry import Architecture
from ptychonnx.train.run import LayerOutput
from ptychonnx.train.torch.retrieval import Refined
from ptychonnx.train.trained_network import check_output

__all__ = ["CHECKPOINT_NAME", "TorchNetwork", "build_network", "layer_outputs"]

CHECKPOINT_NAME = "checkpoint.pt"


class TorchNetwork:
    """A `torch.nn.Module` from amplitudes [B, C, N, N], and perhaps offsets [B, C, 2], to object parts
    [B, N, N, C, 2].
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval()

    def predict(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self.module(*_tensors(inputs)).numpy()

    def general(self) -> TorchNetwork:
        """The network with three more inputs, shared by the whole batch: probe, mask and scale, see `torch.beam`.

        Raises InputError if the network cannot take a beam.
        """
        module = self.module
        if not isinstance(module, Refined) or "beam" not in signature(module.network.forward).parameters:
            raise InputError(
                "--general: this network takes no beam, expected a physics-informed one whose `forward` has the "
                "keyword `beam`, as that of ptychonnx.train.torch.blocks.RetrievalNetwork"
            )
        return TorchNetwork(_BeamInputs(module))

    def tensors(self) -> dict[str, NDArray]:
        return {
            name.removeprefix(_BeamInputs.PREFIX): value.detach().numpy()
            for name, value in self.module.named_parameters()
        }

    def layers(self, *inputs: NDArray[np.float32]) -> list[LayerOutput]:
        return layer_outputs(self.module, *_tensors(inputs))

    def spectral_operator(self) -> str | None:
        """Import path of the Fourier layer, if the network has one."""
        for module in self.module.modules():
            if isinstance(module, BaseSpectralConv):
                kind = type(module)
                return f"{kind.__module__}.{kind.__name__}"
        return None

    def save(self, folder: Path) -> None:
        """Write the weights into a run folder."""
        # Serialised in memory, so that a full disk is an OSError.
        data = io.BytesIO()
        torch.save(self.module.state_dict(), data)
        (folder / CHECKPOINT_NAME).write_bytes(data.getvalue())

    def load(self, folder: Path) -> None:
        """Read the weights that `save` wrote.

        Raises InputError if the checkpoint is missing, unreadable, or of another network.
        """
        path = Path(folder) / CHECKPOINT_NAME
        try:
            self.module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file, expected the trained weights") from error
        except (RuntimeError, pickle.UnpicklingError, EOFError, TypeError) as error:
            raise InputError(f"{path}: not the weights of this network ({first_line(error)})") from error


class _BeamInputs(nn.Module):
    """Probe, mask and scale as the last three positional inputs."""

    PREFIX = "refined."

    def __init__(self, refined: Refined) -> None:
        super().__init__()
        self.refined = refined

    def forward(self, *inputs: Tensor) -> Tensor:
        *patterns, probe, mask, scale = inputs
        return self.refined(*patterns, probe=probe, mask=mask, scale=scale)


def _tensors(inputs: Sequence[NDArray]) -> list[Tensor]:
    # Of an array without axes, `ascontiguousarray` would make a vector.
    return [torch.from_numpy(np.asarray(values, order="C")) for values in inputs]


@torch.no_grad()
def layer_outputs(module: nn.Module, *inputs: Tensor) -> list[LayerOutput]:
    """Output of every module that returns one real tensor, by dotted path, in the order in which they finish."""
    outputs: list[LayerOutput] = []

    def observe(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            outputs.append(LayerOutput(name, output.float().numpy()))

    handles = [
        layer.register_forward_hook(
            lambda layer, inputs, output, name=name: observe(name or "the output", output)
        )
        for name, layer in module.named_modules()
    ]
    try:
        module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def build_network(
    architecture: Architecture, config: NetworkConfig, constants: RetrievalConstants, seed: int
) -> TorchNetwork:
    """A network with initial weights; the same seed gives the same weights.

    A physics-informed one ends with the final steps of phase retrieval.

    Raises InputError if the output has another shape than [B, N, N, C, 2].
    """
    build = architecture.load_builder()
    # As Lightning's `seed_everything`, whose import would be a third of a process that only converts a network.
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    module = build(config, constants)
    for layer in module.modules():
        if isinstance(layer, BaseModel):
            # Models of neuraloperator add to their weights what they were built with, functions included, which no
            # file without pickles can hold.
            layer.state_dict = MethodType(nn.Module.state_dict, layer)
    check_output(architecture, config, TorchNetwork(module))
    return TorchNetwork(module if architecture.supervised else Refined(module, constants))
