"""Channels are pruned by their norm, and the page holds the recorded results."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tf2onnx")

from benchmarks.pruning import pruned_source
from benchmarks.single_pattern_bounds import TABLES
from benchmarks.smaller_networks import RESULTS, table
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.fitting import train
from ptychonnx.train.registry import get_architecture
from ptychonnx.train.run import read_run, recorded_constants
from ptychonnx.train.tensorflow.network import build_network
from ptychonnx.train.trained_network import load_network


def test_what_stays_of_a_network_are_its_largest_channels(tmp_path):
    scan = simulate_scan(LinesConfig(n=32), 7, np.random.SeedSequence([0, 1]), "train")
    config = NetworkConfig(n=32, width=8, blocks=2, first_steps=2, final_steps=1)
    cnn, run = get_architecture("cnn"), tmp_path / "run"
    training = TrainingConfig(epochs=1, batch=4, overlap=1, learning_rate=0.01)
    train(scan, cnn, config, training, run)
    record = read_run(run)
    wide = load_network(run, record)

    def pruned(width):
        network = replace(config, width=width)
        source = pruned_source(run, network, tmp_path / str(width))
        narrow = build_network(cnn, network, recorded_constants(run, record), seed=9)
        narrow.load(source.run)
        return narrow

    patterns = scan.diffraction[:3, None].astype(np.float32)
    np.testing.assert_array_equal(pruned(8).predict(patterns), wide.predict(patterns))
    narrow = pruned(4)
    before, after = (network.model.get_layer("encoder0_conv1").kernel.numpy() for network in (wide, narrow))
    norms, kept = (np.sort(np.sqrt((kernel**2).sum(axis=(0, 1, 2)))) for kernel in (before, after))
    np.testing.assert_allclose(kept, norms[-4:])
    # What is added up has the same channels.
    source = [wide.model.get_layer(f"real_{name}").kernel.numpy() for name in ("decoded", "skip")]
    target = [narrow.model.get_layer(f"real_{name}").kernel.numpy() for name in ("decoded", "skip")]
    skip = source[1].reshape(-1, 8).T
    chosen = [int(np.argmin(np.abs(skip - column).sum(axis=1))) for column in target[1].reshape(-1, 4).T]
    for number, channel in enumerate(chosen):
        assert np.isin(target[0][..., number], source[0][..., channel]).all()


def test_the_page_has_the_recorded_figures():
    recorded = json.loads(RESULTS.read_text(encoding="utf-8"))["networks"]
    assert table(recorded).splitlines() == json.loads(TABLES.read_text(encoding="utf-8"))["less"]
