"""The general network that is taken when none is named."""

from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import general_artifact as module
from ptychonnx.runtime.inference.general_artifact import general_artifact
from ptychonnx.runtime.scan import Scan


def scan_of(size: int, patterns: int = 2, step: float = 4, probe: np.ndarray | None = None) -> Scan:
    positions = np.stack([np.zeros(patterns), step * np.arange(patterns)], axis=1)
    return Scan(np.ones((patterns, size, size), np.float32), positions, probe, name="mine")


def test_the_network_for_patterns_of_the_size_of_the_scan_is_taken(monkeypatch):
    monkeypatch.setattr(module, "zoo_names", lambda: ["any_64", "any_128", "pinn_fno", "many_32"])
    monkeypatch.setattr(module, "zoo_path", lambda name: name)
    assert general_artifact(scan_of(128)) == "any_128"
    with pytest.raises(
        InputError, match=r"mine: patterns are 32 x 32 pixels.*for 64 x 64, 128 x 128: name an"
    ):
        general_artifact(scan_of(32))


@pytest.mark.parametrize(("patterns", "name"), [(3, "any_64"), (4, "any_64_grid2")])
def test_a_network_of_four_neighbours_is_taken_if_the_scan_has_four_patterns(monkeypatch, patterns, name):
    monkeypatch.setattr(module, "zoo_names", lambda: ["any_64", "any_64_grid2", "pinn_hybrid_grid2"])
    monkeypatch.setattr(module, "zoo_path", lambda name: name)
    assert general_artifact(scan_of(64, patterns)) == name


@pytest.mark.parametrize(("step", "name"), [(10, "any_64_grid2"), (30, "any_64")])
def test_positions_that_do_not_overlap_are_no_neighbours(monkeypatch, step, name):
    monkeypatch.setattr(module, "zoo_names", lambda: ["any_64", "any_64_grid2"])
    monkeypatch.setattr(module, "zoo_path", lambda name: name)
    axis = np.arange(64) - 32
    disk = (np.hypot(axis[:, None], axis) < 10).astype(np.complex64)[None]
    assert general_artifact(scan_of(64, 4, step, disk)) == name


def test_without_a_general_network_one_must_be_named(monkeypatch):
    monkeypatch.setattr(module, "zoo_names", lambda: ["pinn_fno"])
    with pytest.raises(InputError, match="mine: no artifact is named, and this zoo has no general network"):
        general_artifact(scan_of(64))
