"""Fourier transforms of every flavour, and what signal and image processing does with them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, fft, nn

from benchmarks.exporter_cases.case import complex_numbers, real
from benchmarks.exporter_cases.torch_cases import new_cases

CASES = new_cases()


@CASES.add("fft and ifft, each normalisation, odd length", real(3, 15))
def norms(x: Tensor) -> Tensor:
    spectra = [fft.fft(x, norm=norm) for norm in ("backward", "ortho", "forward")]
    return torch.cat([spectra[0].abs(), fft.ifft(spectra[1].abs(), norm="forward").imag, spectra[2].real], -1)


@CASES.add("rfft and irfft of an odd length", real(4, 33))
def odd_length(x: Tensor) -> Tensor:
    spectrum = fft.rfft(x)
    return fft.irfft(spectrum * spectrum.abs(), n=33)


@CASES.add("hfft and ihfft", real(4, 20))
def hermitian(x: Tensor) -> Tensor:
    return fft.hfft(fft.ihfft(x, norm="ortho") * (1 + 2j), n=20)


@CASES.add("rfft2 and irfft2 of other sizes than the input", real(2, 20, 15))
def cropped_and_padded(x: Tensor) -> Tensor:
    return fft.irfft2(fft.rfft2(x, s=(16, 24), norm="ortho"), s=(18, 21), norm="ortho")


@CASES.add("fftn and ifftn over three axes", real(2, 6, 8, 10))
def three_axes(x: Tensor) -> Tensor:
    spectrum = fft.fftn(x, dim=(-3, -2, -1))
    return fft.ifftn(spectrum / (1 + spectrum.abs()), dim=(-3, -2, -1)).real


@CASES.add("low frequencies scaled between two shifts", real(4, 24, 24))
def shifted_low_frequencies(x: Tensor) -> Tensor:
    spectrum = fft.fftshift(fft.fftn(x, dim=(-2, -1)), dim=(-2, -1))
    mask = torch.ones_like(spectrum)
    mask[..., 8:16, 8:16] = 0.4
    return fft.ifftn(fft.ifftshift(spectrum * mask, dim=(-2, -1)), dim=(-2, -1)).real


@CASES.add("real part of a transform over tokens and features", real(24, 32))
def token_mixing(x: Tensor) -> Tensor:
    return x + fft.fft(fft.fft(x, dim=-1), dim=-2).real


@CASES.add("convolution with a filter as long as the signal", real(4, 512))
class LongConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 512) / 32)

    def forward(self, x: Tensor) -> Tensor:
        n = 2 * x.shape[-1]
        product = fft.rfft(x, n=n) * fft.rfft(self.kernel, n=n)
        return fft.irfft(product, n=n)[..., : x.shape[-1]]


@CASES.add("4096 points, all frequencies", real(4096))
def many_points(x: Tensor) -> Tensor:
    spectrum = fft.fft(x)
    return fft.ifft(spectrum * torch.tanh(spectrum.abs() / 64)).real


@CASES.add("a prime length, 421", real(2, 421))
def prime_length(x: Tensor) -> Tensor:
    spectrum = fft.rfft(x)
    return fft.irfft(spectrum * spectrum.abs(), n=421)


@CASES.add("cosine transform by a transform of reordered points", real(3, 16))
def cosine_transform(x: Tensor) -> Tensor:
    reordered = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1)
    k = torch.arange(16, dtype=torch.float32)
    return 2 * (fft.fft(reordered) * torch.exp(-1j * math.pi * k / 32)).real


@CASES.add("power spectrogram", real(1024))
class Spectrogram(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(128))

    def forward(self, x: Tensor) -> Tensor:
        frames = torch.stft(x, 128, 32, window=self.window, return_complex=True)
        return torch.log1p(frames.abs().square())


@CASES.add("stft, a mask, istft", real(640))
class MaskedSpeech(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        self.mask = nn.Conv1d(33, 33, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        frames = torch.stft(x, 64, 16, window=self.window, return_complex=True)
        masked = frames * torch.sigmoid(self.mask(frames.abs()))
        return torch.istft(masked, 64, 16, window=self.window, length=640)


@CASES.add("derivatives by i k", real(1, 32, 32))
def spectral_gradient(x: Tensor) -> Tensor:
    k = 2 * math.pi * fft.fftfreq(32)
    spectrum = fft.fft2(x)
    along = fft.ifft2(1j * k * spectrum).real
    across = fft.ifft2(1j * k[:, None] * spectrum).real
    return torch.cat([along, across], 1)


@CASES.add("Poisson equation, 1 / k^2", real(32, 32))
def poisson(source: Tensor) -> Tensor:
    squares = fft.fftfreq(32)[:, None] ** 2 + fft.rfftfreq(32) ** 2
    squares[0, 0] = 1
    spectrum = -fft.rfft2(source) / squares
    spectrum[..., 0, 0] = 0
    return fft.irfft2(spectrum, s=(32, 32))


@CASES.add("propagation of a complex wave by the angular spectrum", complex_numbers(32, 32))
def propagation(wave: Tensor) -> Tensor:
    frequencies = fft.fftfreq(32, 0.5)
    square = (1 - frequencies**2 - frequencies[:, None] ** 2).clamp(min=0)
    return fft.ifft2(fft.fft2(wave) * torch.exp(20j * torch.sqrt(square)))


@CASES.add("autocorrelation by the power spectrum", real(2, 40))
def autocorrelation(x: Tensor) -> Tensor:
    spectrum = fft.rfft(x - x.mean(-1, keepdim=True), n=80)
    power = (spectrum * spectrum.conj()).real
    return fft.irfft(power, n=80)[..., :40]


@CASES.add("phase correlation of two images", real(24, 24), real(24, 24))
def phase_correlation(first: Tensor, second: Tensor) -> Tensor:
    product = fft.rfft2(first) * torch.conj(fft.rfft2(second))
    return fft.irfft2(product / (product.abs() + 1e-3), s=(24, 24))


@CASES.add("envelope of the analytic signal", real(2, 64))
def envelope(x: Tensor) -> Tensor:
    spectrum = fft.fft(x)
    gain = torch.zeros(64)
    gain[0] = gain[32] = 1
    gain[1:32] = 2
    return fft.ifft(spectrum * gain).abs()


@CASES.add("magnitude and phase of a transform of complex numbers", complex_numbers(2, 12, 9))
def magnitude_and_phase(z: Tensor) -> tuple[Tensor, Tensor]:
    spectrum = fft.fft2(z, norm="ortho")
    return spectrum.abs(), spectrum.abs() * torch.cos(2 * spectrum.angle())


@CASES.add("enlargement by zeros in the spectrum", real(2, 12, 10))
def enlarged(x: Tensor) -> Tensor:
    spectrum = fft.rfft2(x, norm="forward")
    wide = torch.zeros(x.shape[0], 2, 24, 11, dtype=spectrum.dtype)
    wide[..., :6, :6] = spectrum[..., :6, :]
    wide[..., -6:, :6] = spectrum[..., -6:, :]
    return fft.irfft2(wide, s=(24, 20), norm="forward")
