"""Lowering of neuraloperator's Fourier layers to products of real matrices.

No inference engine implements the complex transforms of `neuralop.layers.spectral_convolution.SpectralConv`, of
which only a few frequencies are kept. At a fixed size, each layer is therefore equivalent to a short chain of thin
real products with constant matrices: the forward transform of the kept modes axis by axis, one small product per mode
that mixes the channels, and the inverse transform axis by axis. Every lowered layer is compared with its original
before it is used.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from neuralop.layers.base_spectral_conv import BaseSpectralConv
from neuralop.layers.spectral_convolution import SpectralConv
from tltorch.factorized_tensors.core import FactorizedTensor
from torch import Tensor, nn

from ptychonnx.export.lowering.torch.arguments import tensors_in
from ptychonnx.export.lowering.torch.complex_layers import pair_complex_layers
from ptychonnx.export.lowering.torch.dft_matrices import (
    FourierChain,
    convolution_axes,
    fourier_chain,
    resampling_axes,
)
from ptychonnx.export.lowering.torch.finite_differences import merge_finite_differences, relative_error
from ptychonnx.export.lowering.torch.mode_mixing import mix_channels, scale_modes
from ptychonnx.export.lowering.torch.uno_resampling import real_resampling
from ptychonnx.runtime.errors import InputError, UnsupportedError, VerificationError, first_line

if TYPE_CHECKING:
    from ptychonnx.export.lowering.torch.spherical import LoweredSphericalConv

__all__ = [
    "LAYER_TOLERANCE",
    "LOWERING",
    "LoweredSpectralConv",
    "Lowering",
    "at_full_precision",
    "lower_spectral",
]

LAYER_TOLERANCE = 1e-5
LOWERING = "neuralop spectral layers (SpectralConv, SphericalConv) as real matrix products"


@dataclass(frozen=True)
class Lowering:
    """A copy of a module in evaluation mode, without spectral convolutions, that computes the same.

    Layers and notes are those of `ptychonnx.export.lowering.converted_graph.Converted`.
    """

    module: nn.Module
    layers: dict[str, float]
    notes: dict[str, str] = field(default_factory=dict)


class LoweredSpectralConv(nn.Module):
    """A spectral convolution at one fixed size, in real arithmetic.

    Transforms and mixing are constants, see `dft_matrices` and `mode_mixing`. Complex data are complex tensors
    at inputs and outputs, and pairs of numbers inside.
    """

    bias: Tensor | None

    def __init__(self, layer: SpectralConv, size: Sequence[int], out_size: Sequence[int]) -> None:
        """Copy the weights of `layer` for inputs [B, I, *size] and outputs [B, O, *out_size]."""
        super().__init__()
        self.size, self.out_size = tuple(size), tuple(out_size)
        self.out_channels, self.complex_data = layer.out_channels, layer.complex_data
        weight = _kept_weight(layer, size)
        modes = tuple(weight.shape[1 if layer.separable else 2 :])
        self.chain = fourier_chain(
            convolution_axes(layer, size, out_size, modes),
            scale_modes(weight) if layer.separable else mix_channels(weight),
            complex_data=layer.complex_data,
        )
        # `SpectralConv.transform` reads this; neuralop's blocks call it for their skip connections.
        self.resolution_scaling_factor = layer.resolution_scaling_factor
        # One or two axes are interpolated, which every engine supports; more are resampled through their modes.
        resampled = layer.order > 2 and self.size != self.out_size and not layer.complex_data
        self.skip = FourierChain(resampling_axes(size, out_size), nn.Identity()) if resampled else None
        # Added to flattened pixels: some engines fail on [C, 1, 1] after a matrix product.
        bias = None if layer.bias is None else layer.bias.detach().reshape(self.out_channels, 1).clone()
        if bias is not None and layer.complex_data:
            # The bias is real and is added to the real part.
            bias = torch.stack([bias, torch.zeros_like(bias)], dim=-1).expand(-1, math.prod(out_size), -1)
            bias = bias.flatten(1)
        self.register_buffer("bias", bias)

    def transform(self, x: Tensor, output_shape: Sequence[int] | None = None) -> Tensor:
        """Resample `x` as the original layer does for a skip connection."""
        if self.skip is not None:
            return self.skip(x, x.shape[1])
        if self.size == self.out_size == tuple(x.shape[2:]):
            # neuralop compares a list with a tuple here, and so interpolates even to the same size.
            return x
        return SpectralConv.transform(self, x, output_shape)

    def forward(self, x: Tensor, output_shape: Sequence[int] | None = None) -> Tensor:
        """[B, I, *size] to [B, O, *out_size]; `output_shape` was fixed when the layer was lowered."""
        if self.complex_data:
            x = torch.view_as_real(x).flatten(-2)
        x = self.chain(x, self.out_channels)
        if self.bias is not None:
            shape = x.shape[1:]
            x = (x.flatten(2) + self.bias).reshape(-1, *shape)
        return torch.view_as_complex(x.unflatten(-1, (-1, 2))) if self.complex_data else x


def at_full_precision(module: nn.Module) -> tuple[nn.Module, dict[str, str]]:
    """A copy in evaluation mode whose Fourier layers compute in float32, and notes about those that did not."""
    copied = copy.deepcopy(module).eval()
    notes: dict[str, str] = {}
    for layer, names in _paths(copied).items():
        precision = getattr(layer, "fno_block_precision", "full")
        if precision != "full":
            text = f"trained with fno_block_precision={precision!r}, lowered at full precision"
            notes.update(dict.fromkeys(names, text))
            layer.fno_block_precision = "full"
    return copied, notes


@torch.no_grad()
def lower_spectral(module: nn.Module, *example: Any, **keywords: Any) -> Lowering:
    """Replace every spectral convolution in a copy of a module by its real form.

    Example and keywords are the arguments of one forward pass, which determine all sizes other than the batch.

    Raises UnsupportedError if a layer cannot be lowered; the message contains its dotted path and the reason. Raises
    InputError if the module does not run on the example. Raises VerificationError if the output of a lowered layer
    differs from that of the original.
    """
    lowered, notes = at_full_precision(module)
    pair_complex_layers(lowered)
    merge_finite_differences(lowered)
    paths = _paths(lowered)
    for layer, names in paths.items():
        _refuse_unsupported(layer, names[0])
    sizes = _observe_sizes(lowered, paths, example, keywords)
    errors: dict[str, float] = {}
    for layer, (size, out_size) in sizes.items():
        replacement = _lower(layer, size, out_size)
        error = _compare(layer, replacement, size, out_size, paths[layer][0])
        for name in paths[layer]:
            errors[name] = error
            if not name:
                return Lowering(replacement, errors, notes)
            lowered.set_submodule(name, replacement)
    return Lowering(lowered, errors, notes)


def _paths(module: nn.Module) -> dict[BaseSpectralConv, list[str]]:
    """Dotted paths of each spectral layer; a shared layer has several."""
    found: dict[BaseSpectralConv, list[str]] = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        if isinstance(layer, BaseSpectralConv):
            found.setdefault(layer, []).append(name)
    return found


def _refusal(name: str, reason: str) -> UnsupportedError:
    return UnsupportedError(f"layer {name or '(the module itself)'}: {reason}")


def _refuse_unsupported(layer: BaseSpectralConv, name: str) -> None:
    if _is_spherical(layer):
        from ptychonnx.export.lowering.torch.spherical import refusal

        if reason := refusal(layer):
            raise _refusal(name, reason)
    elif not isinstance(layer, SpectralConv):
        raise _refusal(
            name, f"{type(layer).__name__} cannot be lowered, only SpectralConv and SphericalConv can"
        )
    if any(parameter.dtype not in (torch.float32, torch.complex64) for parameter in layer.parameters()):
        raise _refusal(name, "only single precision weights can be lowered")


def _is_spherical(layer: BaseSpectralConv) -> bool:
    # The class exists only with torch-harmonics, and only after an import.
    module = sys.modules.get("neuralop.layers.spherical_convolution")
    return module is not None and isinstance(layer, module.SphericalConv)


def _data_type(layer: BaseSpectralConv) -> torch.dtype:
    return torch.complex64 if getattr(layer, "complex_data", False) else torch.float32


def _lower(
    layer: BaseSpectralConv, size: Sequence[int], out_size: Sequence[int]
) -> LoweredSpectralConv | LoweredSphericalConv:
    if _is_spherical(layer):
        from ptychonnx.export.lowering.torch.spherical import LoweredSphericalConv

        return LoweredSphericalConv(layer, size, out_size).eval()
    return LoweredSpectralConv(layer, size, out_size).eval()


def _observe_sizes(
    module: nn.Module,
    paths: dict[BaseSpectralConv, list[str]],
    example: Sequence[Any],
    keywords: Mapping[str, Any],
) -> dict[SpectralConv, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Spatial sizes of input and output of each layer, from one forward pass."""
    sizes: dict[SpectralConv, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def observe(layer: SpectralConv, inputs: tuple[Tensor, ...], keywords: dict, output: Tensor) -> None:
        x = inputs[0] if inputs else keywords["x"]
        name = paths[layer][0]
        expected = _data_type(layer)
        if x.dtype != expected:
            raise _refusal(name, f"receives {x.dtype}, only {expected} can be lowered")
        seen = (tuple(x.shape[2:]), tuple(output.shape[2:]))
        if sizes.setdefault(layer, seen) != seen:
            raise _refusal(
                name, f"is called at sizes {sizes[layer][0]} and {seen[0]}, only one size can be lowered"
            )

    handles = [layer.register_forward_hook(observe, with_kwargs=True) for layer in paths]
    try:
        with real_resampling():
            module(*example, **keywords)
    except InputError:
        raise
    except Exception as error:  # the module may raise anything
        tensors = list(tensors_in((example, dict(keywords))))
        raise InputError(_forward_failure(paths, tensors, error)) from error
    finally:
        for handle in handles:
            handle.remove()
    for layer, names in paths.items():
        if layer not in sizes:
            raise _refusal(names[0], "is not reached by a forward pass, so its size is unknown")
    return sizes


def _forward_failure(
    paths: dict[BaseSpectralConv, list[str]], example: Sequence[Tensor], error: Exception
) -> str:
    for layer, names in paths.items():
        if _data_type(layer).is_complex and not any(x.is_complex() for x in example):
            where = names[0] or "(the module itself)"
            return f"layer {where}: works on complex data and the example is real: {first_line(error)}"
    shapes = ", ".join(str(list(x.shape)) for x in example)
    return f"the module does not run on inputs of shape {shapes}: {first_line(error)}"


def _kept_weight(layer: SpectralConv, size: Sequence[int]) -> Tensor | FactorizedTensor:
    """The part complex [I, (O,) *modes] of the weight that the layer uses at a size."""
    spectrum = [*size] if layer.complex_data else [*size[:-1], size[-1] // 2 + 1]
    starts = [
        most - min(length, modes)
        for length, modes, most in zip(spectrum, layer.n_modes, layer.max_n_modes, strict=True)
    ]
    index = [slice(start // 2, -start // 2) if start else slice(None) for start in starts]
    if not layer.complex_data:
        index[-1] = slice(None, -starts[-1]) if starts[-1] else slice(None)
    channels = [slice(None)] * (1 if layer.separable else 2)
    return layer.weight[(*channels, *index)]


def _compare(
    layer: BaseSpectralConv,
    replacement: LoweredSpectralConv | LoweredSphericalConv,
    size: Sequence[int],
    out_size: Sequence[int],
    name: str,
) -> float:
    """Largest difference on a random input over the largest output of the original, including the skip connection."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, layer.in_channels, *size, generator=generator, dtype=_data_type(layer))
    shape = tuple(out_size)
    errors = [relative_error(replacement(x), layer(x, output_shape=shape))]
    is_kept = isinstance(replacement, LoweredSpectralConv) and tuple(size) == shape
    if replacement.skip is not None or (is_kept and not x.is_complex()):
        skipped, expected = (one.transform(x, output_shape=shape) for one in (replacement, layer))
        errors.append(relative_error(skipped, expected))
    for error in errors:
        # Written so that NaN fails.
        if not error <= LAYER_TOLERANCE:
            raise VerificationError(
                f"layer {name or '(the module itself)'}: its lowered form differs by {error:.1e} of the "
                f"largest output, allowed is {LAYER_TOLERANCE:.0e}"
            )
    return max(errors)
