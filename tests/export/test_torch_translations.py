"""Operators that torch's exporter lacks, or translates to something else, agree with torch."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from ptychonnx.export.lowering.torch.convert import convert_module  # noqa: E402
from ptychonnx.export.passes import clean  # noqa: E402


class Translated(nn.Module):
    """A function of images [B, 2, 14, 10] that returns a tuple."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def copies(x):
    filled, parts, empty = x.clone(), torch.complex(x, 2 * x), torch.empty_like(x)
    filled[..., 0] = 0.5
    filled[:, 1, 3:5] = x[:, :1, 0].mean(-1, keepdim=True)
    filled[:, 0, 2].copy_(torch.tensor(3.0))
    parts[..., 0].imag = 0.0
    parts[:, 1].real = x[:, 0, :1]
    empty[...] = x.mean()
    return filled, torch.view_as_real(parts), empty, torch.hypot(x, filled)


def antialiased(x):
    def resized(mode, **size):
        return functional.interpolate(x, mode=mode, antialias=True, **size)

    return (
        resized("bicubic", size=(7, 5)),
        resized("bicubic", size=(9, 17), align_corners=True),
        resized("bicubic", scale_factor=(0.3, 0.8)),
        resized("bilinear", scale_factor=0.45),
        resized("bilinear", size=(5, 13), align_corners=True),
    )


def medians(x):
    return (*x.median(-1), *x[..., :9].median(2, keepdim=True))


def extremes(x):
    return x.amax(), x.amin(), x.amin((1, 2)), x.amax(-1, keepdim=True)


@pytest.mark.parametrize("function", [copies, antialiased, medians, extremes])
def test_translations_agree_with_torch(function):
    x = np.random.default_rng(0).normal(size=(3, 2, 14, 10)).astype(np.float32)
    expected = Translated(function)(torch.from_numpy(x))
    names = [f"output_{number}" for number in range(len(expected))]
    model = clean(convert_module(Translated(function), x, outputs=names).model).model
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x})
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=2e-6)
