"""Layers and functions of complex numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, fft, nn
from torch.nn import functional

from benchmarks.exporter_cases.case import complex_numbers, integers, real
from benchmarks.exporter_cases.torch_cases import new_cases, spectral_weight

CASES = new_cases()


@CASES.add("complex linear layer, modReLU", complex_numbers(16))
class ComplexLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 8, dtype=torch.complex64)
        self.bias = nn.Parameter(torch.rand(8) - 0.5)

    def forward(self, z: Tensor) -> Tensor:
        z = self.linear(z)
        size = z.abs()
        return functional.relu(size + self.bias) * z / (size + 1e-6)


@CASES.add("complex convolution with stride and padding", complex_numbers(2, 12, 12))
class ComplexConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, dtype=torch.complex64)
        self.second = nn.Conv2d(4, 2, 3, stride=2, groups=2, bias=False, dtype=torch.complex64)

    def forward(self, z: Tensor) -> Tensor:
        z = self.first(z)
        return self.second(torch.complex(functional.relu(z.real), functional.relu(z.imag)))


@CASES.add("transposed complex convolution", complex_numbers(2, 20))
class ComplexTransposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose1d(2, 3, 4, stride=2, padding=1, dtype=torch.complex64)

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z)


@CASES.add("normalisation by mean and variance of complex channels", complex_numbers(3, 10, 10))
def complex_normalisation(z: Tensor) -> Tensor:
    z = z - z.mean((-2, -1), keepdim=True)
    return z / torch.sqrt(z.var((-2, -1), keepdim=True) + 1e-5)


@CASES.add("einsum of three complex operands", complex_numbers(4, 6), complex_numbers(6, 5))
class ThreeOperands(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = spectral_weight(5, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.einsum("bij,bjk,ko->bio", x, y, self.weight)


@CASES.add("attention with complex scores", complex_numbers(10, 8))
class ComplexAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (spectral_weight(8, 8) for _ in range(3))

    def forward(self, z: Tensor) -> Tensor:
        query, key, value = z @ self.query, z @ self.key, z @ self.value
        scores = torch.softmax((query @ key.mH).abs() / math.sqrt(8), -1)
        return scores.to(value.dtype) @ value


@CASES.add("where and masked_fill on magnitudes", complex_numbers(4, 16))
def threshold(z: Tensor) -> Tensor:
    size = z.abs()
    kept = torch.where(size > 0.7, z, torch.zeros_like(z))
    return kept.masked_fill(size > 2, 1 - 1j)


@CASES.add("assignment to slices", complex_numbers(4, 12))
def assignment(z: Tensor) -> Tensor:
    z = z.clone()
    z[:, 1:3, ::2] = z[:, 1:3, ::2] * 1j
    z[:, 0] = z[:, 3].conj()
    z[..., -1] = 0.5
    return z


@CASES.add("indexing, gather, roll, flip", complex_numbers(5, 8), integers(5, 3, largest=7))
def indexing(z: Tensor, index: Tensor) -> Tensor:
    rows = z[:, [4, 0, 0, 2]]
    return torch.cat([z.gather(-1, index), z.roll(2, -1).flip(1)[..., 1::3], rows.mean(1)[:, None, :3]], 1)


@CASES.add("polar and angle", complex_numbers(3, 16), real(3, 16))
def turned(z: Tensor, angle: Tensor) -> Tensor:
    return torch.polar(z.abs().sqrt(), z.angle() / 2 + angle)


@CASES.add("exp, log, roots, powers, circular functions", complex_numbers(20))
def functions(z: Tensor) -> Tensor:
    shifted = z * 0.3 + 2
    terms = [shifted.exp(), shifted.log(), shifted.sqrt(), shifted**3, shifted**0.3, shifted.sin(), z.tanh()]
    return torch.stack(terms, 1)


@CASES.add("weights as pairs, by view_as_complex", real(4, 16, 16))
class GlobalFilter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 16, 9, 2) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = fft.rfft2(x, norm="ortho") * torch.view_as_complex(self.weight)
        return fft.irfft2(spectrum, s=(16, 16), norm="ortho")


@CASES.add("rotary embedding by view_as_complex", real(12, 16))
class RotaryEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(12.0), 100.0 ** (-torch.arange(8) / 8))
        self.register_buffer("turn", torch.polar(torch.ones_like(angles), angles))

    def forward(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], 8, 2))
        return torch.view_as_real(pairs * self.turn).flatten(-2)


@CASES.add("diagonal state space model, kernel of powers", real(4, 64))
class StateSpace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.rand(4, 8))
        self.frequency = nn.Parameter(torch.arange(8.0).repeat(4, 1))
        self.output = spectral_weight(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        exponent = torch.complex(-torch.exp(self.rate), self.frequency) * 0.05
        powers = torch.exp(exponent[..., None] * torch.arange(64))
        kernel = 2 * torch.einsum("hn,hnl->hl", self.output, powers).real
        return fft.irfft(fft.rfft(x, n=128) * fft.rfft(kernel, n=128), n=128)[..., :64]


@CASES.add("cumulative sum and product", complex_numbers(3, 12))
def cumulative(z: Tensor) -> Tensor:
    return z.cumsum(-1) + torch.cumprod(z / (1 + z.abs()), -1)


@CASES.add("solution of 3 x 3 systems, determinant, inverse", complex_numbers(3, 3), complex_numbers(3, 2))
def small_systems(matrix: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    matrix = matrix + 4 * torch.eye(3)
    return torch.linalg.solve(matrix, right), torch.linalg.det(matrix), torch.linalg.inv(matrix)


@CASES.add("outer products and traces of density matrices", complex_numbers(6))
def density(state: Tensor) -> tuple[Tensor, Tensor]:
    state = state / torch.linalg.vector_norm(state, dim=-1, keepdim=True)
    matrix = state[..., :, None] * state[..., None, :].conj()
    return matrix, torch.einsum("bii->b", matrix @ matrix).real
