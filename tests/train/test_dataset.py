"""What training is fed: groups, scales and labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan.forward_model import cut_windows
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.dataset import prepare
from ptychonnx.train.registry import get_architecture

NETWORK = NetworkConfig(n=32)
PHYSICS, BASELINE = get_architecture("fno"), get_architecture("baseline")


def test_held_out_patterns_are_never_trained_on(tiny_scan):
    data = prepare(tiny_scan, NETWORK, TrainingConfig(), PHYSICS)
    assert not set(data.train.ravel()) & set(data.held_out.ravel())
    assert set(data.train.ravel()) | set(data.held_out.ravel()) == set(range(len(tiny_scan)))
    assert len(np.unique(data.held_out)) >= 16


def test_groups_hold_neighbours_and_offsets_place_their_windows(tiny_scan):
    data = prepare(tiny_scan, NETWORK, TrainingConfig(overlap=4), PHYSICS)
    offsets = data.offsets(data.train)
    assert offsets.min() == 0
    assert np.median(offsets.max(axis=1)) <= 4 * 4
    for group, offset in zip(data.train[:5], offsets[:5], strict=True):
        moved = tiny_scan.positions[group] - tiny_scan.positions[group].min(axis=0)
        assert np.array_equal(offset, moved.astype(int))


def test_the_scaled_amplitude_has_a_root_mean_square_of_one(tiny_scan):
    data = prepare(tiny_scan, NETWORK, TrainingConfig(), PHYSICS)
    assert np.sqrt(np.mean((tiny_scan.diffraction * data.scale) ** 2)) == pytest.approx(1, rel=1e-5)
    assert data.flux == pytest.approx(tiny_scan.flux)


def test_labels_are_the_windows_of_the_known_object(tiny_scan):
    data = prepare(tiny_scan, NETWORK, TrainingConfig(), BASELINE)
    expected = cut_windows(tiny_scan.reference.object, tiny_scan.positions, 32, tiny_scan.reference.origin)
    assert np.array_equal(data.labels, expected)
    assert data.train.shape[1] == 1


def test_physics_needs_no_known_object_but_the_baseline_does(tiny_scan):
    blind = replace(tiny_scan, reference=None)
    assert prepare(blind, NETWORK, TrainingConfig(), PHYSICS).labels is None
    with pytest.raises(InputError, match="has no known object"):
        prepare(blind, NETWORK, TrainingConfig(), BASELINE)


def test_gridsize_two_groups_four_patterns(tiny_scan):
    data = prepare(tiny_scan, NetworkConfig(n=32, gridsize=2), TrainingConfig(overlap=1), PHYSICS)
    assert data.train.shape[1] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scan: replace(scan, probe=None), "has no probe"),
        (lambda scan: replace(scan, diffraction=0 * scan.diffraction), "every pattern is zero"),
        (lambda scan: scan.subset(slice(0, 20)), "20 patterns are too few, expected at least 32"),
    ],
)
def test_a_scan_that_cannot_train_is_refused(tiny_scan, change, message):
    with pytest.raises(InputError, match=message):
        prepare(change(tiny_scan), NETWORK, TrainingConfig(), PHYSICS)


def test_patterns_of_another_size_are_refused(tiny_scan):
    with pytest.raises(InputError, match="32 x 32 pixels, the network has n = 64"):
        prepare(tiny_scan, NetworkConfig(n=64), TrainingConfig(), PHYSICS)


def test_a_known_object_smaller_than_the_scan_is_refused(tiny_scan):
    moved = replace(tiny_scan, positions=tiny_scan.positions + 100)
    with pytest.raises(InputError, match="outside the object"):
        prepare(moved, NETWORK, TrainingConfig(), BASELINE)
