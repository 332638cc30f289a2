"""Periodic padding becomes a concatenation, and other padding stays."""

from __future__ import annotations

import numpy as np
import pytest

ir = pytest.importorskip("onnx_ir")

from onnx import helper  # noqa: E402

from ptychonnx.export.passes.periodic_padding import PeriodicPaddingPass  # noqa: E402
from tests.export.graphs import kinds, model_of  # noqa: E402


def padded(mode, pads, axes=None):
    names = ["x", "pads", *(["", "axes"] if axes else [])]
    constants = [("pads", np.int64(pads)), *([("axes", np.int64(axes))] if axes else [])]
    nodes = [helper.make_node("Pad", names, ["y"], mode=mode)]
    model = ir.from_proto(
        model_of(nodes, [("x", ["b", 2, 5, 4])], [("y", ["b", "c", "h", "w"])], constants, opset=19)
    )
    PeriodicPaddingPass()(model)
    return ir.to_proto(model)


@pytest.mark.parametrize(
    ("pads", "axes", "widths"),
    [
        ([0, 0, 1, 2, 0, 0, 3, 0], None, [(0, 0), (0, 0), (1, 3), (2, 0)]),
        ([4, 4], [-1], [(0, 0), (0, 0), (0, 0), (4, 4)]),
    ],
)
def test_periodic_padding_is_a_concatenation(pads, axes, widths):
    from onnx.reference import ReferenceEvaluator

    model = padded("wrap", pads, axes)
    assert set(kinds(model)) == {"Slice", "Concat"}
    x = np.random.default_rng(0).normal(size=(3, 2, 5, 4)).astype(np.float32)
    (found,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_array_equal(found, np.pad(x, widths, mode="wrap"))


@pytest.mark.parametrize(
    ("mode", "pads"), [("reflect", [0, 0, 1, 1, 0, 0, 1, 1]), ("wrap", [0, 0, 6, 0, 0, 0, 0, 0])]
)
def test_other_padding_stays(mode, pads):
    assert kinds(padded(mode, pads)) == ["Pad"]
