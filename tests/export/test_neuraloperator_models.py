"""Models of neuraloperator 2.0 agree with their graphs in onnxruntime, or are refused in one line."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")
pytest.importorskip("torch_harmonics")

from neuralop.layers.spherical_convolution import SphericalConv  # noqa: E402
from neuralop.models import FNO, SFNO, TFNO, UNO, UQNO, LocalNO  # noqa: E402
from torch import nn  # noqa: E402

from ptychonnx.export.lowering.torch.convert import convert_module  # noqa: E402
from ptychonnx.export.passes import clean  # noqa: E402
from ptychonnx.export.verification.engines import open_onnxruntime  # noqa: E402
from ptychonnx.export.verification.verify import relative_difference  # noqa: E402
from ptychonnx.runtime.errors import InputError  # noqa: E402

SQUARE, ODD, SPHERE, ODD_SPHERE, CUBE = (16, 16), (17, 15), (16, 32), (15, 31), (5, 7, 8)
TWO_GRIDS = ["equiangular", "legendre-gauss"]


def fno(kind=FNO, modes=(6, 6), **settings):
    return kind(modes, 2, 1, 6, **{"n_layers": 2, **settings})


def sfno(**settings):
    return fno(SFNO, (8, 8), **settings)


def local(side=16, dimensions=2, **settings):
    defaults = {"disco_layers": False, "diff_layers": False, "default_in_shape": (side,) * dimensions}
    return LocalNO((4,) * dimensions, 2, 1, 6, n_layers=2, **{**defaults, **settings})


def uno(**settings):
    modes, scalings = [(4, 4)] * 3, [[0.5, 0.5], [1, 1], [2, 2]]
    return UNO(2, 1, hidden_channels=6, n_layers=3, uno_out_channels=[6, 6, 6], uno_n_modes=modes,
               uno_scalings=scalings, **{"channel_mlp_skip": "linear", **settings})  # fmt: skip


def uno_in_three(**settings):
    modes, scalings = [(3, 3, 3)] * 3, [[0.5] * 3, [1] * 3, [2] * 3]
    return UNO(2, 1, hidden_channels=4, n_layers=3, uno_out_channels=[4, 4, 4], uno_n_modes=modes,
               uno_scalings=scalings, channel_mlp_skip="linear", **settings)  # fmt: skip


def two_grids(**settings):
    """An SFNO whose blocks change the grid, which the model itself cannot be told."""
    model = sfno(**settings)
    for conv in model.fno_blocks.convs:
        conv.sht_grids = TWO_GRIDS
    return model


class Pairs(nn.Module):
    """A complex module behind real inputs and outputs [B, ..., 2]."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return torch.view_as_real(self.module(torch.view_as_complex(x)))


def example(size):
    return np.random.default_rng(0).normal(size=(3, 2, *size)).astype(np.float32)


def prepared(build, settings):
    torch.manual_seed(0)
    model = build(**settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Biases and gates that start at zero or one would hide what is not connected.
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def difference_through_onnxruntime(model, inputs):
    with torch.no_grad():
        expected = model(torch.from_numpy(inputs)).numpy()
    converted = convert_module(model, inputs[:2])
    assert converted.layers
    engine = open_onnxruntime(clean(converted.model).model.SerializeToString())
    found = engine(inputs)
    assert found.shape == expected.shape
    return relative_difference(found, expected)


MODELS = [
    (sfno, SPHERE, {}),
    (sfno, ODD_SPHERE, {"factorization": "cp", "rank": 0.5}),
    (sfno, ODD_SPHERE, {"resolution_scaling_factor": 2}),
    (sfno, SPHERE, {"resolution_scaling_factor": [0.5, 2]}),
    (sfno, SPHERE, {"domain_padding": 0.125, "factorization": "tucker", "rank": 0.5}),
    (two_grids, ODD_SPHERE, {}),
    (local, SQUARE, {"disco_layers": True, "use_channel_mlp": True}),
    (local, SQUARE, {"disco_layers": True, "diff_layers": True, "disco_kernel_shape": [2, 4]}),
    (local, SQUARE, {"disco_layers": [True, False], "diff_layers": [False, True], "mix_derivatives": True}),
    (local, ODD, {"disco_layers": True, "diff_layers": True, "conv_padding_mode": "reflect"}),
    (local, SQUARE, {"disco_layers": True, "diff_layers": True, "resolution_scaling_factor": 2}),
    (local, SQUARE, {"disco_layers": True, "conv_module": SphericalConv, "factorization": "dense"}),
    (local, (8, 8, 8), {"side": 8, "dimensions": 3, "diff_layers": True}),
    (fno, SQUARE, {"kind": TFNO, "factorization": "tucker"}),
    (fno, SQUARE, {"kind": TFNO, "factorization": "cp", "rank": 0.2}),
    (fno, SQUARE, {"kind": TFNO, "factorization": "tt", "implementation": "reconstructed"}),
    (uno, ODD, {}),
    (uno_in_three, CUBE, {}),
    (uno, SQUARE, {"norm": "group_norm", "domain_padding": 0.125}),
    (fno, ODD, {"norm": "group_norm", "fno_skip": "identity", "channel_mlp_skip": "linear"}),
    (fno, SQUARE, {"norm": "instance_norm", "fno_skip": "soft-gating", "channel_mlp_skip": "identity"}),
    (fno, SQUARE, {"norm": "batch_norm", "fno_skip": None, "channel_mlp_skip": None}),
    (fno, SQUARE, {"stabilizer": "tanh", "preactivation": True}),
    (fno, ODD, {"domain_padding": [0.1, 0.25]}),
    (fno, SQUARE, {"positional_embedding": None, "use_channel_mlp": False}),
    # A factor of one still resamples in neuraloperator.
    (fno, CUBE, {"modes": (4, 4, 4), "n_layers": 1, "resolution_scaling_factor": 1}),
    (fno, CUBE, {"modes": (4, 4, 4), "n_layers": 1, "resolution_scaling_factor": [2, 1, 0.5]}),
]


@pytest.mark.parametrize(
    ("build", "size", "settings"), MODELS, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_a_model_agrees_in_onnxruntime(build, size, settings):
    assert difference_through_onnxruntime(prepared(build, settings), example(size)) < 1e-5


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"positional_embedding": None, "stabilizer": "tanh", "norm": "instance_norm"},
        {"fno_skip": "soft-gating", "domain_padding": 0.125},
    ],
    ids=str,
)
def test_a_complex_model_takes_and_returns_pairs_of_numbers(settings):
    model = Pairs(prepared(fno, {"complex_data": True, "n_layers": 1, **settings})).eval()
    inputs = np.stack([example(SQUARE), example(SQUARE)[::-1]], axis=-1)
    assert difference_through_onnxruntime(model, inputs) < 1e-5


def test_a_uqno_returns_a_solution_and_its_uncertainty():
    base, residual = prepared(fno, {}), prepared(sfno, {})
    model, inputs = UQNO(base, residual).eval(), example(SPHERE)
    converted = convert_module(model, inputs, outputs=("solution", "quantile"))
    assert [name.partition(".")[0] for name in converted.layers] == 2 * ["base_model"] + 2 * [
        "residual_model"
    ]
    session = onnxruntime.InferenceSession(
        clean(converted.model).model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    with torch.no_grad():
        expected = model(torch.from_numpy(inputs))
    found = session.run(["solution", "quantile"], {session.get_inputs()[0].name: inputs})
    for one, other in zip(found, expected, strict=True):
        assert relative_difference(one, other.numpy()) < 1e-5


@pytest.mark.parametrize(
    ("build", "size", "settings", "message"),
    [
        (
            sfno,
            SPHERE,
            {"separable": True},
            r"layer fno_blocks\.convs\.0: a separable SphericalConv does not",
        ),
        (fno, SQUARE, {"complex_data": True}, r"layer fno_blocks\.convs\.0: works on complex data"),
        (fno, (16,), {}, r"the module does not run on inputs of shape \[2, 2, 16\]: "),
    ],
    ids=["separable", "complex", "shape"],
)
def test_unsupported_networks_are_refused_in_one_line(build, size, settings, message):
    with pytest.raises(InputError, match=rf"^{message}[^\n]*$"):
        convert_module(prepared(build, settings), example(size))
