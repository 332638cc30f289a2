"""A tiny scan of a known object, small enough to train on in seconds."""

from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.scan import Scan


@pytest.fixture(scope="session")
def tiny_scan() -> Scan:
    config = LinesConfig(n=32, step=4, train_grid=8, photons=1e6)
    return simulate_scan(config, config.train_grid, np.random.SeedSequence(7), "tiny")
