"""Torch's exporter traces a program once where a second trace would change nothing."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")

from torch import nn  # noqa: E402
from torch.onnx._internal.exporter._registration import ONNXRegistry  # noqa: E402

from ptychonnx.export.lowering.torch import exporter_shortcuts  # noqa: E402
from ptychonnx.export.lowering.torch.convert import convert_module  # noqa: E402
from ptychonnx.export.verification.engines import open_onnxruntime  # noqa: E402
from ptychonnx.export.verification.verify import relative_difference  # noqa: E402


class Function(nn.Module):
    """A module of a function and, perhaps, a layer."""

    def __init__(self, function, layer=None):
        super().__init__()
        self.function, self.layer = function, layer

    def forward(self, x):
        return self.function(x) if self.layer is None else self.function(self.layer(x))


def written(x):
    x = x + 1
    x[:, :, 0] = 3
    return x


def opposite_of_integers(x):
    return (2 - (4 * x).to(torch.int64)).to(torch.float32)


ONCE = {
    "products": Function(lambda x: (1 - x.square()).reshape(x.shape[0], -1), nn.Conv2d(2, 3, 3)),
    "a part": Function(lambda x: x.narrow(-1, 2, 3).narrow(1, 1, 1)),
    "doubling": Function(torch.relu, nn.ConvTranspose2d(2, 4, 3, 2, 1, 1, groups=2, bias=False, dilation=2)),
    "doubling with a bias": Function(lambda x: x.flatten(1), nn.ConvTranspose2d(2, 4, (2, 3), (2, 1))),
}
TWICE = {
    "writes": Function(written),
    "a part from the end": Function(lambda x: x.narrow(-1, -3, 2)),
    "integers": Function(opposite_of_integers),
    "other factor": Function(lambda x: torch.rsub(x, 1, alpha=3)),
    "dropout": Function(torch.sin, nn.Dropout(0.5)),
    "without an operator of its own": Function(lambda x: torch.hypot(x, 2 * x)),
}


@pytest.mark.parametrize("name", [*ONCE, *TWICE])
def test_a_module_agrees_with_its_graph(name, monkeypatch):
    module = (ONCE | TWICE)[name].eval()
    example = np.random.default_rng(0).normal(size=(5, 2, 8, 7)).astype(np.float32)
    traced, decompose = [], exporter_shortcuts._decompose
    monkeypatch.setattr(
        exporter_shortcuts, "_decompose", lambda *given: traced.append(decompose(*given)) or traced[-1]
    )
    model = convert_module(module, example).model
    assert len(traced) == (name in TWICE)
    with torch.inference_mode():
        expected = module(torch.from_numpy(example)).numpy()
    assert relative_difference(open_onnxruntime(model.SerializeToString())(example), expected) < 1e-6


def test_translations_that_one_export_adds_do_not_reach_the_next():
    with exporter_shortcuts.exporter_shortcuts():
        first = ONNXRegistry().from_torchlib(opset_version=20)
        first.register_op(torch.ops.aten.sin.default, lambda x: x)
        second = ONNXRegistry().from_torchlib(opset_version=20)
    assert first.get_decomps(torch.ops.aten.sin.default)[0].is_custom
    original = ONNXRegistry().from_torchlib(opset_version=20)
    assert second.functions.keys() == original.functions.keys()
    for target, functions in second.functions.items():
        expected = [function.onnx_function for function in original.functions[target]]
        assert [function.onnx_function for function in functions] == expected
