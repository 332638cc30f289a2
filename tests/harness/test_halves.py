"""Two halves of a scan, reconstructed alone, agree up to the detail that the data support; no reference is needed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ptychonnx.harness.evaluation.evaluate import evaluate
from ptychonnx.harness.evaluation.halves import halves_of
from ptychonnx.harness.report.html_page import render_page
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import write_scan


def test_the_halves_share_no_pattern(lines_scan):
    first, second = halves_of(lines_scan)
    np.testing.assert_array_equal(first.positions, lines_scan.positions[::2])
    np.testing.assert_array_equal(second.diffraction, lines_scan.diffraction[1::2])


@pytest.fixture(scope="module")
def evaluation(four_artifacts, lines_scan):
    return evaluate(four_artifacts, replace(lines_scan, reference=None), halves=True)


def test_only_independent_noise_lowers_the_agreement(evaluation):
    rows = evaluation.as_json()["rows"]
    # The first answers with the truth times a factor, the second with the same blurred truth.
    for label in ("pinn_cnn", "pinn_fno"):
        assert rows[label]["halves"]["amplitude"]["cutoff_half"] is None
        assert rows[label]["halves"]["phase"]["correlation"][-1] > 0.6
    # Noise that differs from pattern to pattern, so from half to half.
    noisy = rows["pinn_hybrid"]["halves"]["amplitude"]
    assert 0.05 < noisy["cutoff_half"] < 0.5
    assert noisy["correlation"][-1] < 0.5 < noisy["correlation"][1]
    # Nothing is correlated with a constant.
    assert rows["baseline"]["halves"]["amplitude"] is None


def test_the_page_shows_them(evaluation):
    page = render_page(evaluation)
    assert "two halves" in page
    assert 'alt="halves"' in page
    assert page.count('colspan="2" class="first">two halves') == 1


def test_the_command_line_prints_the_cutoffs(four_artifacts, lines_scan, tmp_path, run):
    scan = tmp_path / "scan.npz"
    write_scan(scan, lines_scan)
    code, out, _ = run(
        "evaluate", four_artifacts[2], "--scan", scan, "--halves", "--json", tmp_path / "m.json"
    )
    assert code == 0
    frc = json.loads((tmp_path / "m.json").read_text())["rows"]["pinn_hybrid"]["halves"]["phase"]
    assert f"phase of two halves, FRC {frc['text']}" in out


def test_a_scan_without_enough_patterns_is_refused(four_artifacts, lines_scan):
    with pytest.raises(InputError, match="leaves 0 patterns in a half"):
        evaluate(four_artifacts[:1], lines_scan.subset(slice(0, 1)), halves=True)
