"""Modules that take and return more than one tensor of floating-point numbers."""

from __future__ import annotations

import torch
from torch import Tensor, fft, nn

from benchmarks.exporter_cases.case import complex_numbers, integers, real
from benchmarks.exporter_cases.torch_cases import new_cases, spectral_weight

CASES = new_cases()


@CASES.add(
    "a number for each element, a grid without batch", real(1, 16, 16), real(), real(2, 16, 16, shared=True)
)
class Conditioned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Conv2d(4, 6, 1)

    def forward(self, field: Tensor, viscosity: Tensor, grid: Tensor) -> dict[str, Tensor]:
        batch = field.shape[0]
        number = viscosity[:, None, None, None].expand(-1, 1, 16, 16)
        x = torch.tanh(self.lift(torch.cat([field, number, grid.expand(batch, -1, -1, -1)], 1)))
        spectrum = fft.rfft2(x)
        decay = torch.exp(-viscosity.abs())[:, None, None, None] * spectrum
        return {"field": fft.irfft2(decay, s=(16, 16)), "energy": spectrum.abs().square().mean((1, 2, 3))}


@CASES.add("a dictionary of tensors", {"x": real(3, 24), "scale": real(1)})
class DictionaryInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = spectral_weight(3, 13)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        spectrum = fft.rfft(batch["x"]) * self.gain * batch["scale"][..., None]
        return {"y": fft.irfft(spectrum, n=24), "power": spectrum.abs()}


@CASES.add("token numbers and a mask", integers(12, largest=9), real(12, dtype="bool"))
class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.last = nn.Embedding(10, 16), nn.Linear(16, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embedding(ids) * mask[..., None]
        return self.last(fft.fft2(x).real).mean(1)


@CASES.add("keyword arguments, one left out", real(2, 16), gain=real(2))
class KeywordArguments(nn.Module):
    def forward(self, x: Tensor, *, gain: Tensor, shift: Tensor | None = None) -> Tensor:
        spectrum = fft.fft(x) * gain[..., None]
        return fft.ifft(spectrum if shift is None else spectrum + shift).real


@CASES.add("half precision in and out", real(1, 16, 16, dtype="float16"), tolerance=2e-3)
class HalfPrecision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = fft.rfft2(self.layer(x.float()), norm="ortho")
        return fft.irfft2(spectrum / (1 + spectrum.abs()), s=(16, 16), norm="ortho").half()


@CASES.add("double precision inside", real(1, 32), tolerance=1e-5)
class DoublePrecision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.randn(17, dtype=torch.complex128))

    def forward(self, x: Tensor) -> Tensor:
        return fft.irfft(fft.rfft(x.double()) * self.gain, n=32).float()


@CASES.add("a field, integers, and a number for the whole batch", real(1, 12, 12))
class SeveralOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y = self.layer(x)
        strength = fft.rfft2(y).abs().mean((-2, -1))
        return y, (strength.argmax(1), y.square().mean((1, 2, 3)))


@CASES.add("complex numbers in and out of a dictionary", complex_numbers(2, 10), complex_numbers(10))
def complex_outputs(z: Tensor, reference: Tensor) -> dict[str, Tensor]:
    product = z * reference[:, None].conj()
    return {"product": product, "spectrum": fft.fft(product), "overlap": product.sum(-1).abs()}


@CASES.add("steps that feed their output back", complex_numbers(24))
class Rollout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        k = 2 * torch.pi * fft.fftfreq(24)
        self.register_buffer("propagator", torch.exp(-0.5j * 0.1 * k**2))

    def forward(self, wave: Tensor) -> Tensor:
        steps = []
        for _ in range(4):
            wave = wave * torch.exp(-0.1j * wave.abs().square())
            wave = fft.ifft(fft.fft(wave) * self.propagator)
            steps.append(wave)
        return torch.stack(steps, 1)
