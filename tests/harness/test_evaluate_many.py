"""Many scans evaluated in one command: a report each, what is done is skipped, and what fails stops nothing."""

from __future__ import annotations

import json
import re

import pytest

from ptychonnx.runtime.formats.readers.native import write_scan

NAMES = ("one", "three", "two")


@pytest.fixture
def night(tmp_path, lines_scan):
    folder = tmp_path / "night"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        write_scan(folder / f"{name}.npz", lines_scan.subset(slice(8 * number, 8 * number + 40)))
    return folder


def records(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_each_scan_has_its_report_and_a_corrupt_one_stops_nothing(
    run, four_artifacts, night, tmp_path, lines_scan
):
    whole = (night / "two.npz").read_bytes()
    (night / "two.npz").write_bytes(whole[:9000])
    reports, models = tmp_path / "reports", four_artifacts[:2]

    def evaluate(*more):
        before = len(records(reports)) if reports.is_dir() else 0
        code, out, error = run("evaluate", *models, "--scans", night / "*.npz", "--out", reports, *more)
        return code, out, error, [record["result"] for record in records(reports)[before:]]

    code, out, error, done = evaluate()
    assert (code, done) == (1, list(NAMES))
    assert "1 of 3 scans failed, the others are in" in error
    assert out.count("failed: ") == 1
    assert re.search(r"two\.npz: truncated", records(reports)[2]["error"])
    assert not (reports / "two").exists()
    for name in ("one", "three"):
        code, _, error = run(
            "evaluate", *models, "--scan", night / f"{name}.npz", "--out", tmp_path / "single"
        )
        assert code == 0, error
        single = json.loads((tmp_path / "single" / "metrics.json").read_text())
        many = json.loads((reports / name / "metrics.json").read_text())
        record = next(record for record in records(reports) if record["result"] == name)
        for label, row in single["rows"].items():
            for quantity, value in zip(("amplitude", "phase"), record["ssim"][label], strict=True):
                assert many["rows"][label][quantity] == row[quantity]
                assert value == row[quantity]["ssim"]
        misfits = [row["misfit"] for row in single["rows"].values()]
        assert record["misfit"] == pytest.approx(min(misfit["value"] for misfit in misfits), abs=1e-5)
        assert record["scattered"] in [round(misfit["scattered"], 5) for misfit in misfits]
        assert (reports / name / "report.html").exists()

    code, out, error = run("summary", reports)
    assert code == 0, error
    assert "3 scans, of which 1 failed" in out
    page = (reports / "summary.html").read_text()
    assert re.findall(r'<a href="(.*?)">', page) == ["one/report.html", "three/report.html"]
    ssim = records(reports)[0]["ssim"]["pinn_fno"][1]
    assert f'<td data-sort="{ssim}">{ssim:.3f}</td>' in page

    (night / "two.npz").write_bytes(whole)
    write_scan(night / "one.npz", lines_scan)
    assert evaluate()[::3] == (0, ["one", "two"])
    assert evaluate()[::3] == (0, [])
    assert evaluate("--plane")[::3] == (0, list(NAMES))


def test_workers_evaluate_scans(run, four_artifacts, night, tmp_path):
    (night / "two.npz").write_bytes(b"")
    arguments = ["evaluate", *four_artifacts[:2], "--scans", night / "*.npz", "--out"]
    code, out, error = run(*arguments, tmp_path / "reports", "--executor", "local:1")
    assert code == 1, error
    assert out.count("pinn_fno SSIM") == 2
    assert run(*arguments, tmp_path / "here")[0] == 1
    theirs, ours = ({r["result"]: r for r in records(tmp_path / name)} for name in ("reports", "here"))
    assert [theirs[name]["ssim"] for name in NAMES] == [ours[name]["ssim"] for name in NAMES]


def test_a_network_that_fails_fails_its_scan(run, oracle, lines_scan, night, tmp_path):
    broken = oracle(tmp_path / "broken.onnx", lines_scan, "pinn_cnn", lambda patches: patches * float("nan"))
    code, _, error = run("evaluate", broken, "--scans", night / "one.npz", "--out", tmp_path / "reports")
    assert code == 1, error
    assert "is not finite" in records(tmp_path / "reports")[0]["error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected --scan FILE, or --scans PATTERN for many scans"),
        (["--scan", "a.npz", "--scans", "b.npz"], "expected --scan FILE, or --scans PATTERN for many scans"),
        (["--scans", "none/*.npz"], "--scans none/*.npz: matches no file"),
        (["--scans", "night/*.npz", "--csv", "-"], "--scans: got -, expected --out FOLDER alone"),
        (["--scans", "night/*.npz", "--object", "a=b.h5"], "--scans: got a, expected --out FOLDER alone"),
        (["--scan", "night/one.npz", "--executor", "local"], "--executor: is for many scans"),
        (["--scan", "night/one.npz", "--watch"], "--watch: is for many scans"),
    ],
)
def test_options_that_contradict_are_refused(
    run, four_artifacts, night, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    code, _, error = run("evaluate", four_artifacts[0], *options, "--out", "reports")
    assert code == 2
    assert message in error
    assert not (tmp_path / "reports").exists()
