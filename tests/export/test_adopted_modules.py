"""Adoption of code: the artifact is compared with the module itself, in float64 where float32 is not enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
import yaml
from torch import nn

from ptychonnx.export.adoption import foreign_module, read_specification
from ptychonnx.export.adoption.adopt import adopt_network
from ptychonnx.export.adoption.foreign_module import adopt_module
from ptychonnx.runtime.errors import VerificationError

N = 16


class Steep(nn.Module):
    """The phase turns often where patterns are bright, so that float32 leaves it three digits there."""

    def __init__(self):
        super().__init__()
        layers = (
            part for a, b in ((1, 8), (8, 8), (8, 1)) for part in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())
        )
        self.layers = nn.Sequential(*layers)[:-1]

    def forward(self, patterns):
        return torch.sin(300 * self.layers(patterns))


@pytest.fixture
def steep():
    torch.manual_seed(0)
    return Steep()


@pytest.fixture
def specification(tmp_path):
    path = tmp_path / "steep.yaml"
    fields = {
        "label": "steep",
        "n": N,
        "flux": 1e4,
        "input": {"steps": [{"divide": 10}]},
        "output": {"channels": ["phase"]},
    }
    path.write_text(yaml.safe_dump(fields))
    return read_specification(path)


def test_a_module_whose_float32_has_few_digits_is_judged_by_its_float64(steep, specification, tmp_path):
    result = adopt_module(steep, specification, tmp_path / "steep.onnx")
    ill = [case for case in result.report.cases if case.ill_conditioned]
    assert ill
    assert all(case.passed and case.own_error > 2.5e-5 for case in ill)
    assert any(line.startswith("ill-conditioned on bright inputs") for line in result.verdict())


def test_a_graph_that_is_wrong_by_more_than_the_module_itself_is_refused(
    steep, specification, tmp_path, monkeypatch
):
    def wrong(foreign, *arguments, **options):
        model = onnx.ModelProto.FromString(foreign.model.SerializeToString())
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 4:
                values = onnx.numpy_helper.to_array(tensor) * np.float32(1.001)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return adopt_network(replace(foreign, model=model), *arguments, **options)

    monkeypatch.setattr(foreign_module, "adopt_network", wrong)
    with pytest.raises(VerificationError, match="parity"):
        adopt_module(steep, specification, tmp_path / "steep.onnx")
    assert not (tmp_path / "steep.onnx").exists()
