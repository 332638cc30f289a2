"""The most sensitive layers stay in float, as few as possible."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ptychonnx.export.precision.fp16 import half_precision
from ptychonnx.export.precision.int8 import eight_bit
from ptychonnx.export.precision.reducible_layers import with_named_nodes
from ptychonnx.export.precision.sensitivity import fewest_in_float, output_change, sensitivities
from tests.export.small_network import scan_of_noise, small_network


@pytest.mark.parametrize("needed", range(1, 12))
def test_as_few_layers_are_kept_as_are_accepted(needed):
    sensitivity = {f"layer_{index}": float((7 * index) % 12) for index in range(12)}
    asked = []

    def accepted(kept):
        asked.append(len(kept))
        return len(kept) >= needed

    kept = fewest_in_float(sensitivity, accepted)
    assert [sensitivity[layer] for layer in kept] == [11.0 - index for index in range(needed)]
    assert len(asked) <= math.ceil(math.log2(12))


def test_there_may_be_no_answer():
    sensitivity = {"a": 1.0, "b": 2.0, "c": 3.0}
    assert fewest_in_float(sensitivity, lambda kept: False) is None
    assert fewest_in_float({"a": 1.0}, lambda kept: True) is None


def test_a_change_is_relative_to_the_contrast_and_infinite_if_not_finite():
    expected = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    assert output_change(expected, expected) == 0
    assert output_change(expected + np.std(expected), expected) == pytest.approx(1, rel=1e-6)
    assert output_change(np.array([1.0, np.nan, 3.0]), expected) == math.inf
    assert output_change(np.array([1.0, np.inf, 3.0]), expected) == math.inf


@pytest.mark.parametrize(("precision", "trap"), [("fp16", "overflow"), ("int8", "outlier")])
def test_the_layer_that_degrades_is_the_most_sensitive(precision, trap):
    model = with_named_nodes(small_network(trap))
    inputs = scan_of_noise().diffraction[:4, None]
    reduction = half_precision(model) if precision == "fp16" else eight_bit(model, [(inputs,)])
    found = sensitivities(model, reduction, (inputs,))
    assert list(found) == ["first", "second", "third"]
    assert found["second"] > 0.3
    assert max(found["first"], found["third"]) < 0.02
