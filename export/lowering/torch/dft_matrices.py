"""Fourier transforms of a few modes at one fixed size, as real matrix products.

The matrices are the float64 outputs of torch's transforms for identity matrices, with the same calls as in the layers.
This reproduces the behaviour of neuralop for odd sizes (`fftshift` in both directions), for sizes that `irfftn` trims
or pads, for too many modes, and for any normalisation. The constants also contain scales such as 1 / (H W), and the
factor 2 of frequencies that represent a conjugate pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from neuralop.layers.spectral_convolution import SpectralConv
from torch import Tensor, nn

__all__ = [
    "AxisTransform",
    "FourierChain",
    "RowsFirstChain",
    "convolution_axes",
    "fourier_chain",
    "resampling_axes",
]


# Below this fraction of the multiplications, rows first is faster in spite of two more transpositions.
_ROWS_FIRST_BELOW = 0.7


@dataclass(frozen=True)
class AxisTransform:
    """Forward and inverse transform along one axis, as `FourierChain` multiplies them.

    * `size`, `modes`, `out_size`: n points become k modes, which become m points.
    * `forward`, `inverse`: float64. Matrices of the last axis multiply from the right: [n, 2 k] and [2 k, m] for real
      data, [2 n, 2 k] and [2 k, 2 m] for complex data. Those of any other axis multiply from the left: [2 k, 2 n] and
      [2 m, 2 k].
    """

    size: int
    modes: int
    out_size: int
    forward: Tensor
    inverse: Tensor


class FourierChain(nn.Module):
    """Forward transform along all axes, a module that acts on modes, inverse transform; fixed size, real arithmetic.

    With axes ``n_1 .. n_d``, kept modes ``k_1 .. k_d`` and p = 2 parts (real, imaginary), a value is::

        [B, I, n_1 .. n_d]              x
        [B, I, n_1 .. n_(d-1), p, k_d]  @ last forward matrix
        [B, I, p, k_1, .. k_d]          other forward matrices from the left, axis d - 1 first
        [B, O, p, k_1 .. k_d]           `between` on [B, 2 I, K], such as `mode_mixing.mix_channels`
        [B, O, m_1 .. m_(d-1), p, k_d]  inverse matrices from the left, axis 1 first
        [B, O, m_1 .. m_d]              @ last inverse matrix

    The part index is always next to the axis that is transformed next, so nothing is transposed. Complex data are
    pairs of numbers, [.., n_d p] and [.., m_d p].
    """

    def __init__(
        self, axes: Sequence[AxisTransform], between: nn.Module, *, complex_data: bool = False
    ) -> None:
        super().__init__()
        self.size = tuple(axis.size for axis in axes)
        self.modes = tuple(axis.modes for axis in axes)
        self.out_size = tuple(axis.out_size for axis in axes)
        self.parts = 2 if complex_data else 1
        self.between = between
        for number, axis in enumerate(axes):
            self.register_buffer(f"forward_{number}", axis.forward.float())
            self.register_buffer(f"inverse_{number}", axis.inverse.float())

    def forward(self, x: Tensor, out_channels: int) -> Tensor:
        """[B, I, *size] to [B, O, *out_size]; for complex data the last sizes are twice as large."""
        size, modes, out, channels = self.size, self.modes, self.out_size, x.shape[1]
        last = len(size) - 1
        x = x @ self.get_buffer(f"forward_{last}")
        for axis in range(last - 1, -1, -1):
            rest = math.prod(modes[axis + 1 :])
            x = x.reshape(-1, channels, *size[:axis], 2 * size[axis], rest)
            x = self.get_buffer(f"forward_{axis}") @ x
        x = self.between(x.reshape(-1, 2 * channels, math.prod(modes)))
        for axis in range(last):
            rest = math.prod(modes[axis + 1 :])
            x = x.reshape(-1, out_channels, *out[:axis], 2 * modes[axis], rest)
            x = self.get_buffer(f"inverse_{axis}") @ x
        x = x.reshape(-1, out_channels, *out[:last], 2 * modes[last])
        return x @ self.get_buffer(f"inverse_{last}")


class RowsFirstChain(nn.Module):
    """`FourierChain` of real data along two axes, first axis first, for far fewer modes along that axis.

    A value is::

        [B, I, n_1, n_2]
        [B, I, k_1, p, n_2]   first matrix from the left
        [B, I, k_1, p, k_2]   @ second matrix
        [B, O, p, k_1, k_2]   `between` on [B, 2 I, K]
        [B, O, k_1, p, m_2]   @ third matrix
        [B, O, m_1, m_2]      fourth matrix from the left
    """

    def __init__(self, axes: Sequence[AxisTransform], between: nn.Module) -> None:
        super().__init__()
        rows, columns = axes
        self.size = (rows.size, columns.size)
        self.modes = (k_1, k_2) = (rows.modes, columns.modes)
        self.out_size = (rows.out_size, columns.out_size)
        self.between = between
        # Data are real, so only the half of the matrix for real parts is needed.
        there = rows.forward.reshape(2, k_1, rows.size, 2)[..., 0].transpose(0, 1).flatten(0, 1)
        real, imaginary = columns.forward[:, :k_2], columns.forward[:, k_2:]
        across = torch.cat([torch.cat([real, imaginary], 1), torch.cat([-imaginary, real], 1)])
        # The inverse along rows is Gr + i Gi; along columns it is A Re + B Im, which is not a complex product:
        # y = Gr (A Xr + B Xi) + Gi (B Xr - A Xi).
        a, b = columns.inverse[:k_2], columns.inverse[k_2:]
        over = torch.cat([torch.cat([a, b], 1), torch.cat([b, -a], 1)])
        block = rows.inverse.reshape(rows.out_size, 2, 2, k_1)
        back = torch.stack([block[:, 0, 0], -block[:, 0, 1]], -1).flatten(1)
        for name, matrix in (("first", there), ("second", across), ("third", over), ("fourth", back)):
            self.register_buffer(name, matrix.float().contiguous())

    def forward(self, x: Tensor, out_channels: int) -> Tensor:
        """[B, I, *size] to [B, O, *out_size]."""
        (k_1, k_2), channels = self.modes, x.shape[1]
        x = self.get_buffer("first") @ x
        x = x.reshape(-1, channels, k_1, 2 * self.size[1]) @ self.get_buffer("second")
        x = x.reshape(-1, channels, k_1, 2, k_2).transpose(2, 3)
        x = self.between(x.reshape(-1, 2 * channels, k_1 * k_2))
        x = x.reshape(-1, out_channels, 2, k_1, k_2).transpose(2, 3)
        x = x.reshape(-1, out_channels, k_1, 2 * k_2) @ self.get_buffer("third")
        return self.get_buffer("fourth") @ x.reshape(-1, out_channels, 2 * k_1, self.out_size[1])


def fourier_chain(
    axes: Sequence[AxisTransform], between: nn.Module, *, complex_data: bool = False
) -> FourierChain | RowsFirstChain:
    """The faster chain: `RowsFirstChain` if it needs less than 0.7 of the multiplications of `FourierChain`."""
    if len(axes) == 2 and not complex_data:
        rows, columns = axes
        columns_first = rows.size * columns.size * columns.modes + 2 * rows.modes * columns.modes * rows.size
        rows_first = rows.size * columns.size * rows.modes + 2 * rows.modes * columns.modes * columns.size
        if rows_first < _ROWS_FIRST_BELOW * columns_first:
            return RowsFirstChain(axes, between)
    return FourierChain(axes, between, complex_data=complex_data)


def convolution_axes(
    layer: SpectralConv, size: Sequence[int], out_size: Sequence[int], modes: Sequence[int]
) -> list[AxisTransform]:
    """Transforms of a `SpectralConv` that keeps `modes`, for inputs of `size` and outputs of `out_size`."""
    axes = []
    for axis, (length, kept, out) in enumerate(zip(size, modes, out_size, strict=True)):
        norm, is_last = layer.fft_norm, axis == layer.order - 1
        if is_last and not layer.complex_data:
            axes.append(_real_axis(length, kept, out, norm))
            continue
        # On the last axis the layer keeps the first modes, and shifts the spectrum forward only.
        first = 0 if is_last else length // 2 - kept // 2
        modes_of = torch.fft.fft(torch.eye(length, dtype=torch.float64), norm=norm)
        if layer.order > 1:
            modes_of = torch.fft.fftshift(modes_of, dim=-1)
        spectrum = torch.zeros(kept, length, dtype=torch.complex128)
        spectrum[:, first : first + kept] = torch.eye(kept)
        if not is_last:
            # The layer applies the forward shift on the way back too, which is not the inverse for odd sizes.
            spectrum = torch.fft.fftshift(spectrum, dim=-1)
        points_of = torch.fft.ifft(spectrum, n=out, norm=norm)
        axes.append(_complex_axis(modes_of[:, first : first + kept], points_of, is_last=is_last))
    return axes


def resampling_axes(size: Sequence[int], out_size: Sequence[int]) -> list[AxisTransform]:
    """Transforms of `neuralop.layers.resample.resample`, which resamples three or more axes through their modes.

    It keeps the first and the last m // 2 modes of every axis but the last axis; for odd m, one more of the last modes.
    """
    axes = []
    for length, out in zip(size[:-1], out_size[:-1], strict=True):
        kept = min(length, out)
        negative = range(-kept // 2, 0)
        forward = torch.fft.fft(torch.eye(length, dtype=torch.float64), norm="forward")
        spectrum = torch.zeros(kept // 2 + len(negative), out, dtype=torch.complex128)
        chosen = [*range(kept // 2), *negative]
        spectrum[torch.arange(len(chosen)), torch.tensor(chosen)] = 1
        axes.append(
            _complex_axis(forward[:, chosen], torch.fft.ifft(spectrum, norm="forward"), is_last=False)
        )
    kept = min(size[-1], out_size[-1]) // 2 + 1
    return [*axes, _real_axis(size[-1], kept, out_size[-1], "forward")]


def _real_axis(length: int, kept: int, out: int, norm: str) -> AxisTransform:
    """Last axis of real data: `rfft`, the first modes, and `irfft`, which ignores some imaginary parts."""
    forward = torch.fft.rfft(torch.eye(length, dtype=torch.float64), norm=norm)[:, :kept]
    spectrum = torch.eye(kept, dtype=torch.complex128)
    inverse = [torch.fft.irfft(part * spectrum, n=out, norm=norm) for part in (1, 1j)]
    return AxisTransform(length, kept, out, torch.cat([forward.real, forward.imag], 1), torch.cat(inverse))


def _complex_axis(forward: Tensor, inverse: Tensor, *, is_last: bool) -> AxisTransform:
    """Axis of complex values, from complex matrices [n, k] and [k, m]."""
    (length, kept), out = forward.shape, inverse.shape[1]
    there, back = _real_block(forward), _real_block(inverse)
    if is_last:
        # [n, part in] x [part out, k]; then [part in, k] x [m, part out].
        there = there.permute(2, 1, 0, 3).reshape(2 * length, 2 * kept)
        back = back.permute(1, 2, 3, 0).reshape(2 * kept, 2 * out)
    else:
        there = there.permute(0, 3, 2, 1).reshape(2 * kept, 2 * length)
        back = back.permute(3, 0, 1, 2).reshape(2 * out, 2 * kept)
    return AxisTransform(length, kept, out, there, back)


def _real_block(matrix: Tensor) -> Tensor:
    """Real form [part out, part in, n, k] of a complex matrix [n, k]."""
    real, imaginary = matrix.real, matrix.imag
    return torch.stack([torch.stack([real, -imaginary]), torch.stack([imaginary, real])])
