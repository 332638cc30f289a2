"""The general network that is taken when none is named."""

from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import general_artifact as module
from ptychonnx.runtime.inference.general_artifact import general_artifact
from ptychonnx.runtime.scan import Scan


def scan_of(size: int) -> Scan:
    return Scan(np.ones((2, size, size), np.float32), np.array([[0.0, 0.0], [0.0, 4.0]]), name="mine")


def test_the_network_for_patterns_of_the_size_of_the_scan_is_taken(monkeypatch):
    monkeypatch.setattr(module, "zoo_names", lambda: ["any_64", "any_128", "pinn_fno", "many_32"])
    monkeypatch.setattr(module, "zoo_path", lambda name: name)
    assert general_artifact(scan_of(128)) == "any_128"
    with pytest.raises(
        InputError, match=r"mine: patterns are 32 x 32 pixels.*for 64 x 64 and 128 x 128: name an"
    ):
        general_artifact(scan_of(32))


def test_without_a_general_network_one_must_be_named(monkeypatch):
    monkeypatch.setattr(module, "zoo_names", lambda: ["pinn_fno"])
    with pytest.raises(InputError, match="mine: no artifact is named, and this zoo has no general network"):
        general_artifact(scan_of(64))
