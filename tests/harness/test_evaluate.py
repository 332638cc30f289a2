"""An evaluation measures every artifact on every scan, and writes all of its files or none."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console

from ptychonnx.harness.evaluation.evaluate import evaluate
from ptychonnx.harness.evaluation.results import Evaluation
from ptychonnx.harness.metrics.region import RegionRule
from ptychonnx.harness.report.summary_table import summary_lines
from ptychonnx.harness.report.table_formats import as_csv, as_markdown
from ptychonnx.harness.report.terminal_table import comparison_table
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.progress import Callback, ProgressUpdate
from ptychonnx.runtime.scan import Reference, Scan

LABELS = ["pinn_cnn", "pinn_fno", "pinn_hybrid", "baseline"]


@pytest.fixture(scope="module")
def evaluated(
    four_artifacts: list[Path], lines_scan: Scan, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Evaluation, Path]:
    out = tmp_path_factory.mktemp("report") / "new"
    return evaluate(four_artifacts, [lines_scan], out, ptychopinn=True), out


@pytest.fixture(scope="module")
def metrics(evaluated: tuple[Evaluation, Path]) -> dict[str, Any]:
    return json.loads((evaluated[1] / "metrics.json").read_text())


def test_everything_is_written_and_no_temporary_name_is_left(evaluated: tuple[Evaluation, Path]) -> None:
    assert sorted(path.name for path in evaluated[1].iterdir()) == [
        "comparison.png",
        "errors.png",
        "frc.png",
        "metrics.json",
        "misfit.png",
        "psd.png",
        "report.html",
    ]
    for path in evaluated[1].glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_rows_are_keyed_by_label_and_hold_their_metrics(metrics: dict[str, Any]) -> None:
    assert metrics["version"] == 2
    assert list(metrics["rows"]) == LABELS
    fno = metrics["rows"]["pinn_fno"]
    assert 0.5 < fno["amplitude"]["ssim"] < 0.99
    assert fno["parity"]["max_relative_error"] == 3e-6
    assert fno["weighting"] == "probe"
    assert fno["timing"]["ms_per_pattern"] > 0
    assert fno["timing"]["patterns"] == 64
    assert fno["ptychopinn"]["amplitude"]["psnr"] > fno["amplitude"]["psnr"] + 40
    assert fno["file"] == "pinn_fno.onnx"


def test_an_oracle_gives_the_reference_back_up_to_one_factor(metrics: dict[str, Any]) -> None:
    # This fails if the reference is cut at the wrong place: its origin is (-3, 5), the canvas begins
    # elsewhere.
    oracle = metrics["rows"]["pinn_cnn"]
    assert oracle["amplitude"]["mae"] < 1e-5
    assert oracle["phase"]["mae"] < 1e-5
    assert oracle["alignment"]["scale"] == pytest.approx(1 / 1.7, rel=1e-4)
    assert oracle["alignment"]["phase_rad"] == pytest.approx(-0.9, abs=1e-4)
    assert oracle["amplitude"]["frc"]["cutoff_half"] is None
    assert oracle["amplitude"]["frc"]["text"].startswith("0.5: never crossed")


def test_worse_networks_measure_worse_and_the_blank_one_is_flagged(metrics: dict[str, Any]) -> None:
    rows = metrics["rows"]
    assert rows["pinn_cnn"]["amplitude"]["ssim"] > rows["pinn_fno"]["amplitude"]["ssim"]
    assert {label: row["collapsed"] for label, row in rows.items()} == dict.fromkeys(LABELS, False) | {
        "baseline": True
    }


def test_every_row_is_measured_on_the_same_region(metrics: dict[str, Any]) -> None:
    regions = [row["region"] for row in metrics["rows"].values()]
    assert all(region == regions[0] for region in regions)
    assert metrics["scans"][0]["region"]["pixels"] == regions[0]["pixels"] > 500


def test_the_region_can_be_set(four_artifacts: list[Path], lines_scan: Scan) -> None:
    box = (15.0, 35.0, 24.0, 44.0)
    found = evaluate(four_artifacts[:1], [lines_scan], region=RegionRule(0.0, box))
    assert found.scans[0].region_record.pixels == 400


def test_crop_weighting_shrinks_the_region_of_all(four_artifacts: list[Path], lines_scan: Scan) -> None:
    rule = RegionRule(0.0)
    wide = evaluate(four_artifacts[:1], [lines_scan], weighting="uniform", region=rule)
    cropped = evaluate(four_artifacts[:1], [lines_scan], weighting="crop", region=rule)
    assert wide.scans[0].region_record.pixels == 44**2
    assert cropped.scans[0].region_record.pixels == (44 - 8) ** 2
    assert cropped.rows[0].results["lines"].weighting == "crop"


def test_progress_counts_every_pattern(four_artifacts: list[Path], lines_scan: Scan) -> None:
    seen: list[ProgressUpdate] = []
    evaluate(four_artifacts[:2], [lines_scan], batch=24, progress=Callback(seen.append))
    assert [step.done for step in seen] == [0, 24, 48, 64, 0, 24, 48, 64]
    assert {(step.total, step.unit) for step in seen} == {(64, "patterns")}
    assert [step.stage for step in seen] == ["Evaluating pinn_cnn"] * 4 + ["Evaluating pinn_fno"] * 4


def test_several_scans_are_told_apart(
    four_artifacts: list[Path], lines_scan: Scan, scan_of: Callable[..., Scan], tmp_path: Path
) -> None:
    other = replace(lines_scan, name="other/scan")
    evaluate([four_artifacts[3], four_artifacts[1]], [lines_scan, other], tmp_path)
    rows = json.loads((tmp_path / "metrics.json").read_text())["rows"]
    assert list(rows["pinn_fno"]["scans"]) == ["lines", "other/scan"]
    assert rows["pinn_fno"]["scans"]["other/scan"]["amplitude"]["ssim"] > 0.5
    assert rows["baseline"]["collapsed"] is True
    assert (tmp_path / "comparison_2_other-scan.png").is_file()
    assert len(list(tmp_path.glob("*.png"))) == 10


def test_a_report_replaces_the_figures_of_the_one_before_and_no_other_file(
    four_artifacts: list[Path], lines_scan: Scan, tmp_path: Path
) -> None:
    earlier = ["halves.png", "errors_2_other-scan.png", "misfit.png", "comparison_notes.png", "notes.txt"]
    for name in earlier:
        (tmp_path / name).write_text("earlier")
    evaluate(four_artifacts[:1], [lines_scan], tmp_path)
    kept = {path.name for path in tmp_path.iterdir() if path.read_bytes() == b"earlier"}
    assert kept == {"comparison_notes.png", "notes.txt"}
    assert {"halves.png", "errors_2_other-scan.png"}.isdisjoint(path.name for path in tmp_path.iterdir())


def test_a_report_that_another_evaluation_is_making_is_refused_at_once(
    four_artifacts: list[Path], lines_scan: Scan, tmp_path: Path
) -> None:
    out, refusals = tmp_path / "report", []
    second = "import sys; from ptychonnx.runtime.atomic import check_output; check_output(sys.argv[1])"

    def meanwhile(update: ProgressUpdate) -> None:
        if not refusals:
            command = [sys.executable, "-c", second, str(out)]
            refusals.append(subprocess.run(command, capture_output=True, text=True).stderr)

    evaluate(four_artifacts[:1], [lines_scan], out, progress=Callback(meanwhile))
    assert f"{out}: another process is writing it" in refusals[0]
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("any_64.onnx", "(any_64)"), ("pinn_cnn.onnx", ""), ("http://host/any_64", "(http://host/any_64)")],
)
def test_a_row_shows_the_file_that_its_label_does_not_name(
    evaluated: tuple[Evaluation, Path], name: str, shown: str
) -> None:
    row = replace(evaluated[0].rows[0], name=name)
    evaluation = replace(evaluated[0], rows=(row,))
    console = Console(width=120, record=True, file=StringIO())
    console.print(comparison_table(evaluation, 120))
    for text in (console.export_text(), as_markdown(evaluation), summary_lines(evaluation)[0].note):
        assert ("any_64" in text) == bool(shown)
    assert row.file == shown


def test_scans_of_one_name_are_numbered(four_artifacts: list[Path], lines_scan: Scan) -> None:
    found = evaluate(four_artifacts[:1], [lines_scan, lines_scan])
    assert [scan.name for scan in found.scans] == ["lines #1", "lines #2"]


def test_a_scan_file_is_read(four_artifacts: list[Path], lines_scan: Scan, tmp_path: Path) -> None:
    write_scan(tmp_path / "test.npz", lines_scan)
    found = evaluate(four_artifacts[:1], [tmp_path / "test.npz"])
    (result,) = found.rows[0].results.values()
    assert result.comparison is not None
    assert result.comparison.amplitude.mae is not None
    assert result.comparison.amplitude.mae < 1e-5


def test_without_a_reference_there_are_pictures_and_no_metrics(
    four_artifacts: list[Path], lines_scan: Scan, tmp_path: Path
) -> None:
    evaluate(four_artifacts, [replace(lines_scan, reference=None)], tmp_path)
    rows = json.loads((tmp_path / "metrics.json").read_text())["rows"]
    for row in rows.values():
        assert row["amplitude"] is None
        assert row["phase"] is None
        assert row["collapsed"] is None
        assert "no reference" in row["notes"][0]
    assert (tmp_path / "reconstruction.png").is_file()
    assert not (tmp_path / "comparison.png").exists()
    assert "No reference for lines" in (tmp_path / "report.html").read_text()


def test_equal_labels_get_the_name_of_the_file(
    oracle: Callable[..., Path], lines_scan: Scan, tmp_path: Path
) -> None:
    paths = [oracle(tmp_path / name, lines_scan, "pinn_fno") for name in ("fp32.onnx", "fp16.onnx")]
    found = evaluate(paths, [lines_scan])
    assert [row.label for row in found.rows] == ["pinn_fno (fp32)", "pinn_fno (fp16)"]
    assert "told apart by the names" in found.rows[0].notes[0]


def test_equal_labels_and_names_are_refused(
    oracle: Callable[..., Path], lines_scan: Scan, tmp_path: Path
) -> None:
    paths = [oracle(tmp_path / folder / "m.onnx", lines_scan, "pinn_fno") for folder in ("a", "b")]
    with pytest.raises(InputError) as error:
        evaluate(paths, [lines_scan], tmp_path / "out")
    assert str(paths[0]) in str(error.value)
    assert str(paths[1]) in str(error.value)
    assert not (tmp_path / "out").exists()


def test_another_n_is_refused_before_anything_runs_or_is_written(
    four_artifacts: list[Path], lines_scan: Scan, scan_of: Callable[..., Scan], tmp_path: Path
) -> None:
    steps: list[Any] = []
    with pytest.raises(InputError, match="24 x 24"):
        evaluate(
            four_artifacts,
            [lines_scan, scan_of(size=24, name="wide")],
            tmp_path / "out",
            progress=Callback(steps.append),
        )
    assert not steps
    assert not (tmp_path / "out").exists()


def test_a_network_of_another_size_is_left_out_without_being_loaded(
    four_artifacts: list[Path],
    lines_scan: Scan,
    scan_of: Callable[..., Scan],
    oracle: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    larger = oracle(tmp_path / "larger.onnx", scan_of(size=32), "larger")
    model = onnx.load(larger)
    model.graph.node[1].op_type = "Unknown"
    onnx.save(model, larger)
    with pytest.raises(InputError, match=r"larger\.onnx"):
        Session(larger, "cpu")
    evaluation = evaluate([*four_artifacts, larger], lines_scan)
    assert "larger" not in {row.label for row in evaluation.rows}
    assert "larger.onnx: left out, takes patterns of 32 pixels, the scan has 16" in caplog.text
    # It is refused where no network fits.
    with pytest.raises(InputError, match=r"larger\.onnx"):
        evaluate([larger], lines_scan)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"artifacts": []}, "0 artifacts"),
        ({"scans": []}, "0 scans"),
        ({"weighting": "gauss"}, "weighting = 'gauss': expected"),
        ({"references": [None, None]}, "2 references for 1 scans"),
        ({"references": [Path("truth.npy")]}, "loaded already"),
        ({"batch": 0}, "batch is 0"),
    ],
)
def test_bad_input_is_one_clear_line_and_no_file(
    four_artifacts: list[Path], lines_scan: Scan, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    arguments = {"artifacts": four_artifacts, "scans": [lines_scan], "out": tmp_path / "out"} | changes
    with pytest.raises(InputError, match=message) as error:
        evaluate(**arguments)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_out_that_is_a_file_is_refused_first(
    four_artifacts: list[Path], lines_scan: Scan, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="expected a folder"):
        evaluate(four_artifacts, [lines_scan], tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_reference_elsewhere_is_refused(
    four_artifacts: list[Path], lines_scan: Scan, tmp_path: Path
) -> None:
    far = replace(lines_scan, reference=Reference(np.ones((5, 5), dtype=np.complex64), (900.0, 0.0)))
    with pytest.raises(InputError, match="holds no pixel"):
        evaluate(four_artifacts[:1], [far], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_network_of_nan_alone_ends_the_evaluation_before_anything_is_written(
    oracle: Callable[..., Path], lines_scan: Scan, tmp_path: Path
) -> None:
    broken = oracle(tmp_path / "nan.onnx", lines_scan, "pinn_nan", lambda patches: patches * np.nan)
    for skip_invalid, message in (
        (False, "the patch of pattern 0 of lines is not finite"),
        (True, "no patch of lines is finite"),
    ):
        with pytest.raises(VerificationError, match=rf"nan\.onnx: {message}"):
            evaluate([broken], [lines_scan], tmp_path / "out", skip_invalid=skip_invalid)
    assert not (tmp_path / "out").exists()


def test_a_network_of_nan_is_named_and_the_others_are_measured(
    oracle: Callable[..., Path], lines_scan: Scan, four_artifacts: list[Path], tmp_path: Path
) -> None:
    broken = oracle(tmp_path / "nan.onnx", lines_scan, "pinn_nan", lambda patches: patches * np.nan)
    alone = evaluate([four_artifacts[1]], [lines_scan])
    evaluation = evaluate([broken, four_artifacts[1]], [lines_scan], tmp_path / "out")
    reason = "nan.onnx: the patch of pattern 0 of lines is not finite"
    assert evaluation.failures["pinn_nan"].startswith(reason)
    assert [row.label for row in evaluation.rows] == [row.label for row in alone.rows]
    comparisons = [result.rows[0].results["lines"].comparison for result in (evaluation, alone)]
    assert comparisons[0] == comparisons[1]
    assert reason in json.loads((tmp_path / "out" / "metrics.json").read_text())["failures"]["pinn_nan"]
    assert f"pinn_nan has no row: {reason}" in (tmp_path / "out" / "report.html").read_text()
    *_, last = csv.DictReader(as_csv(evaluation).splitlines())
    assert (last["label"], last["collapsed"]) == ("pinn_nan", "")
    assert f"failed: {reason}" in last["notes"]
    assert f"| pinn_nan (failed) | {reason}" in as_markdown(evaluation)


def test_patches_of_nan_can_be_left_out_and_the_report_says_how_many(
    oracle: Callable[..., Path], lines_scan: Scan, tmp_path: Path
) -> None:
    def spoil(patches: np.ndarray) -> np.ndarray:
        patches = patches.copy()
        patches[[5, 9]] = np.nan
        return patches

    path = oracle(tmp_path / "some.onnx", lines_scan, "pinn_some", spoil)
    found = evaluate([path], [lines_scan], tmp_path / "out", skip_invalid=True)
    assert (
        "2 of 64 patterns left out, whose patches are not finite: 5, 9"
        in found.rows[0].results["lines"].notes
    )
    assert "2 of 64 patterns left out" in (tmp_path / "out" / "report.html").read_text()


def test_another_probe_than_the_training_one_is_noted(
    oracle: Callable[..., Path], lines_scan: Scan, tmp_path: Path
) -> None:
    path = oracle(
        tmp_path / "m.onnx", lines_scan, "pinn_fno", probe={"sha256": "f" * 64, "modes": 1, "flux": 1.0}
    )
    found = evaluate([path], [lines_scan])
    assert "not the one" in found.rows[0].results["lines"].notes[0]


def test_an_alignment_that_would_change_the_verdict_is_noted_and_not_applied(
    four_artifacts: list[Path], lines_scan: Scan
) -> None:
    assert lines_scan.reference is not None
    twin = replace(lines_scan.reference, object=lines_scan.reference.object.conj())
    oracle = four_artifacts[:1]
    as_it_is, conjugate = (
        evaluate(oracle, scan).rows[0].results["lines"]
        for scan in (lines_scan, replace(lines_scan, reference=twin))
    )
    assert not any("not applied" in note for note in as_it_is.notes)
    assert any("the complex conjugate would lower the error" in note for note in conjugate.notes)
    assert conjugate.comparison is not None
    assert conjugate.comparison.phase.pearson == pytest.approx(-1, abs=0.05)


def test_a_shifted_reference_needs_registration(four_artifacts: list[Path], lines_scan: Scan) -> None:
    assert lines_scan.reference is not None
    moved = replace(lines_scan, reference=Reference(lines_scan.reference.object, (-2.0, 4.0)))
    plain = evaluate(four_artifacts[:1], [moved]).rows[0].results["lines"].comparison
    registered = evaluate(four_artifacts[:1], [moved], register=True).rows[0].results["lines"]
    assert plain is not None
    assert registered.comparison is not None
    assert registered.comparison.alignment is not None
    assert registered.comparison.alignment.shift_px == pytest.approx((1.0, -1.0), abs=0.05)
    assert plain.amplitude.mae is not None
    assert registered.comparison.amplitude.mae is not None
    assert registered.comparison.amplitude.mae < 0.1 * plain.amplitude.mae


@pytest.mark.parametrize("scans", [1, 2])
def test_the_table_fits_a_terminal_of_120_columns(
    four_artifacts: list[Path], lines_scan: Scan, scans: int
) -> None:
    found = evaluate(four_artifacts, [lines_scan] * scans)
    console = Console(width=120, record=True, file=StringIO())
    console.print(comparison_table(found))
    text = console.export_text()
    assert "…" not in text
    for label in LABELS:
        assert label in text
    assert text.count("COLLAPSED") == scans
    assert "never/never" in text


def test_the_harness_loads_no_training_framework() -> None:
    unwanted = ("torch", "tensorflow", "keras")
    code = f"import sys, ptychonnx.harness.evaluation.evaluate; print([m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"


def test_phases_are_synchronised_on_request_and_the_report_says_so(
    oracle: Callable[..., Path], lines_scan: Scan, tmp_path: Path
) -> None:
    turns = np.exp(1j * np.random.default_rng(0).uniform(-1.5, 1.5, len(lines_scan)))[:, None, None]
    path = oracle(tmp_path / "turned.onnx", lines_scan, "turned", lambda patches: patches * turns)
    found = {}
    for synchronise in (False, True):
        out = tmp_path / "report" if synchronise else None
        (row,) = evaluate([path], [lines_scan], out, synchronise=synchronise, placement="fourier").rows
        found[synchronise] = row.results[lines_scan.name]
    assert found[False].comparison.phase.pearson < 0.9
    assert found[True].comparison.phase.pearson > 0.999
    assert found[True].synchronised
    assert (
        "fourier placement, global phases synchronised" in (tmp_path / "report" / "report.html").read_text()
    )
