"""A refusal by the torch exporter names the layer and the first cause."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")

from torch import nn  # noqa: E402

from ptychonnx.export.lowering.torch.convert import convert_module, reason  # noqa: E402
from ptychonnx.runtime.errors import InputError  # noqa: E402


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


def test_an_operator_without_a_counterpart_is_refused_by_the_path_of_its_layer():
    module = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sequential(nn.ReLU(), Bessel()))
    expected = (
        r"^the torch exporter cannot convert this module: layer 1\.1: No ONNX function [^\n]*bessel_j0[^\n]*"
        r" at test_torch_failure\.py:\d+ `return torch\.special\.bessel_j0\(x\)`; compute it outside [^\n]*$"
    )
    with pytest.raises(InputError, match=expected):
        convert_module(module, np.ones((2, 1, 4, 4), np.float32))


def bessel_of(x):
    return torch.special.bessel_j0(x)


class BesselInFunction(nn.Module):
    def forward(self, x):
        return bessel_of(x)


def test_the_line_inside_a_function_is_named_and_that_of_its_call():
    expected = (
        r"bessel_j0 at test_torch_failure\.py:\d+ `return torch\.special\.bessel_j0\(x\)`, "
        r"called at test_torch_failure\.py:\d+; compute it outside [^\n]*$"
    )
    with pytest.raises(InputError, match=expected):
        convert_module(BesselInFunction(), np.ones((2, 4), np.float32))


class OverBatch(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


FIXING = {
    "linspace": lambda x: x * torch.linspace(0, 1, x.shape[0])[:, None],
    "unbind": lambda x: torch.stack(x.unbind(0)),
    "split": lambda x: torch.cat(x.split(1)),
    "vander": lambda x: torch.vander(x[:, 0], 3),
    "Python code": lambda x: x / len(x),
}


@pytest.mark.parametrize("operator", FIXING)
def test_what_needs_the_batch_as_a_number_is_refused_with_operator_line_and_a_way_out(operator):
    expected = (
        rf"for any batch: {operator} needs the batch as a number at test_torch_failure\.py:\d+ "
        r"`[^\n]*lambda x: [^\n]*`, called at test_torch_failure\.py:\d+; --batch N exports it for batches of N alone$"
    )
    with pytest.raises(InputError, match=expected):
        convert_module(OverBatch(FIXING[operator]), np.ones((2, 4), np.float32))


class Branch(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_branch_that_depends_on_the_data_is_refused_with_its_line():
    with pytest.raises(
        InputError,
        match=r"data-dependent[^\n]* at test_torch_failure\.py:\d+ `return x if x\.sum\(\) > 0 else -x`",
    ):
        convert_module(Branch(), np.ones((2, 4), np.float32))


def test_the_first_cause_is_given_and_not_the_advice_around_it():
    error = RuntimeError("do this, do that")
    error.__cause__ = ValueError("the cause\nmore about it")
    assert reason(error) == "the cause"
    advice = 'For more information, run with TORCH_LOGS="+dynamic".'
    assert reason(ValueError(f"Constraints violated (batch)! {advice}")) == "Constraints violated (batch)"


def test_an_exception_without_text_is_given_by_its_name():
    assert reason(KeyError()) == "KeyError"
