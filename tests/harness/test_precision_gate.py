"""The gate accepts only what reconstructs as well as its parent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from ptychonnx.harness.evaluation.evaluate import evaluate
from ptychonnx.harness.evaluation.precision_gate import (
    AllowedDecrease,
    PrecisionGate,
    excessive_decreases,
    gate_metrics,
)
from ptychonnx.harness.evaluation.results import Evaluation
from ptychonnx.runtime.contract import Quality
from ptychonnx.runtime.contract.integrity import graph_sha256
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.validation import checked
from tests.export.small_network import scan_of_noise, set_weights, small_network, weights_of, write_artifact

Oracle = Callable[..., Path]
Degrade = Callable[[np.ndarray], np.ndarray]


def slightly_noisy(patches: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(8)
    return patches + 2e-3 * (rng.normal(size=patches.shape) + 1j * rng.normal(size=patches.shape))


def broken(patches: np.ndarray) -> np.ndarray:
    spoilt = patches.copy()
    spoilt[3, 8, 8] = np.nan
    return spoilt


@pytest.fixture
def parent(oracle: Oracle, lines_scan: Scan, tmp_path: Path, degradations: dict[str, Degrade]) -> Path:
    return oracle(tmp_path / "parent.onnx", lines_scan, "pinn_fno", degradations["blurred"])


def test_an_artifact_passes_its_own_gate(parent: Path, lines_scan: Scan) -> None:
    quality = PrecisionGate(lines_scan)(parent, parent)
    assert quality.parent == quality.artifact
    assert quality.scan == "lines, 64 patterns, against its reference"
    assert quality.parent_sha256 == graph_sha256(onnx.load(parent))
    assert quality.allowed_fall == {
        "amplitude_pearson": 0.005,
        "amplitude_ssim": 0.01,
        "amplitude_frc_cutoff": 0.01,
        "phase_pearson": 0.005,
        "phase_ssim": 0.01,
        "phase_frc_cutoff": 0.01,
    }


def test_the_figures_are_those_of_an_evaluation(
    parent: Path, oracle: Oracle, lines_scan: Scan, tmp_path: Path
) -> None:
    candidate = oracle(tmp_path / "candidate.onnx", lines_scan, "candidate", slightly_noisy)
    quality = PrecisionGate(lines_scan)(parent, candidate)
    evaluation: Evaluation = evaluate([parent, candidate], [lines_scan], tmp_path / "report", provider="cpu")
    for row, found in zip(evaluation.rows, (quality.parent, quality.artifact), strict=True):
        comparison = row.results["lines"].comparison
        assert comparison is not None
        assert gate_metrics(comparison) == found
        assert comparison.amplitude.ssim == found["amplitude_ssim"]
    assert quality.artifact["phase_frc_cutoff"] == 0.5  # never crossed


def test_a_worse_candidate_is_refused_with_figures(
    parent: Path, oracle: Oracle, lines_scan: Scan, tmp_path: Path, degradations: dict[str, Degrade]
) -> None:
    candidate = oracle(tmp_path / "candidate.onnx", lines_scan, "candidate", degradations["blank"])
    with pytest.raises(VerificationError) as refusal:
        PrecisionGate(lines_scan)(parent, candidate)
    text = str(refusal.value)
    assert "amplitude ssim fell by" in text
    assert "allowed 0.01" in text
    assert text.endswith("(on lines, 64 patterns, against its reference)")
    assert "\n" not in text


@pytest.mark.parametrize("ruin", ["zeroed", "two bits"])
def test_one_ruined_layer_is_refused_even_without_a_reference(ruin: str, tmp_path: Path) -> None:
    scan = scan_of_noise()
    parent = write_artifact(tmp_path / "parent.onnx", small_network())
    model = small_network()
    weights = weights_of(model, "second.weight")
    step = np.abs(weights).max()
    set_weights(model, "second.weight", 0 * weights if ruin == "zeroed" else step * np.rint(weights / step))
    candidate = write_artifact(tmp_path / "candidate.onnx", model)
    gate = PrecisionGate(scan)
    assert gate(parent, parent).artifact["amplitude_pearson"] == pytest.approx(1)
    with pytest.raises(VerificationError, match=r"ssim fell by .* against the reconstruction of the float32"):
        gate(parent, candidate)
    # What is allowed can be set.
    lenient = PrecisionGate(scan, AllowedDecrease(pearson=2, ssim=2, frc_cutoff=0.5))
    if ruin == "two bits":
        assert lenient(parent, candidate).artifact["amplitude_ssim"] < 0.99


def test_infinities_are_refused_whatever_is_allowed(
    parent: Path, oracle: Oracle, lines_scan: Scan, tmp_path: Path
) -> None:
    candidate = oracle(tmp_path / "candidate.onnx", lines_scan, "candidate", broken)
    with pytest.raises(VerificationError, match="not finite"):
        PrecisionGate(lines_scan, AllowedDecrease(pearson=2, ssim=2, frc_cutoff=1))(parent, candidate)


def test_a_parent_that_misses_the_reference_is_its_own(
    oracle: Oracle, lines_scan: Scan, tmp_path: Path, degradations: dict[str, Degrade]
) -> None:
    # Upside down, hence collapsed: as poor after any damage.
    parent = oracle(tmp_path / "parent.onnx", lines_scan, "parent", lambda p: p[:, ::-1, ::-1])
    noisy = oracle(
        tmp_path / "noisy.onnx", lines_scan, "noisy", lambda p: degradations["noisy"](p[:, ::-1, ::-1])
    )
    gate = PrecisionGate(lines_scan)
    assert gate(parent, parent).scan.endswith("against the reconstruction of the float32 artifact")
    with pytest.raises(VerificationError, match="fell by"):
        gate(parent, noisy)


def test_a_scan_that_shows_nothing_cannot_judge(
    oracle: Oracle, lines_scan: Scan, tmp_path: Path, degradations: dict[str, Degrade]
) -> None:
    parent = oracle(tmp_path / "parent.onnx", lines_scan, "parent", degradations["blank"])
    with pytest.raises(InputError, match="expected an object with some contrast"):
        PrecisionGate(replace(lines_scan, reference=None))(parent, parent)


def test_a_figure_that_is_lost_counts_as_a_fall_and_one_that_never_was_does_not() -> None:
    def quality(before: float | None, after: float | None) -> Quality:
        return Quality(
            parent_sha256="", scan="", parent={"ssim": before}, artifact={"ssim": after}, allowed_fall={"ssim": 0.1}
        )  # fmt: skip

    assert excessive_decreases(quality(0.5, 0.41)) == []
    assert excessive_decreases(quality(0.5, 0.9)) == []
    assert excessive_decreases(quality(None, None)) == excessive_decreases(quality(None, 0.3)) == []
    assert len(excessive_decreases(quality(0.5, 0.39))) == 1
    assert "no longer defined" in excessive_decreases(quality(0.5, None))[0]
    assert len(excessive_decreases(quality(0.5, float("nan")))) == 1


def test_a_negative_allowance_is_refused() -> None:
    with pytest.raises(InputError, match="setting ssim"):
        checked(AllowedDecrease, {"ssim": -0.1})
