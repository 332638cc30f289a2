"""The middle of a Fourier layer: channels are mixed mode by mode, in real arithmetic.

Values are [B, 2 C, K]: adjacent real and imaginary parts of each channel, K modes. A factorised weight of
neuraloperator (Tucker, CP, tensor train) is applied in the factorisation with the fewest numbers: the factors of the
channels as thin products around a small core, or multiplied out. The products are so thin that reading the constants
takes most of the time, see `docs/decisions/0005-fourier-layers.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tltorch import CPTensor, TTTensor, TuckerTensor
from tltorch.factorized_tensors.core import FactorizedTensor
from torch import Tensor, nn

__all__ = [
    "ChannelProjection",
    "Factors",
    "ModeMixing",
    "ModeScaling",
    "factorisations",
    "mix_channels",
    "multiplied_out",
    "real_block",
    "scale_modes",
    "smallest",
]


@dataclass(frozen=True)
class Factors:
    """A weight complex [I, O, K] as ``sum over r and s of inside[i, r] core[r, s, k] outside[s, o]``.

    * `core`: complex [R, S, K]; [R, K] if r = s, so that the core mixes no channels.
    * `inside`, `outside`: complex [I, R] and [S, O]; None if there is no such factor.
    """

    core: Tensor
    inside: Tensor | None = None
    outside: Tensor | None = None

    @property
    def numbers(self) -> int:
        """Number of complex numbers."""
        return sum(part.numel() for part in (self.core, self.inside, self.outside) if part is not None)

    def module(self) -> nn.Module:
        """The module [B, 2 I, K] to [B, 2 O, K] that applies it."""
        steps = [
            None if self.inside is None else ChannelProjection(self.inside),
            ModeMixing(self.core) if self.core.ndim == 3 else ModeScaling(self.core),
            None if self.outside is None else ChannelProjection(self.outside),
        ]
        return nn.Sequential(*(step for step in steps if step is not None))


class ChannelProjection(nn.Module):
    """``y[o] = sum over i of x[i] weight[i, o]``, the same for each mode: [B, 2 I, K] to [B, 2 O, K]."""

    matrix: Tensor

    def __init__(self, weight: Tensor) -> None:
        """Copy a weight complex [I, O]."""
        super().__init__()
        self.register_buffer("matrix", real_block(weight[None])[0].T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix @ x


class ModeMixing(nn.Module):
    """``y[o, k] = sum over i of x[i, k] weight[i, o, k]``: [B, 2 I, K] to [B, 2 O, K]."""

    matrix: Tensor

    def __init__(self, weight: Tensor) -> None:
        """Copy a weight complex [I, O, K]."""
        super().__init__()
        self.register_buffer("matrix", real_block(weight.permute(2, 0, 1)))

    def forward(self, x: Tensor) -> Tensor:
        # Only one axis moves, which is much faster than any other transposition in engines.
        return (x.permute(2, 0, 1) @ self.matrix).permute(1, 2, 0)


class ModeScaling(nn.Module):
    """``y[c, k] = x[c, k] weight[c, k]``: [B, 2 C, K] to the same."""

    same_part: Tensor
    other_part: Tensor

    def __init__(self, weight: Tensor) -> None:
        """Copy a weight complex [C, K]."""
        super().__init__()
        real, imaginary = weight.real, weight.imag
        self.channels, self.modes = weight.shape
        self.register_buffer("same_part", real[:, None].contiguous())
        self.register_buffer("other_part", torch.stack([-imaginary, imaginary], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, self.channels, 2, self.modes)
        swapped = torch.cat([x[:, :, 1:], x[:, :, :1]], dim=2)
        x = x * self.same_part + swapped * self.other_part
        return x.reshape(-1, 2 * self.channels, self.modes)


def mix_channels(weight: Tensor | FactorizedTensor) -> nn.Module:
    """The smallest module [B, 2 I, K] to [B, 2 O, K] that applies a weight complex [I, O, *modes]."""
    return smallest(weight).module()


def scale_modes(weight: Tensor | FactorizedTensor) -> nn.Module:
    """The module [B, 2 C, K] to the same that applies a separable weight complex [C, *modes]."""
    return ModeScaling(multiplied_out(weight).flatten(1))


def smallest(weight: Tensor | FactorizedTensor) -> Factors:
    """The factorisation with the fewest numbers, and with the fewest products among equal ones."""
    return min(factorisations(weight), key=lambda factors: factors.numbers)


def factorisations(weight: Tensor | FactorizedTensor) -> list[Factors]:
    """All ways to apply a weight complex [I, O, *modes], starting with the one without factors."""
    ways = [Factors(multiplied_out(weight).flatten(2))]
    if isinstance(weight, CPTensor):
        scales, inside, outside, *modes = _double(weight.weights, *weight.factors)
        core = scales[:, None]
        for factor in modes:
            core = (core[:, :, None] * factor.T[:, None]).flatten(1)
        ways.append(_single(core, inside, outside.T))
    elif isinstance(weight, TuckerTensor):
        core, inside, outside, *modes = _double(weight.core, *weight.factors)
        for factor in modes:
            # The contracted axis is always the third; the new one comes last.
            core = torch.tensordot(core, factor, dims=([2], [1]))
        core = core.flatten(2)
        with_inside = torch.einsum("ir,rsk->isk", inside, core)
        with_outside = torch.einsum("rsk,os->rok", core, outside)
        ways += [
            _single(with_outside, inside, None),
            _single(with_inside, None, outside.T),
            _single(core, inside, outside.T),
        ]
    elif isinstance(weight, TTTensor):
        inside, *rest = _double(*weight.factors)
        core = rest[0]
        for factor in rest[1:]:
            core = torch.tensordot(core, factor, dims=([-1], [0]))
        # [R, O, *modes, 1]
        ways.append(_single(core.flatten(2), inside[0], None))
    return ways


def multiplied_out(weight: Tensor | FactorizedTensor) -> Tensor:
    """A weight without factors."""
    return (weight if torch.is_tensor(weight) else weight.to_tensor()).detach()


def _double(*parts: Tensor) -> list[Tensor]:
    return [part.detach().to(torch.complex128) for part in parts]


def _single(core: Tensor, inside: Tensor | None, outside: Tensor | None) -> Factors:
    inside, outside = (None if part is None else part.to(torch.complex64) for part in (inside, outside))
    return Factors(core.to(torch.complex64), inside, outside)


def real_block(weight: Tensor) -> Tensor:
    """Real form [K, 2 I, 2 O] of a weight complex [K, I, O], a block [[Wr, Wi], [-Wi, Wr]] for each pair."""
    real, imaginary = weight.real, weight.imag
    block = torch.stack([torch.stack([real, imaginary], -1), torch.stack([-imaginary, real], -1)], 2)
    return block.flatten(3).flatten(1, 2).contiguous()
