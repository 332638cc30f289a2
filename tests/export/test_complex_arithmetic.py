"""Complex numbers and Fourier transforms become real operators that compute the same."""

from __future__ import annotations

import math
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")

from torch import fft, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from ptychonnx.export.lowering.torch.complex_arithmetic.axis_map import AxisMap, Fourier, embedding  # noqa: E402
from ptychonnx.export.lowering.torch.complex_arithmetic.real_form import (  # noqa: E402
    computes_with_complex,
    real_form,
)
from ptychonnx.export.lowering.torch.convert import convert_module  # noqa: E402
from ptychonnx.export.passes import clean  # noqa: E402
from ptychonnx.runtime.errors import UnsupportedError  # noqa: E402

BATCH = ({0: torch.export.Dim("batch")},)


class Pairs(nn.Module):
    """A function of a complex tensor [B, 5, 12, 9] with complex outputs, all as pairs."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, pairs):
        outputs = self.function(torch.view_as_complex(pairs))
        return tuple(torch.view_as_real(one.resolve_conj()) if one.is_complex() else one for one in outputs)


def pairs(*shape, seed=0):
    return torch.randn(*shape, 2, generator=torch.Generator().manual_seed(seed))


def check(module, *inputs, tolerance=2e-6, dynamic=True):
    """The real form agrees with the module, on a batch that it was not made for too."""
    module.eval()
    made_for = [x[:2] for x in inputs] if dynamic else inputs
    lowered = real_form(module, made_for, BATCH * len(inputs) if dynamic else None)
    with torch.no_grad():
        expected = module(*inputs)
        found = lowered(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert len(found) == len(expected)
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one.shape == other.shape, number
        error = float((one - other).abs().max() / other.abs().max())
        assert error < tolerance, f"output {number}: {error:.1e}"
    return lowered


def transforms(z):
    x = z.real
    return (
        *(fft.fft(z, norm=norm) for norm in ("forward", "backward", "ortho")),
        *(fft.ifft(z, n, dim=-2, norm=norm) for n, norm in ((12, "ortho"), (7, "forward"), (15, "backward"))),
        *(fft.rfft(x, n, dim=1) for n in (5, 4, 8)),
        *(fft.irfft(z, n) for n in (None, 16, 17, 9, 5)),
        *(fft.hfft(z, n, norm="ortho") for n in (None, 11)),
        fft.ihfft(x, 6),
        fft.fft2(z, s=(8, 9)),
        fft.ifft2(z, dim=(1, 3)),
        fft.rfft2(x, norm="ortho"),
        fft.irfft2(z, s=(12, 7), norm="forward"),
        fft.fftn(x, dim=(1, 2, 3)),
        fft.rfftn(x, dim=(3, 1)),
        fft.irfftn(z, dim=(3, 2, 1)),
        fft.hfft2(z),
        fft.ihfftn(x, dim=(2, 3)),
        fft.fftshift(z, dim=(2, 3)),
        fft.ifft2(fft.ifftshift(fft.fftshift(fft.fft2(z), dim=(-1,)) * 2, dim=(-1,))).imag,
        fft.fft(z, dim=2) * fft.fftfreq(12)[:, None] + fft.rfftfreq(16),
    )


def test_all_fourier_transforms_of_torch():
    lowered = check(Pairs(transforms), pairs(3, 5, 12, 9))
    assert not computes_with_complex(lowered, [pairs(3, 5, 12, 9)])


def arithmetic(z):
    w, x = z.flip(1) * 1j + 0.5, z.real
    mask = x > 0
    return (
        z + w, z - 2 * w, 3 - z, x - z, z + x, 2j * z, z * w, x * z, z / w, x / w, z / (x * x + 1), 1 / w, (1 + 2j) / w,
        z**2, w**-1, w**0.5, z.square(), -z, z.conj() * w, z.abs(), z.angle(), z.sgn(), z.real + z.imag,
        torch.exp(1j * x), torch.exp(z), torch.log(w), torch.sqrt(z), torch.rsqrt(w), torch.sin(z), torch.cos(z),
        torch.sinh(z), torch.cosh(z), torch.tanh(z), torch.sigmoid(z), torch.polar(x.abs(), x),
        torch.complex(x, z.imag),
        torch.where(mask, z, w), torch.where(mask, z, x), z.masked_fill(mask, 2 - 1j), z.sum((1, 2)), z.mean(-1),
        z.cumsum(1), torch.linalg.vector_norm(z, dim=-1), (z == w).float() + (z == z).float(),
        z.to(torch.complex128), z.prod(1), torch.addcmul(z, z, w, value=2), torch.addcmul(z, x, w.real),
        x + 1j, 2j - x, torch.pow(2.0, z), torch.pow(-1.5, z), torch.pow(0.5j, z), torch.log2(w), torch.log10(w),
        torch.log1p(w), torch.log1p(1e-4 * z), torch.expm1(z), torch.expm1(1e-4 * z), torch.tan(w),
        torch.logical_not(torch.where(mask, z, 0 * z)).float(),
        torch.nan_to_num(torch.where(mask, z, math.nan)), z.view(torch.float32),
        x.contiguous().flatten(-2).view(torch.complex64),
    )  # fmt: skip


def test_complex_arithmetic_and_functions():
    check(Pairs(arithmetic), pairs(3, 5, 12, 9), tolerance=5e-6)


def test_powers_of_zero_are_those_of_torch():
    def powers(z):
        return z.reciprocal(), z**-2, z ** (2 + 0j), z**0.5

    z = torch.tensor([[[0.0, 0.0], [1.0, 2.0]]] * 3)
    lowered = real_form(Pairs(powers), (z[:2],), BATCH)
    for one, other in zip(lowered(z), Pairs(powers)(z), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_the_square_root_of_numbers_next_to_the_negative_axis():
    x = torch.tensor([[[-4.0, 1e-7], [-4.0, -1e-7], [0.0, 0.0], [9.0, 0.0]]]).repeat(2, 1, 1)
    check(Pairs(lambda z: (torch.sqrt(z),)), x)


def structure(z):
    buffer = torch.zeros_like(z)
    buffer[:, 1:4, ::2] = z[:, 1:4, ::2] * 2
    buffer[:, :, -3:, :4] = z[:, :, -3:, :4]
    replaced = fft.fft(z)
    replaced[..., 2:5] = 1j * replaced[..., 2:5]
    replaced[:, 0] = 2.0
    rows = torch.tensor([3, 0, 3])
    columns = torch.arange(9)[None, None, None] % 4
    return (
        buffer, fft.ifft2(buffer), replaced, fft.ifft(replaced),
        z[:, 2], z[:, 1:4, ::3, -4:], z[..., None, :], z.flip(2), z.roll((2, -1), (2, 3)), fft.fft(z)[:, rows],
        z.permute(0, 3, 1, 2), fft.fft(z).transpose(1, 3), z.reshape(z.shape[0], 60, 9), z.flatten(1), z.unsqueeze(1),
        fft.fft(z).reshape(z.shape[0], 5, 3, 4, 9), torch.cat([z, fft.fft(z)[..., :3], z.real], -1),
        torch.stack([z, z.conj()], 1), *fft.fft(z).split(4, 2), *z.chunk(3, -1), z.repeat(1, 2, 1, 1),
        functional.pad(z, (1, 2, 0, 3)), fft.fft2(functional.pad(z, (0, 4, 0, 2))), z.expand(2, -1, -1, -1, -1),
        z.gather(-1, columns.expand(z.shape)), z.new_zeros(z.shape[0], 2) + 1, z.diagonal(dim1=1, dim2=2),
        z.tril(), z.unfold(2, 4, 2), torch.ones_like(z), torch.full_like(z, 1 + 2j),
    )  # fmt: skip


def test_slices_assignments_and_views():
    check(Pairs(structure), pairs(3, 5, 12, 9))


class Contractions(nn.Module):
    """Products of complex inputs with complex and real constants and with each other."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        shapes = {"a": (4, 6), "c": (5, 6, 7), "modes": (4, 3, 5, 6), "gain": (4, 5, 6)}
        for name, shape in shapes.items():
            value = torch.randn(*shape, generator=generator, dtype=torch.complex64)
            setattr(self, name, nn.Parameter(value))
        self.real = nn.Parameter(torch.randn(6, 3, generator=generator))
        self.bias = nn.Parameter(torch.randn(3, generator=generator, dtype=torch.complex64))

    def forward(self, pair):
        z = torch.view_as_complex(pair)
        outputs = (
            torch.einsum("bixy,ioxy->boxy", z, self.modes),
            torch.einsum("bixy,ioxy->boxy", z.real.to(z.dtype), self.modes),
            torch.einsum("bixy,ixy->bixy", z, self.gain),
            torch.einsum("...y,yo->...o", z, self.real.to(z.dtype)),
            torch.einsum("bixy,jy->bxij", z, self.a),
            torch.einsum("bixy,xyk,iy->bik", z, self.c, self.a),
            torch.einsum("bixy,bjxy->bij", z, z.conj()),
            torch.einsum("bixy->byx", z),
            z @ self.a.T,
            z @ z.transpose(-1, -2),
            z.real.to(z.dtype) @ z.mH,
            functional.linear(z.mean((1, 2)), self.real.T.to(torch.complex64), self.bias),
            torch.matmul(z, self.gain[0, 0]),
        )
        return tuple(torch.view_as_real(one.resolve_conj()) for one in outputs)


def test_einsum_and_matrix_products():
    # torch.export itself fixes the batch of one of these.
    check(Contractions(), pairs(3, 4, 5, 6), tolerance=3e-6, dynamic=False)


class Spectrogram(nn.Module):
    def __init__(self, hop, center=True):
        super().__init__()
        self.hop, self.center = hop, center
        self.register_buffer("window", torch.hann_window(32) + 0.1)

    def forward(self, x):
        z = torch.stft(x, 32, self.hop, window=self.window, center=self.center, return_complex=True)
        back = torch.istft(z * z.abs(), 32, self.hop, window=self.window, center=self.center, length=150)
        return z.abs(), back


@pytest.mark.parametrize("hop", [8, 11])
def test_short_time_transforms_and_their_inverse(hop):
    check(Spectrogram(hop), torch.randn(3, 160, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("size", [255, 256, 421, 600, 1024, 4096])
def test_long_transforms_by_factors(size):
    def both(z):
        spectrum = fft.fft(z)
        return spectrum, fft.ifft(spectrum * spectrum), fft.irfft(z, size), fft.fft(z.real, dim=1)[:, :3]

    check(Pairs(both), pairs(2, 4, size), tolerance=1e-5)


def test_images_of_prime_sides():
    check(Pairs(lambda z: (fft.ifft2(fft.fft2(z).abs()), fft.irfft2(z, s=(421, 421)))), pairs(2, 1, 421, 211))


class ClassicConvolution(nn.Module):
    """Two corners of the spectrum, as in the code of the first paper on Fourier neural operators."""

    def __init__(self, channels=3, modes=4, padding=0):
        super().__init__()
        self.modes, self.padding = modes, padding
        shape, generator = (channels, channels, modes, modes), torch.Generator().manual_seed(1)
        self.low = nn.Parameter(torch.randn(*shape, dtype=torch.complex64, generator=generator))
        self.high = nn.Parameter(torch.randn(*shape, dtype=torch.complex64, generator=generator))

    def forward(self, x):
        m = self.modes
        x = functional.pad(x, [0, self.padding, 0, self.padding])
        spectrum = fft.rfft2(x)
        out = torch.zeros(*x.shape[:3], x.shape[3] // 2 + 1, dtype=torch.cfloat)
        out[:, :, :m, :m] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :m, :m], self.low)
        out[:, :, -m:, :m] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, -m:, :m], self.high)
        x = fft.irfft2(out, s=x.shape[-2:])
        return x[..., : x.shape[-2] - self.padding, : x.shape[-1] - self.padding]


def cleaned(module, *shape):
    return clean(convert_module(module.eval(), np.zeros((1, *shape), np.float32)).model).model


@pytest.fixture(scope="module")
def classic():
    """The graph of a `ClassicConvolution`."""
    return cleaned(ClassicConvolution(), 3, 24, 24)


def test_what_is_sliced_away_or_was_padded_is_never_computed():
    graph = cleaned(ClassicConvolution(padding=7), 3, 24, 24).graph
    shapes = {value.name: tuple(value.dims) for value in graph.initializer}
    assert "Pad" not in {node.op_type for node in graph.node}
    assert (2 * 4 * 4, 2 * 3, 2 * 3) in shapes.values()  # the weights of both corners
    largest = max(math.prod(shape) for shape in shapes.values() if len(shape) < 3)
    # The rows of both corners at once, 8 of 24 frequencies; nowhere the 31 points of the padded axis.
    assert largest == 2 * 24 * 2 * 8
    assert {shape for shape in shapes.values() if 24 in shape} <= {(24, 8), (8, 24)}
    assert not any(31 in shape or 62 in shape for shape in shapes.values())


def test_the_corners_of_a_spectrum_are_one_product(classic):
    graph = classic.graph
    operators = [node.op_type for node in graph.node]
    # Two transforms, one product over channels for 8 x 4 frequencies, and two transforms back.
    assert operators.count("MatMul") == 5
    assert "Concat" not in operators
    assert (32, 6, 6) in {tuple(value.dims) for value in graph.initializer}
    check(
        ClassicConvolution(padding=3), torch.randn(3, 3, 20, 15, generator=torch.Generator().manual_seed(0))
    )


def test_equal_constants_are_stored_once(classic):
    two = cleaned(nn.Sequential(ClassicConvolution(), ClassicConvolution()), 3, 24, 24)
    floats = [[one for one in model.graph.initializer if one.data_type == 1] for model in (classic, two)]
    assert len(floats[0]) == len(floats[1])


def test_a_gain_between_two_transforms_is_one_product():
    class Gain(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.linspace(0, 1, 17))

        def forward(self, x):
            return fft.irfft(fft.rfft(x) * self.gain, n=32)

    assert [node.op_type for node in cleaned(Gain(), 32).graph.node] == ["MatMul"]


def test_a_module_runs_in_engines_with_real_operators_alone():
    module = ClassicConvolution(padding=3).eval()
    model = cleaned(module, 3, 20, 15)
    x = torch.randn(5, 3, 20, 15, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module(x).numpy()
    types = {1, 7}
    assert {value.data_type for value in model.graph.initializer} <= types
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = [session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]]
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    outputs.append(compiled(x.numpy())[0])
    for output in outputs:
        np.testing.assert_allclose(output, expected, atol=3e-6 * np.abs(expected).max())


class Convolutions(nn.Module):
    """Convolutions with strides, groups and dilation, and transposed ones."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        one = {"dtype": torch.complex64}
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, **one),
                nn.Conv2d(4, 3, (3, 2), dilation=2, padding="same", bias=False, **one),
                nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2, **one),
            ]
        )

    def forward(self, pair):
        z = torch.view_as_complex(pair)
        return tuple(torch.view_as_real(layer(z)) for layer in self.layers)


def test_complex_convolutions():
    lowered = check(Convolutions(), pairs(3, 4, 9, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.export.export(lowered, (pairs(2, 4, 9, 8),), dynamic_shapes=(BATCH,), strict=False)
    assert str(traced.graph).count("aten.conv") == 3


def test_a_convolution_with_a_kernel_that_depends_on_an_input():
    def product(z):
        kernel, bias = z[0, :, None, :3, :3], z[0, :, 0, 0]
        return torch.conv2d(z, kernel, bias, 2, 1, groups=5), torch.conv_transpose2d(
            z, kernel, None, groups=5
        )

    check(Pairs(product), pairs(3, 5, 12, 9), tolerance=5e-6)


def test_a_product_with_a_constant_keeps_the_axis_of_the_parts():
    turn = torch.polar(torch.ones(12, 9), torch.arange(108.0).reshape(12, 9))
    lowered = check(Pairs(lambda z: (z * turn, turn[0] * (z * turn), (z * turn).abs())), pairs(3, 5, 12, 9))
    model = convert_module(Pairs(lambda z: (z * turn,)), pairs(2, 5, 12, 9).numpy()).model
    operators = [node.op_type for node in clean(model).model.graph.node]
    assert sorted(operators) == ["Add", "Concat", "Mul", "Mul", "Mul", "Mul", "Slice", "Slice", "Sub"]
    assert not computes_with_complex(lowered, [pairs(3, 5, 12, 9)])


def test_the_imaginary_part_of_a_conjugate_has_no_view_left():
    class Imaginary(nn.Module):
        def forward(self, x):
            return fft.ifft(x).imag, fft.fft(x).conj().imag

    check(Imaginary(), torch.randn(3, 7, generator=torch.Generator().manual_seed(0)))
    convert_module(Imaginary(), np.ones((1, 7), np.float32), outputs=["a", "b"])


def test_tables_of_frequencies_and_windows_are_constants():
    class Tables(nn.Module):
        def forward(self, x):
            squares = fft.fftfreq(7) ** 2 + torch.kaiser_window(7)
            squares[0] = 1
            return fft.ifft(fft.fft(x) / squares).real

    graph = convert_module(Tables(), np.ones((1, 7), np.float32)).model.graph
    assert not {node.op_type for node in graph.node} & {"DFT", "Range", "Cos"}
    check(Tables(), torch.randn(3, 7, generator=torch.Generator().manual_seed(0)))


def test_transforms_from_real_to_real_numbers_are_lowered():
    class RealToReal(nn.Module):
        def forward(self, x):
            return fft.irfft(x.square(), n=9), fft.hfft(x), fft.irfft2(x[:, None].expand(-1, 3, -1))

    x = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    graph = convert_module(RealToReal(), x.numpy(), outputs=["a", "b", "c"]).model.graph
    assert "DFT" not in {node.op_type for node in graph.node}
    check(RealToReal(), x)


def test_an_equation_of_three_operands_takes_any_batch():
    class ThreeOperands(nn.Module):
        def forward(self, x, y):
            z = torch.einsum("bij,bjk,bkl->bil", fft.fft(x), fft.fft(y), fft.fft(y).mT)
            return torch.view_as_real(z)

    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    check(ThreeOperands(), x, x.mT.contiguous())


def statistics(z):
    return z.var(1), z.std((1, 2), keepdim=True), z.cumprod(-1)


def test_variances_and_running_products():
    check(Pairs(statistics), pairs(3, 4, 5, 6))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_systems_of_up_to_three_unknowns(size):
    def systems(z):
        matrix = z[:, :size, :size] + 5 * torch.eye(size)
        right, vector = z[:, :size, 3:], z[:, :size, 0]
        return (
            torch.linalg.inv(matrix),
            torch.linalg.det(matrix),
            torch.linalg.solve(matrix, right),
            torch.linalg.solve(matrix, right.mT, left=False),
            torch.linalg.solve(matrix, vector),
        )

    check(Pairs(systems), pairs(3, 5, 5), tolerance=5e-6)


def test_larger_systems_are_refused_with_a_way_out():
    class Inverse(nn.Module):
        def forward(self, x):
            return torch.linalg.inv(fft.fft(x)).abs()

    with pytest.raises(UnsupportedError, match=r"linalg_inv .*4 rows, expected up to three; solve larger"):
        convert_module(Inverse(), np.eye(4, dtype=np.float32)[None])


@pytest.mark.parametrize(
    "function", [lambda x: fft.fft(fft.fft(x), dim=0).abs(), lambda x: fft.fftshift(fft.fft(x)).abs()]
)
def test_what_reaches_along_the_batch_is_refused_in_one_line(function):
    class AlongBatch(nn.Module):
        def forward(self, x):
            return function(x)

    with pytest.raises(
        UnsupportedError,
        match=r"along the batch at test_complex_arithmetic.py:\d+ `.*`, called at .*; --batch N exports",
    ) as error:
        convert_module(AlongBatch(), np.ones((1, 4), np.float32))
    assert "\n" not in str(error.value)
    model = convert_module(AlongBatch(), np.ones((1, 4), np.float32), batch=3).model
    assert "DFT" not in {node.op_type for node in model.graph.node}


def test_an_operator_without_a_real_form_is_refused_with_the_line_of_the_author():
    class Exponential(nn.Module):
        def forward(self, x):
            return torch.linalg.matrix_exp(fft.fft(x)).abs()

    with pytest.raises(
        UnsupportedError,
        match=r"^aten\.\w+ of complex numbers at test_complex_arithmetic\.py:\d+ `return torch\.linalg\.matrix_exp",
    ) as error:
        convert_module(Exponential(), np.ones((1, 4, 4), np.float32))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", range(20))
def test_composed_maps_are_the_product_of_their_matrices(seed):
    generator = np.random.default_rng(seed)
    size = int(generator.integers(3, 9))
    one, matrix = AxisMap.identity(size), np.eye(size, dtype=complex)
    for _ in range(6):
        kind = generator.integers(4)
        if kind == 0:
            rows = generator.integers(-1, one.outputs, size=int(generator.integers(3, 9)))
            step = np.where(rows[:, None] < 0, 0, np.eye(one.outputs)[rows])
            one = one.select(rows)
        elif kind == 1:
            targets = generator.permutation(one.outputs + 2)[: one.outputs]
            rows = embedding(targets, one.outputs + 2).rows
            step = np.where(rows[:, None] < 0, 0, np.eye(one.outputs)[rows])
            one = one.select(rows)
        elif kind == 2:
            scales = generator.normal(size=one.outputs) + 1j
            step, one = np.diag(scales), one.scaled(scales)
        else:
            transform = Fourier(one.outputs, int(generator.choice([-1, 1])), 0.5)
            step = np.fft.fft(np.eye(one.outputs)) / 2
            step = step if transform.sign < 0 else step.conj()
            changed = one.then_fourier(transform)
            if changed is None:
                continue
            one = changed
        matrix = step @ matrix
    np.testing.assert_allclose(one.dense(), matrix, atol=1e-10 * max(1, np.abs(matrix).max()))
    trimmed = one.without_columns()
    np.testing.assert_allclose(
        trimmed.dense(), matrix[:, one.used_columns], atol=1e-10 * max(1, np.abs(matrix).max())
    )
