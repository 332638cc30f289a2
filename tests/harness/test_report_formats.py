"""CSV and Markdown hold the numbers of the evaluation, and standard output holds nothing else."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from ptychonnx.harness.evaluation.evaluate import evaluate
from ptychonnx.harness.evaluation.results import Evaluation
from ptychonnx.harness.report.table_formats import as_csv, as_markdown
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.scan import Scan


@pytest.fixture(scope="module")
def evaluation(four_artifacts: list[Path], lines_scan: Scan) -> Evaluation:
    return evaluate(four_artifacts, [lines_scan], None, register=True, plane=True)


@pytest.fixture(scope="module")
def scan_file(lines_scan: Scan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "lines.npz"
    write_scan(path, lines_scan)
    return path


def records(text: str) -> dict[str, dict[str, str]]:
    return {record["label"]: record for record in csv.DictReader(StringIO(text))}


def test_csv_has_a_line_an_artifact_with_the_figures_of_the_json(evaluation: Evaluation) -> None:
    found, rows = records(as_csv(evaluation)), evaluation.as_json()["rows"]
    assert list(found) == list(rows)
    for label, row in rows.items():
        record = found[label]
        for name in ("amplitude", "phase"):
            for metric in (
                "mae",
                "mse",
                "psnr",
                "data_range",
                "ssim",
                "ms_ssim",
                "pearson",
                "contrast_ratio",
            ):
                value = row[name][metric]
                assert record[f"{name}_{metric}"] == ("" if value is None else repr(value))
        assert record["collapsed"] == ("true" if label == "baseline" else "false")
        assert float(record["misfit"]) == row["misfit"]["value"]
        assert float(record["misfit_scattered"]) == row["misfit"]["scattered"]
        assert record["misfit_verdict"] == row["misfit"]["verdict"]
        assert float(record["ms_per_pattern"]) == row["timing"]["ms_per_pattern"]
        assert float(record["shift_rows_px"]) == row["alignment"]["shift_px"][0]
        assert float(record["ramp_columns_rad_per_px"]) == row["alignment"]["ramp_rad_per_pixel"][1]


def test_csv_tells_never_crossed_from_not_defined(evaluation: Evaluation) -> None:
    found = records(as_csv(evaluation))
    assert float(found["pinn_cnn"]["amplitude_frc_cutoff_half"]) == math.inf
    assert found["pinn_cnn"]["amplitude_half_period_half_px"] == ""
    assert found["baseline"]["amplitude_frc_cutoff_half"] == ""
    frc = evaluation.as_json()["rows"]["pinn_fno"]["amplitude"]["frc"]
    assert float(found["pinn_fno"]["amplitude_frc_cutoff_half"]) == frc["cutoff_half"]
    assert float(found["pinn_fno"]["amplitude_half_period_half_m"]) == frc["half_period_m"]["half"]
    assert float(found["pinn_fno"]["amplitude_frc_cutoff_two_sigma"]) == frc["cutoff_two_sigma"]


def test_csv_holds_intervals_and_power_errors(evaluation: Evaluation) -> None:
    record = records(as_csv(evaluation))["pinn_fno"]
    for metric in ("amplitude_ssim", "phase_pearson", "amplitude_psnr", "phase_mae"):
        low, value, high = (float(record[f"{metric}{end}"]) for end in ("_low", "", "_high"))
        assert low < value < high
    psd = evaluation.as_json()["rows"]["pinn_fno"]["phase"]["psd"]
    assert float(record["phase_psd_log_error_db"]) == psd["log_error_db"]
    assert float(record["phase_psd_bias_db"]) == psd["bias_db"]


def test_markdown_is_one_table_that_can_be_pasted(evaluation: Evaluation) -> None:
    table, _, note = as_markdown(evaluation).strip().partition("\n\n")
    lines = table.splitlines()
    assert len(lines) == 2 + 4
    assert {line.count("|") for line in lines} == {16}
    assert set(lines[1]) == set("|:- ")
    fno = next(line for line in lines if line.startswith("| pinn_fno |"))
    metrics = evaluation.as_json()["rows"]["pinn_fno"]["amplitude"]
    low, high = evaluation.intervals(evaluation.rows[1], "lines")["amplitude_ssim"]
    assert f"| {metrics['ssim']:.3f} [{low:.3f}, {high:.3f}] |" in fno
    assert "baseline (collapsed)" in table
    assert "never crossed" in table
    assert "\n" not in note


def test_a_bar_in_a_label_does_not_break_the_table(evaluation: Evaluation) -> None:
    row = replace(evaluation.rows[1], label="a|b\nc", name="a|b\nc.onnx")
    lines = as_markdown(replace(evaluation, rows=(row,))).splitlines()
    assert lines[2].startswith("| a\\|b c |")
    assert lines[3] == ""


def test_several_scans_have_a_line_each(four_artifacts: list[Path], lines_scan: Scan) -> None:
    alone = replace(lines_scan, name="alone", reference=None)
    found = evaluate(four_artifacts[:1], [lines_scan, alone], None)
    first, second = csv.DictReader(StringIO(as_csv(found)))
    assert (first["scan"], second["scan"]) == ("lines", "alone")
    assert second["amplitude_mae"] == second["collapsed"] == second["amplitude_frc_cutoff_half"] == ""
    assert second["notes"].startswith("no reference")
    lines = as_markdown(found).splitlines()
    assert lines[3].startswith("| pinn_cnn | alone |")
    assert {line.count("|") for line in lines[:4]} == {17}


@pytest.mark.parametrize("form", ["json", "csv", "markdown"])
def test_standard_output_holds_the_data_alone(run, four_artifacts, scan_file, tmp_path, form) -> None:
    target = tmp_path / "new" / f"figures.{form}"
    code, out, err = run("evaluate", four_artifacts[1], "--scan", scan_file, f"--{form}", "-")
    assert code == 0, err
    assert "A amplitude, P phase" in err
    code, quiet, _ = run("evaluate", four_artifacts[1], "--scan", scan_file, f"--{form}", target)
    assert code == 0
    assert "A amplitude, P phase" in quiet
    if form == "json":
        one, two = json.loads(out), json.loads(target.read_text())
        assert one["rows"]["pinn_fno"]["amplitude"] == two["rows"]["pinn_fno"]["amplitude"]
    elif form == "csv":
        assert list(records(out)) == list(records(target.read_text())) == ["pinn_fno"]
    else:
        assert out.startswith("| artifact |")
        assert out.splitlines()[:2] == target.read_text().splitlines()[:2]
    assert not list(tmp_path.glob("**/*.html"))


def test_forms_go_beside_the_report(run, four_artifacts, scan_file, tmp_path) -> None:
    out = tmp_path / "report"
    code, text, _ = run(
        *("evaluate", four_artifacts[1], "--scan", scan_file, "--out", out),
        *("--csv", out / "table.csv", "--json", tmp_path / "copy.json"),
    )
    assert code == 0
    assert "report.html" in text
    assert (tmp_path / "copy.json").read_text() == (out / "metrics.json").read_text()
    assert (out / "table.csv").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "nothing to write, expected --out, --json, --csv or --markdown"),
        (("--json", "-", "--csv", "-"), "another table goes to standard output"),
        (("--markdown", "same", "--csv", "same"), "--markdown same: is what --csv writes too"),
        (("--csv", "."), "--csv .: is a folder, expected a file"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_runs(
    run, tmp_path, options: tuple[str, ...], message: str
) -> None:
    code, out, err = run("evaluate", tmp_path / "missing.onnx", "--scan", tmp_path / "none.npz", *options)
    assert (code, out) == (2, "")
    assert message in err
