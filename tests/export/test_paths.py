"""The torch exporter writes local paths into its graphs; the passes remove all of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")

from neuralop.layers.spectral_convolution import SpectralConv  # noqa: E402

from ptychonnx.export.lowering.torch.convert import convert_module  # noqa: E402
from ptychonnx.export.passes import clean  # noqa: E402


class OfThisFile(torch.nn.Module):
    """Nodes know the lines of their author's code."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = SpectralConv(1, 2, (4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(self.convolution(x))


def test_no_path_of_this_machine_is_left():
    before = convert_module(OfThisFile(), np.zeros((1, 1, 8, 8), np.float32)).model
    after = clean(before).model
    # If the exporter stops doing so, this test proves nothing any more.
    assert b"stack_trace" in before.SerializeToString()
    assert str(Path(__file__).resolve().parents[2]).encode() in before.SerializeToString()
    data = after.SerializeToString()
    places = {Path.cwd(), Path.home(), Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parent}
    for trace in (b"site-packages", b"stack_trace", *(str(place).encode() for place in places)):
        assert trace not in data
    for tensor in after.graph.initializer:
        tensor.ClearField("raw_data")
    assert "/" not in str(after)
