"""Finite differences of neuraloperator, merged into one convolution, agree with the original."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")

from neuralop.layers.differential_conv import FiniteDifferenceConvolution  # noqa: E402
from torch import nn  # noqa: E402

from ptychonnx.export.lowering.torch.finite_differences import (  # noqa: E402
    MergedFiniteDifference,
    merge_finite_differences,
)
from ptychonnx.runtime.errors import VerificationError  # noqa: E402


@pytest.mark.parametrize("padding", ["periodic", "replicate", "reflect", "zeros"])
@pytest.mark.parametrize(("size", "kernel", "groups"), [((9,), 3, 1), ((8, 11), 5, 2), ((6, 7, 8), 3, 4)])
def test_a_merged_layer_equals_the_original(size, kernel, groups, padding):
    layer = FiniteDifferenceConvolution(4, 8, len(size), kernel, groups, padding)
    module = nn.ModuleDict({"inner": nn.ModuleList([layer])})
    merge_finite_differences(module)
    merged = module["inner"][0]
    assert isinstance(merged, MergedFiniteDifference)
    x = torch.randn(3, 4, *size)
    for grid_width in (1, 0.25):
        assert torch.allclose(merged(x, grid_width), layer(x, grid_width), rtol=1e-4, atol=1e-5)


class Doubled(FiniteDifferenceConvolution):
    def forward(self, x, grid_width):
        return 2 * super().forward(x, grid_width)


def test_a_layer_that_computes_something_else_is_refused_by_name():
    with pytest.raises(VerificationError, match=r"^layer 1: as one convolution it differs"):
        merge_finite_differences(nn.Sequential(nn.Identity(), Doubled(2, 2, 2)))
