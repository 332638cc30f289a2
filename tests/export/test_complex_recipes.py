"""What authors of Fourier networks write by hand, in one export each: layers, normalisations, in-place changes."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")

from torch import fft, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from ptychonnx.export.lowering.torch.convert import convert_module  # noqa: E402
from ptychonnx.runtime.errors import UnsupportedError  # noqa: E402
from tests.export.test_complex_arithmetic import Pairs, check, pairs  # noqa: E402

KERNEL = torch.view_as_complex(pairs(5, 8, seed=1))
LINEAR = nn.Linear(8, 5, bias=False, dtype=torch.complex64)


def hilbert(x):
    """Analytic signal."""
    gain = torch.zeros(8)
    gain[0] = gain[4] = 1
    gain[1:4] = 2
    return fft.ifft(fft.fft(x) * gain)


def cosine_transform(x):
    """DCT-II by a complex transform of the even and the reversed odd points."""
    spectrum = torch.view_as_real(fft.fft(torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1)))
    angles = -torch.arange(8.0) * torch.pi / 16
    return 2 * (spectrum[..., 0] * torch.cos(angles) - spectrum[..., 1] * torch.sin(angles))


def spectral_pooling(x):
    middle = fft.fftshift(fft.fft2(x), dim=(-2, -1))[..., 1:4, 2:6]
    return fft.ifft2(fft.ifftshift(middle, dim=(-2, -1))).real


def autocorrelation(x):
    spectrum = fft.rfft(x, n=16)
    return fft.irfft(spectrum * spectrum.conj(), n=16)[..., :8]


def angular_spectrum(z):
    rows, columns = torch.meshgrid(fft.fftfreq(5, 0.1), fft.fftfreq(8, 0.1), indexing="ij")
    axial = torch.sqrt((1 / 0.05**2 - rows**2 - columns**2).to(torch.complex64))
    return fft.ifft2(fft.fft2(z) * torch.exp(2j * torch.pi * 0.3 * axial))


def convolution_theorem(x):
    return fft.irfft(fft.rfft(x, n=10) * fft.rfft(KERNEL.real[0, :3], n=10), n=10)[..., :8]


def wavelets(x):
    points = fft.fftfreq(8) * 8
    bank = torch.exp(-0.5 * (points - torch.tensor([[1.0], [2.0], [4.0]])) ** 2) * (points > 0)
    return fft.ifft(fft.fft(x)[:, :, None] * bank)


def fourier_layers(z):
    x = z.real
    vectorised = torch.vmap(lambda one: fft.ifft(fft.fft(one) * KERNEL[0]))
    return (
        hilbert(x), cosine_transform(x), spectral_pooling(x), autocorrelation(x), angular_spectrum(z),
        convolution_theorem(x), wavelets(x), vectorised(z), fft.fftn(z, s=(7, 6), dim=(1, 2)),
        fft.ifftn(z, s=(3, 11), dim=(1, 2), norm="ortho"), fft.ifft2(fft.fft2(z) / (fft.fft2(z).abs() + 1e-3)),
        torch.stft(x.flatten(1), 12, 3, win_length=10, window=torch.ones(10), onesided=False, normalized=True,
                   return_complex=True),
        torch.stft(x.flatten(1), 16, 4, center=False, window=torch.ones(16), return_complex=True),
        torch.istft(z.mT.contiguous()[:, :5], 8, 4, window=torch.ones(8), length=20),
    )  # fmt: skip


def test_layers_that_authors_build_from_transforms():
    check(Pairs(fourier_layers), pairs(3, 5, 8), tolerance=5e-6)


def layer_norm(z):
    centred = z - z.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred.abs() ** 2).mean(-1, keepdim=True) + 1e-5)


def whitening(z):
    """Complex batch norm: the parts are decorrelated by the inverse root of their covariance."""
    a, b = z.real - 0.1, z.imag + 0.2
    rr, ii, ri = (
        (a * a).mean((1, 2), True) + 1e-5,
        (b * b).mean((1, 2), True) + 1e-5,
        (a * b).mean((1, 2), True),
    )
    root = torch.sqrt(rr * ii - ri**2)
    scale = 1 / (root * torch.sqrt(rr + ii + 2 * root))
    return torch.complex((ii + root) * a - ri * b, (rr + root) * b - ri * a) * scale


def attention(z):
    scores = z @ z.mH / 8**0.5
    features = torch.view_as_real(z).flatten(-2)
    return (
        (torch.softmax(scores.abs(), -1) * torch.exp(1j * scores.angle())) @ z,
        functional.scaled_dot_product_attention(features, features, features),
    )


def networks(z):
    size, parts = z.abs(), torch.stack([z.real, z.imag], 1)
    return (
        layer_norm(z), whitening(z), *attention(z), functional.relu(size - 0.5) * z / (size + 1e-6),
        torch.complex(functional.relu(z.real), functional.gelu(z.imag)), 0.5 * (1 + torch.cos(z.angle())) * z,
        torch.where(size > 1, z, 1j), torch.where(z.real > 0, 2.0, z), torch.where(z.real > 0, z, z.real),
        torch.inner(z, KERNEL), torch.tensordot(z, KERNEL.T, 1),
        torch.baddbmm(z[:, :, :5], z, z.mH, alpha=2j, beta=0.5), torch.linalg.vecdot(z, z.flip(1)),
        torch.linalg.matrix_norm(z), z.norm(p=3, dim=-1), z.prod(-1), z.cumsum(1), z.conj_physical(),
        torch.tanh(z), torch.sin(z), torch.log(z + 3), z**2.5, z ** (1 + 1j), torch.polar(size, z.imag),
        functional.pad(z, (2, 1), mode="reflect"), functional.unfold(parts, (3, 3), padding=1),
        functional.interpolate(parts, scale_factor=2, mode="bilinear"), z.gather(-1, size.argsort(-1)),
        torch.func.functional_call(LINEAR, {"weight": KERNEL}, (z,)),
    )  # fmt: skip


def test_networks_of_complex_numbers():
    check(Pairs(networks), pairs(3, 5, 8), tolerance=1e-5)


def in_place(z):
    """Changes of views of a complex tensor, and of its parts."""
    changes = [z.clone() for _ in range(10)]
    changes[0].real *= 2
    changes[1].imag[..., 2:] += 1
    changes[2].real = z.imag.abs()
    torch.view_as_real(changes[3])[:, 1:3, ::2, 1] = 7.0
    changes[4][..., 3:] = 0
    changes[5][:, :, :2].mul_(1j)
    changes[6][:, 1:4, 3:5] = z[:, 1:4, 3:5].conj()
    changes[7].index_add_(2, torch.tensor([0, 1, 1]), z[..., :3])
    changes[8].masked_fill_(z.real > 0, 2.0)
    fft.fft(z, out=changes[9])
    return (*changes, torch.zeros_like(z).scatter_add(2, torch.arange(8).flip(0).expand(z.shape), z))


def test_changes_in_place():
    check(Pairs(in_place), pairs(3, 5, 8))


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("svdvals", "_linalg_svd"),
        ("eigvals", "linalg_eig"),
        ("eigvalsh", "_linalg_eigh"),
        ("cholesky", "_linalg_check_errors"),
        ("matrix_exp", "linalg_matrix_exp"),
    ],
)
def test_decompositions_of_matrices_are_refused_with_a_way_out(name, operator):
    class Decomposed(nn.Module):
        def forward(self, x):
            spectrum = fft.fft(x)
            return getattr(torch.linalg, name)(spectrum @ spectrum.mH + 9 * torch.eye(4)).abs()

    with pytest.raises(
        UnsupportedError, match=rf"^aten\.{operator}.* at test_complex_recipes\.py:\d+ `return .*; "
    ) as error:
        convert_module(Decomposed(), np.ones((1, 4, 4), np.float32))
    assert "\n" not in str(error.value)


def test_an_operator_that_onnx_lacks_is_named_with_the_line_of_the_author_behind_complex_numbers_too():
    class Largest(nn.Module):
        def forward(self, x):
            return fft.fft(x).abs().cummax(-1).values

    with pytest.raises(
        UnsupportedError,
        match=r"found for aten\.cummax at test_complex_recipes\.py:\d+ `return .*; compute it",
    ):
        convert_module(Largest(), np.ones((1, 4), np.float32))
