"""The comparison distinguishes a lost global phase from a wrong patch, and the page holds the recorded results."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.scan.forward_model import cut_windows

pytest.importorskip("torch")

from benchmarks.neighbouring_patterns import PHASES, RESULTS, judged, tables
from benchmarks.single_pattern_bounds import TABLES


def test_true_patches_that_lost_their_global_phase_lack_nothing_else():
    scan = simulate_scan(LinesConfig(n=32), 6, np.random.SeedSequence([0, 1]), "test")
    known = cut_windows(scan.reference.object, scan.positions, 32)
    turns = np.exp(1j * np.random.default_rng(0).normal(0, 0.3, (len(scan), 1, 1))).astype(np.complex64)
    right, turned = judged(scan, known), judged(scan, known * turns)
    assert [right[name] for name in PHASES] == pytest.approx([1, 1, 1], abs=1e-4)
    assert turned["phase_ssim"] < 0.9
    assert turned["phase_ssim_synchronised"] > 0.999
    assert turned["phase_ssim_true_phases"] > 0.999


def test_the_page_has_the_recorded_figures():
    recorded = json.loads(RESULTS.read_text(encoding="utf-8"))["neighbours"]
    assert tables(recorded).splitlines() == json.loads(TABLES.read_text(encoding="utf-8"))["neighbours"]
