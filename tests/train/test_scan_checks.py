"""What would train without an error to a worthless network is named before the first epoch."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.dataset import prepare
from ptychonnx.train.fitting import settings_for, train
from ptychonnx.train.registry import get_architecture
from ptychonnx.train.run import held_out_scan
from ptychonnx.train.scan_checks import without_dark_patterns
from tests.train.tiny import SMALL

NETWORK, TRAINING = NetworkConfig(n=32), TrainingConfig()


def prepared(scan, name="fno", **options):
    return prepare(scan, NETWORK, TRAINING, get_architecture(name), **options)


@pytest.mark.parametrize("factor", [1e6, 10, 0.01, 1e-6])
def test_brightness_that_contradicts_the_probe_is_refused(tiny_scan, factor):
    scan = replace(tiny_scan, diffraction=tiny_scan.diffraction * np.float32(factor))
    for options in ({}, {"distilled": True}):
        with pytest.raises(InputError, match=r"tiny: the mean pattern holds .* expected 0.001 to 10"):
            prepared(scan, **options)


def test_brightness_that_an_absorbing_object_explains_is_trained_on(tiny_scan):
    prepared(replace(tiny_scan, diffraction=tiny_scan.diffraction * np.float32(0.1)))


def test_the_supervised_network_compares_nothing_with_the_probe(tiny_scan):
    prepared(replace(tiny_scan, diffraction=tiny_scan.diffraction * np.float32(1e3)), "baseline")


def test_positions_that_are_all_the_same_are_refused(tiny_scan):
    still = replace(tiny_scan, positions=np.broadcast_to(tiny_scan.positions[:1], (len(tiny_scan), 2)))
    for name in ("fno", "baseline"):
        with pytest.raises(InputError, match="all 64 patterns have the same position"):
            prepared(still, name)


def test_a_position_measured_many_times_trains(tiny_scan):
    """No pattern is lost when more patterns share a place than a group holds."""
    positions = tiny_scan.positions.copy()
    positions[:30] = positions[0]
    data = prepared(replace(tiny_scan, positions=positions))
    assert set(data.train.ravel()) | set(data.held_out.ravel()) <= set(range(64))
    assert len(data.train) + len(data.held_out) == 64


def test_a_detector_that_stopped_is_named(tiny_scan, caplog):
    diffraction = tiny_scan.diffraction.copy()
    diffraction[41:] = diffraction[40]
    prepared(replace(tiny_scan, diffraction=diffraction))
    assert "23 of 64 patterns equal an earlier one (pattern 41 is the first)" in caplog.text
    diffraction[:] = diffraction[40]
    with pytest.raises(InputError, match="all 64 patterns are the same"):
        prepared(replace(tiny_scan, diffraction=diffraction), "baseline")


def test_patterns_without_a_photon_are_left_out_and_counted(tiny_scan, caplog, tmp_path):
    pytest.importorskip("lightning")
    dark = [5, 40]
    diffraction = tiny_scan.diffraction.copy()
    diffraction[dark] = 0
    scan = replace(tiny_scan, diffraction=diffraction)
    with caplog.at_level(logging.WARNING, "ptychonnx"):
        lit = without_dark_patterns(scan)
    assert len(lit) == 62
    assert "2 of 64 patterns hold no photon (pattern 5 is the first)" in caplog.text
    network, training = settings_for(get_architecture("fno"), {**SMALL, "epochs": 1})
    record = train(scan, get_architecture("fno"), network, training, tmp_path / "run")
    assert record.flux == pytest.approx(lit.flux)
    assert np.all(np.asarray(held_out_scan(tmp_path / "run").diffraction).any(axis=(1, 2)))


def test_a_scan_of_lit_patterns_is_left_alone(tiny_scan, caplog):
    assert without_dark_patterns(tiny_scan) is tiny_scan
    assert not caplog.text
