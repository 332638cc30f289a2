"""Lowering of neuraloperator's Fourier layers to products of real matrices.

No inference engine has the complex transforms that `neuralop.layers.spectral_convolution.SpectralConv` uses,
and only a few frequencies of them survive. At a fixed size each layer is therefore the same as a short chain
of thin real matrix products with constant matrices: forward transform of the kept modes axis by axis, one
small product a mode that mixes the channels, inverse transform axis by axis.

The matrices are columns of torch's own transforms, in float64: identities fed through exactly the calls that
the layer makes. What neuralop does on odd sizes (`fftshift` in both directions), with sizes trimmed or padded
by `irfftn`, with too many modes, or with any normalisation is thereby reproduced, not derived again. Every
lowered layer is compared with its original before it is used.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from neuralop.layers.base_spectral_conv import BaseSpectralConv
from neuralop.layers.spectral_convolution import SpectralConv
from torch import Tensor, nn

from runtime.errors import InputError, VerificationError

__all__ = ["LAYER_TOLERANCE", "LOWERING", "LoweredSpectralConv", "Lowering", "lower_spectral"]

LAYER_TOLERANCE = 1e-5
LOWERING = "neuralop SpectralConv as real matrix products"


@dataclass(frozen=True)
class Lowering:
    """A module without spectral convolutions that computes the same.

    Attributes
    ----------
    module
        A copy in evaluation mode; the caller's module is untouched.
    layers
        Relative error of each lowered layer against its original, by dotted path.
    notes
        What was lowered otherwise than it was trained, by dotted path.
    """

    module: nn.Module
    layers: dict[str, float]
    notes: dict[str, str] = field(default_factory=dict)


class LoweredSpectralConv(nn.Module):
    """A spectral convolution at one fixed size, in real arithmetic.

    With axes ``n_1 .. n_d``, kept modes ``k_1 .. k_d`` and p = 2 parts (real, imaginary), a value is::

        [B, I, n_1 .. n_d]              x
        [B, I, n_1 .. n_(d-1), p, k_d]  @ last forward matrix
        [B, I, p, k_1, .. k_d]          other forward matrices from the left, axis d - 1 first
        [k_1 .. k_d, B, O, p]           @ mixing, one real block [[Wr, Wi], [-Wi, Wr]] a mode and pair of channels
        [B, O, m_1 .. m_(d-1), p, k_d]  inverse matrices from the left, axis 1 first
        [B, O, m_1 .. m_d]              @ last inverse matrix, + bias

    The part index always lies beside the axis that is transformed next, so only the mixing needs
    transpositions. Separable weights do not mix channels: there each mode is multiplied where it stands.

    Complex data are complex tensors outside and pairs of numbers, last axis p, inside; the last matrices then
    have 2 n_d rows and 2 m_d columns.
    """

    bias: Tensor | None

    def __init__(self, layer: SpectralConv, size: Sequence[int], out_size: Sequence[int]) -> None:
        """Take over the weights of `layer` for inputs [B, I, *size] and outputs [B, O, *out_size]."""
        super().__init__()
        weight = _kept_weight(layer, size)
        self.size, self.out_size = tuple(size), tuple(out_size)
        self.modes = tuple(weight.shape[1 if layer.separable else 2 :])
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.separable, self.complex_data = layer.separable, layer.complex_data
        # What `SpectralConv.transform` reads: neuralop's blocks call it for their skip connections.
        self.resolution_scaling_factor = layer.resolution_scaling_factor
        for axis in range(layer.order):
            forward, inverse = _axis_matrices(layer, axis, size, out_size, self.modes)
            self.register_buffer(f"forward_{axis}", forward.float())
            self.register_buffer(f"inverse_{axis}", inverse.float())
        if layer.separable:
            real, imaginary = weight.real.flatten(1), weight.imag.flatten(1)
            self.register_buffer("same_part", real[:, None].contiguous())
            self.register_buffer("other_part", torch.stack([-imaginary, imaginary], dim=1))
        else:
            self.register_buffer("mixing", _mixing(weight))
        # Added to flattened pixels: some engines fail on [C, 1, 1] behind a matrix product.
        bias = None if layer.bias is None else layer.bias.detach().reshape(self.out_channels, 1).clone()
        if bias is not None and layer.complex_data:
            # Real, so it is added to the real part.
            bias = torch.stack([bias, torch.zeros_like(bias)], dim=-1).expand(-1, math.prod(out_size), -1)
            bias = bias.flatten(1)
        self.register_buffer("bias", bias)

    def transform(self, x: Tensor, output_shape: Sequence[int] | None = None) -> Tensor:
        """Resample `x` like the original layer does for a skip connection."""
        return SpectralConv.transform(self, x, output_shape)

    def forward(self, x: Tensor, output_shape: Sequence[int] | None = None) -> Tensor:
        """[B, I, *size] to [B, O, *out_size]; `output_shape` was fixed when the layer was lowered."""
        size, modes, out = self.size, self.modes, self.out_size
        last = len(size) - 1
        parts = 2 if self.complex_data else 1
        if self.complex_data:
            x = torch.view_as_real(x).reshape(-1, self.in_channels, *size[:-1], 2 * size[-1])
        x = x @ self.get_buffer(f"forward_{last}")
        for axis in range(last - 1, -1, -1):
            rest = math.prod(modes[axis + 1 :])
            x = x.reshape(-1, self.in_channels, *size[:axis], 2 * size[axis], rest)
            x = self.get_buffer(f"forward_{axis}") @ x
        x = self._mix_each_mode(x) if self.separable else self._mix_channels(x)
        for axis in range(last):
            rest = math.prod(modes[axis + 1 :])
            x = x.reshape(-1, self.out_channels, *out[:axis], 2 * modes[axis], rest)
            x = self.get_buffer(f"inverse_{axis}") @ x
        x = x.reshape(-1, self.out_channels, *out[:last], 2 * modes[last]) @ self.get_buffer(
            f"inverse_{last}"
        )
        if self.bias is not None:
            x = x.reshape(-1, self.out_channels, parts * math.prod(out)) + self.bias
            x = x.reshape(-1, self.out_channels, *out[:last], parts * out[last])
        if self.complex_data:
            return torch.view_as_complex(x.reshape(-1, self.out_channels, *out, 2))
        return x

    def _mix_channels(self, x: Tensor) -> Tensor:
        # Only one axis moves, which engines do much faster than any other transposition.
        x = x.reshape(-1, 2 * self.in_channels, math.prod(self.modes)).permute(2, 0, 1)
        return (x @ self.get_buffer("mixing")).permute(1, 2, 0)

    def _mix_each_mode(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, self.in_channels, 2, math.prod(self.modes))
        swapped = torch.cat([x[:, :, 1:], x[:, :, :1]], dim=2)
        return x * self.get_buffer("same_part") + swapped * self.get_buffer("other_part")


@torch.no_grad()
def lower_spectral(module: nn.Module, *example: Tensor) -> Lowering:
    """Replace every spectral convolution inside `module` by its real form.

    Parameters
    ----------
    module
        Any module tree; it is left as it is.
    example
        Inputs of one forward pass, by which the sizes are found. Sizes other than the batch are fixed by
        them.

    Raises
    ------
    InputError
        If a layer cannot be lowered; the message names it by its dotted path, and says why.
    VerificationError
        If a lowered layer does not give what its original gives.
    """
    lowered = copy.deepcopy(module).eval()
    paths = _paths(lowered)
    notes: dict[str, str] = {}
    for layer, names in paths.items():
        _refuse_unsupported(layer, names[0])
        if layer.fno_block_precision != "full":
            text = f"fno_block_precision={layer.fno_block_precision!r} lowered at full precision"
            notes.update(dict.fromkeys(names, text))
            layer.fno_block_precision = "full"
    sizes = _observe_sizes(lowered, paths, example)
    errors: dict[str, float] = {}
    for layer, (size, out_size) in sizes.items():
        replacement = LoweredSpectralConv(layer, size, out_size).eval()
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


def _refusal(name: str, reason: str) -> InputError:
    return InputError(f"layer {name or '(the module itself)'}: {reason}")


def _refuse_unsupported(layer: BaseSpectralConv, name: str) -> None:
    if not isinstance(layer, SpectralConv):
        raise _refusal(name, f"{type(layer).__name__} cannot be lowered, only SpectralConv can")
    if any(parameter.dtype not in (torch.float32, torch.complex64) for parameter in layer.parameters()):
        raise _refusal(name, "only single precision weights can be lowered")


def _observe_sizes(
    module: nn.Module, paths: dict[BaseSpectralConv, list[str]], example: Sequence[Tensor]
) -> dict[SpectralConv, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Spatial size of input and output of each layer, by one real forward pass."""
    sizes: dict[SpectralConv, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def observe(layer: SpectralConv, inputs: tuple[Tensor, ...], keywords: dict, output: Tensor) -> None:
        x = inputs[0] if inputs else keywords["x"]
        name = paths[layer][0]
        expected = torch.complex64 if layer.complex_data else torch.float32
        if x.dtype != expected:
            raise _refusal(name, f"gets {x.dtype}, only {expected} can be lowered")
        seen = (tuple(x.shape[2:]), tuple(output.shape[2:]))
        if sizes.setdefault(layer, seen) != seen:
            raise _refusal(
                name, f"is called at sizes {sizes[layer][0]} and {seen[0]}, only one size can be lowered"
            )

    handles = [layer.register_forward_hook(observe, with_kwargs=True) for layer in paths]
    try:
        module(*example)
    finally:
        for handle in handles:
            handle.remove()
    for layer, names in paths.items():
        if layer not in sizes:
            raise _refusal(names[0], "is not reached by a forward pass, so its size is unknown")
    return sizes


def _kept_weight(layer: SpectralConv, size: Sequence[int]) -> Tensor:
    """The part complex [I, (O,) *modes] of the weight that is used at a size, cut as in the layer itself."""
    spectrum = [*size] if layer.complex_data else [*size[:-1], size[-1] // 2 + 1]
    starts = [
        most - min(length, modes)
        for length, modes, most in zip(spectrum, layer.n_modes, layer.max_n_modes, strict=True)
    ]
    index = [slice(start // 2, -start // 2) if start else slice(None) for start in starts]
    if not layer.complex_data:
        index[-1] = slice(None, -starts[-1]) if starts[-1] else slice(None)
    channels = [slice(None)] * (1 if layer.separable else 2)
    weight = layer.weight[(*channels, *index)]
    return (weight if torch.is_tensor(weight) else weight.to_tensor()).detach()


def _axis_matrices(
    layer: SpectralConv, axis: int, size: Sequence[int], out_size: Sequence[int], modes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Constant float64 matrices of one axis, in the form in which `LoweredSpectralConv` multiplies them."""
    norm, length, kept = layer.fft_norm, size[axis], modes[axis]
    is_last = axis == layer.order - 1
    points = torch.eye(length, dtype=torch.float64)
    if is_last and not layer.complex_data:
        spectrum = torch.zeros(kept, length // 2 + 1, dtype=torch.complex128)
        spectrum[:, :kept] = torch.eye(kept)
        forward = torch.fft.rfft(points, norm=norm)[:, :kept]
        parts = [torch.fft.irfft(part * spectrum, n=out_size[axis], norm=norm) for part in (1, 1j)]
        return torch.cat([forward.real, forward.imag], dim=1), torch.cat(parts)
    # On the last axis the layer keeps what comes first, shifted there and not back.
    first = 0 if is_last else length // 2 - kept // 2
    shifted = torch.fft.fft(points, norm=norm)
    if layer.order > 1:
        shifted = torch.fft.fftshift(shifted, dim=-1)
    forward = shifted[:, first : first + kept]
    spectrum = torch.zeros(kept, length, dtype=torch.complex128)
    spectrum[:, first : first + kept] = torch.eye(kept)
    if not is_last:
        # Shifted forward on the way back too, which differs from an inverse shift on odd sizes.
        spectrum = torch.fft.fftshift(spectrum, dim=-1)
    inverse = torch.fft.ifft(spectrum, n=out_size[axis], norm=norm)
    if is_last:
        return (
            # [n, part in] x [part out, k]; then [part in, k] x [m, part out].
            _real_block(forward).permute(2, 1, 0, 3).reshape(2 * length, 2 * kept),
            _real_block(inverse).permute(1, 2, 3, 0).reshape(2 * kept, 2 * out_size[axis]),
        )
    return (
        _real_block(forward).permute(0, 3, 2, 1).reshape(2 * kept, 2 * length),
        _real_block(inverse).permute(3, 0, 1, 2).reshape(2 * out_size[axis], 2 * kept),
    )


def _real_block(matrix: Tensor) -> Tensor:
    """Real form [part out, part in, n, k] of a complex matrix [n, k]."""
    real, imaginary = matrix.real, matrix.imag
    return torch.stack([torch.stack([real, -imaginary]), torch.stack([imaginary, real])])


def _mixing(weight: Tensor) -> Tensor:
    """Real form [modes, 2 I, 2 O] of a weight complex [I, O, *modes]; parts lie side by side in each channel."""
    real, imaginary = (part.flatten(2).permute(2, 0, 1) for part in (weight.real, weight.imag))
    block = torch.stack([torch.stack([real, imaginary], -1), torch.stack([-imaginary, real], -1)], 2)
    return block.flatten(3).flatten(1, 2).contiguous()


def _compare(
    layer: SpectralConv, replacement: nn.Module, size: Sequence[int], out_size: Sequence[int], name: str
) -> float:
    """Largest difference on a random input over the largest output of the original."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.complex64 if layer.complex_data else torch.float32
    x = torch.randn(2, layer.in_channels, *size, generator=generator, dtype=kind)
    expected, found = layer(x, output_shape=tuple(out_size)), replacement(x)
    scale = float(expected.abs().max())
    error = float((found - expected).abs().max()) / (scale or 1.0)
    # Written so that NaN fails.
    if not error <= LAYER_TOLERANCE:
        raise VerificationError(
            f"layer {name or '(the module itself)'}: its lowered form differs by {error:.1e} of the largest "
            f"output, allowed is {LAYER_TOLERANCE:.0e}"
        )
    return error
