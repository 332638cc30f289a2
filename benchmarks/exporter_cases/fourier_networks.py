"""Networks that mix channels in the spectrum, as papers describe them and as neuraloperator builds them."""

from __future__ import annotations

import torch
from neuralop.models import FNO, TFNO, UNO
from torch import Tensor, fft, nn
from torch.nn import functional

from benchmarks.exporter_cases.case import complex_numbers, real
from benchmarks.exporter_cases.torch_cases import new_cases, spectral_weight

CASES = new_cases()


class SpectralConvolution(nn.Module):
    """The lowest frequencies of each axis, mixed by a complex weight for each corner of the spectrum."""

    def __init__(self, inside: int, outside: int, *modes: int) -> None:
        super().__init__()
        self.modes = modes
        self.weights = nn.ParameterList(
            [spectral_weight(inside, outside, *modes) for _ in range(2 ** (len(modes) - 1))]
        )

    def forward(self, x: Tensor) -> Tensor:
        axes = tuple(range(-len(self.modes), 0))
        spectrum = fft.rfftn(x, dim=axes)
        sizes = spectrum.shape[2:]
        out = torch.zeros(x.shape[0], self.weights[0].shape[1], *sizes, dtype=torch.cfloat, device=x.device)
        letters = "xyz"[: len(self.modes)]
        for number, weight in enumerate(self.weights):
            corner = [slice(None), slice(None)]
            for axis, mode in enumerate(self.modes):
                is_high = axis < len(self.modes) - 1 and number >> axis & 1
                corner.append(slice(-mode, None) if is_high else slice(mode))
            mixed = torch.einsum(f"bi{letters},io{letters}->bo{letters}", spectrum[tuple(corner)], weight)
            out[tuple(corner)] = mixed
        return fft.irfftn(out, s=x.shape[2:], dim=axes)


class ClassicFNO(nn.Module):
    """Lifting, layers of spectral and pointwise convolutions, projection; the grid is two more channels."""

    def __init__(self, *modes: int, width: int = 8, layers: int = 2, padding: int = 0) -> None:
        super().__init__()
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(modes)]
        self.padding, self.axes = padding, len(modes)
        self.lift = nn.Linear(1 + len(modes), width)
        self.spectral = nn.ModuleList([SpectralConvolution(width, width, *modes) for _ in range(layers)])
        self.pointwise = nn.ModuleList([convolution(width, width, 1) for _ in range(layers)])
        self.project = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        points = [torch.linspace(0, 1, size) for size in x.shape[1:-1]]
        grid = torch.stack(torch.meshgrid(*points, indexing="ij"), -1)
        x = torch.cat([x, grid.expand(x.shape[0], *grid.shape)], -1)
        x = self.lift(x).movedim(-1, 1)
        x = functional.pad(x, [0, self.padding] * self.axes)
        for number, (spectral, pointwise) in enumerate(zip(self.spectral, self.pointwise, strict=True)):
            x = spectral(x) + pointwise(x)
            x = functional.gelu(x) if number < len(self.spectral) - 1 else x
        if self.padding:
            x = x[(..., *[slice(-self.padding)] * self.axes)]
        return self.project(x.movedim(1, -1))


@CASES.add("classic FNO over a line", real(64, 1))
class FNO1d(ClassicFNO):
    def __init__(self) -> None:
        super().__init__(12)


@CASES.add("classic FNO over an image, padded", real(28, 28, 1))
class FNO2d(ClassicFNO):
    def __init__(self) -> None:
        super().__init__(8, 8, layers=3, padding=4)


@CASES.add("classic FNO over a volume", real(12, 12, 10, 1))
class FNO3d(ClassicFNO):
    def __init__(self) -> None:
        super().__init__(4, 4, 4)


@CASES.add("factorised spectral layer, one axis after the other", real(8, 24, 24))
class FactorisedLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns = spectral_weight(8, 8, 6), spectral_weight(8, 8, 6)
        self.mix = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-1]
        along = fft.rfft(x, dim=-1, norm="ortho")
        out = along.new_zeros(along.shape)
        out[..., :6] = torch.einsum("bixy,ioy->boxy", along[..., :6], self.columns)
        y = fft.irfft(out, n=size, dim=-1, norm="ortho")
        across = fft.rfft(x, dim=-2, norm="ortho")
        out = across.new_zeros(across.shape)
        out[..., :6, :] = torch.einsum("bixy,iox->boxy", across[..., :6, :], self.rows)
        return x + self.mix(y + fft.irfft(out, n=size, dim=-2, norm="ortho"))


@CASES.add("adaptive Fourier layer: block MLP and soft shrinkage", real(16, 16, 16))
class AdaptiveLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(2, 4, 4, 4) * 0.5)
        self.second = nn.Parameter(torch.randn(2, 4, 4, 4) * 0.5)
        self.bias = nn.Parameter(torch.randn(2, 4, 4) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = fft.rfft2(x, dim=(1, 2), norm="ortho").reshape(x.shape[0], 16, 9, 4, 4)
        kept = torch.zeros_like(spectrum)
        z = spectrum[:, :, :5]
        real_part = functional.relu(self._product(z.real, 0) - self._product(z.imag, 1) + self.bias[0])
        imaginary = functional.relu(self._product(z.imag, 0) + self._product(z.real, 1) + self.bias[1])
        z = torch.stack(
            [
                torch.einsum("...bi,bio->...bo", real_part, self.second[0]),
                torch.einsum("...bi,bio->...bo", imaginary, self.second[1]),
            ],
            -1,
        )
        kept[:, :, :5] = torch.view_as_complex(functional.softshrink(z, 0.01).contiguous())
        return x + fft.irfft2(kept.reshape(x.shape[0], 16, 9, 16), s=(16, 16), dim=(1, 2), norm="ortho")

    def _product(self, x: Tensor, part: int) -> Tensor:
        return torch.einsum("...bi,bio->...bo", x, self.first[part])


@CASES.add("Fourier unit of inpainting networks", real(8, 16, 16))
class FourierUnit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        spectrum = fft.rfftn(x, dim=(-2, -1), norm="ortho")
        pairs = torch.stack((spectrum.real, spectrum.imag), -1).permute(0, 1, 4, 2, 3)
        pairs = pairs.reshape(batch, 2 * channels, *spectrum.shape[-2:])
        pairs = functional.relu(self.norm(self.convolution(pairs)))
        pairs = pairs.reshape(batch, channels, 2, *pairs.shape[2:]).permute(0, 1, 3, 4, 2)
        mixed = torch.complex(pairs[..., 0], pairs[..., 1])
        return fft.irfftn(mixed, s=(height, width), dim=(-2, -1), norm="ortho")


@CASES.add("spectral layer beside a small U-Net", real(8, 16, 16))
class SpectralUNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spectral = SpectralConvolution(8, 8, 5, 5)
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.up = nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1)
        self.join = nn.Conv2d(16, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        low = self.up(functional.leaky_relu(self.norm(self.down(x)), 0.1))
        return functional.gelu(self.spectral(x) + self.join(torch.cat([x, low], 1)))


@CASES.add("attention on chosen frequencies, as forecasters use it", real(48, 16))
class FrequencyAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.register_buffer("chosen", torch.tensor([0, 1, 3, 4, 7, 11, 13]))

    def forward(self, x: Tensor) -> Tensor:
        spectra = [fft.rfft(layer(x).transpose(1, 2)) for layer in (self.query, self.key, self.value)]
        query, key, value = (one[..., self.chosen] for one in spectra)
        scores = torch.einsum("bdq,bdk->bqk", query, key.conj())
        weights = torch.softmax(scores.abs() / 8, -1).to(torch.complex64)
        out = torch.zeros(x.shape[0], 16, 25, dtype=torch.complex64)
        out[..., self.chosen] = torch.einsum("bqk,bdk->bdq", weights, value)
        return fft.irfft(out, n=48).transpose(1, 2)


@CASES.add("delays of the largest autocorrelation, gathered", real(96, 8))
class AutoCorrelation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (layer(x).transpose(1, 2) for layer in (self.query, self.key, self.value))
        correlation = fft.irfft(fft.rfft(query) * torch.conj(fft.rfft(key)), n=96).mean(1)
        weights, delays = torch.topk(correlation, 3, dim=-1)
        weights = torch.softmax(weights, -1)
        index = torch.arange(96) + delays[..., None]
        twice = value.repeat(1, 1, 2)
        out = torch.zeros_like(value)
        for number in range(3):
            at = index[:, number, None].expand(-1, 8, -1)
            out = out + torch.gather(twice, -1, at) * weights[:, number, None, None]
        return out.transpose(1, 2)


@CASES.add("linear attention before a spectral layer, two inputs", real(16, 16, 3), real(16, 16, 2))
class GalerkinRegressor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lift, self.last = nn.Linear(5, 8), nn.Linear(8, 1)
        self.projections = nn.Linear(8, 24)
        self.norms = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8)])
        self.spectral = SpectralConvolution(8, 8, 5, 5)

    def forward(self, node: Tensor, grid: Tensor) -> dict[str, Tensor]:
        x = self.lift(torch.cat([node, grid], -1)).flatten(1, 2)
        query, key, value = self.projections(x).chunk(3, -1)
        key, value = self.norms[0](key), self.norms[1](value)
        x = x + query @ (key.transpose(1, 2) @ value) / x.shape[1]
        field = x.unflatten(1, (16, 16)).movedim(-1, 1)
        field = functional.silu(self.spectral(field))
        return {"prediction": self.last(field.movedim(1, -1)), "latent": x}


@CASES.add("modulation of image features by their spectrum", real(6, 20, 20))
class SpectralGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.scale, self.shift = nn.Parameter(torch.rand(6, 1, 1)), nn.Parameter(torch.rand(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        gated = torch.abs(fft.ifft2(self.inside(x) * fft.fft2(self.outside(x))))
        return gated * self.scale + x * self.shift


@CASES.add("diffraction of overlapping windows by several modes", complex_numbers(32, 32))
class Diffraction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.probe = spectral_weight(2, 16, 16)

    def forward(self, scanned: Tensor) -> Tensor:
        windows = scanned.unfold(1, 16, 8).unfold(2, 16, 8).flatten(1, 2)
        waves = fft.fft2(windows[:, :, None] * self.probe, norm="ortho")
        return torch.sqrt(waves.abs().square().sum(2) + 1e-6)


@CASES.add_builder("FNO of neuraloperator", real(1, 32, 32))
def neuraloperator_fno() -> nn.Module:
    return FNO((8, 8), 1, 1, 8, n_layers=2)


@CASES.add_builder("TFNO of neuraloperator, CP factors", real(1, 32, 32))
def neuraloperator_tfno() -> nn.Module:
    return TFNO((8, 8), 1, 1, 8, n_layers=2, factorization="cp", rank=0.1)


@CASES.add_builder("UNO of neuraloperator", real(1, 32, 32))
def neuraloperator_uno() -> nn.Module:
    return UNO(1, 1, hidden_channels=8, n_layers=3, uno_out_channels=[8, 8, 8], uno_n_modes=[[6, 6]] * 3,
               uno_scalings=[[0.5, 0.5], [1, 1], [2, 2]], channel_mlp_skip="linear")  # fmt: skip
