"""Iterations in a report, after a network, and in the files that `reconstruct` writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import ptychonnx
from ptychonnx.harness.evaluation.evaluate import evaluate
from ptychonnx.harness.iterative import iterations
from ptychonnx.harness.iterative.iterations import MOST_EPOCHS, has_settled
from ptychonnx.harness.iterative.refinement import refine
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.harness.study.lines_study import plan_lines
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.progress import Callback, ProgressUpdate
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.scan import Scan


@pytest.fixture
def few(scan_of) -> Scan:
    """25 patterns of a known object."""
    return scan_of(grid=5)


@pytest.fixture
def blurred(oracle, few: Scan, degradations, tmp_path: Path) -> Path:
    """A network that is not quite right."""
    return oracle(tmp_path / "blurred.onnx", few, "pinn_fno", degradations["blurred"])


@pytest.fixture
def scan_file(few: Scan, tmp_path: Path) -> Path:
    path = tmp_path / "scan.npz"
    write_scan(path, few)
    return path


def test_iterations_are_rows_beside_the_networks(run, blurred, scan_file, tmp_path):
    out = tmp_path / "report"
    code, text, err = run(
        "evaluate", blurred, "--scan", scan_file, "--out", out, "--iterations", 3, "--refine", 2
    )
    assert code == 0, err
    rows = json.loads((out / "metrics.json").read_text())["rows"]
    assert list(rows) == ["pinn_fno", "pinn_fno + mPIE 2", "iterative (mPIE 3)"]
    network, refined, iterative = rows.values()
    assert refined["phase"]["mae"] < 0.8 * network["phase"]["mae"]
    assert refined["phase"]["mae"] < iterative["phase"]["mae"]
    assert network["parity"] is not None
    for row in (refined, iterative):
        assert row["parity"] is None
        assert row["kind"] == "iterations"
        assert row["timing"]["ms_per_pattern"] > 0
        assert any("mPIE" in note and "alpha" in note for note in row["notes"])
    assert "from vacuum" in " ".join(iterative["notes"])
    assert refined["timing"]["ms_per_pattern"] > network["timing"]["ms_per_pattern"]
    assert {"iterative", "(mPIE"} <= set(text.split())  # the table folds long names
    page = (out / "report.html").read_text()
    assert "3 epochs of mPIE" in page
    assert "none weights" not in page


def test_with_many_photons_a_smaller_alpha_needs_fewer_epochs():
    config = LinesConfig(test_grid=10)
    scan = simulate_scan(config, config.test_grid, np.random.SeedSequence([0, 1]), "lines")
    errors = {}
    for alpha in (1.0, 0.3, 0.1):
        (row,) = evaluate([], [scan], None, iterations=3, alpha=alpha, momentum=0).rows
        (result,) = row.results.values()
        errors[alpha] = result.comparison.phase.mae
    assert errors[0.1] < 0.7 * errors[0.3]
    assert errors[0.3] < 0.8 * errors[1.0]


def test_iterations_alone_make_a_report(few, tmp_path):
    seen = []
    found = evaluate([], [few], None, iterations=2, progress=Callback(seen.append))
    (row,) = found.rows
    assert row.contract is None
    assert seen[-1] == ProgressUpdate(f"Evaluating {row.label}", 2, 2, "epochs")


def test_a_refined_reconstruction_says_what_was_done(run, blurred, scan_file, few, tmp_path):
    written = {}
    for name, done, options in (
        ("plain", "", []),
        ("refined", "3 epochs of mPIE", ["--refine", 3]),
        ("both", "3 epochs of rPIE", ["--refine", 3, "--refine-probe"]),
    ):
        for ending in ("h5", "npz"):
            path = tmp_path / f"{name}.{ending}"
            code, out, err = run("reconstruct", blurred, scan_file, "--out", path, *options)
            assert code == 0, err
        assert done in out
        assert ("epochs" in out) == bool(done)
        with np.load(path, allow_pickle=False) as file:
            written[name] = {key: file[key] for key in ("object", "probe", "refinement")}
        with h5py.File(path.with_suffix(".h5")) as file:
            assert file.attrs.get("refinement", "") == str(written[name]["refinement"])
    assert str(written["plain"]["refinement"]) == ""
    assert "probe held" in str(written["refined"]["refinement"])
    assert "probe refined" in str(written["both"]["refinement"])
    assert np.abs(written["refined"]["object"] - written["plain"]["object"]).max() > 0.01
    np.testing.assert_array_equal(written["refined"]["probe"], few.probe)
    assert np.abs(written["both"]["probe"] - few.probe).max() > 1e-3 * np.abs(few.probe).max()


def test_the_time_of_iterations_is_added_to_that_of_the_network(blurred, few):
    network = reconstruct(Session(blurred), few)
    both = refine(few, network, 1)
    assert both.inference_seconds > network.inference_seconds
    assert both.stitching_seconds == network.stitching_seconds
    np.testing.assert_array_equal(both.stitched.weight, network.stitched.weight)


def test_automatic_epochs_end_when_the_misfit_hardly_falls(run, blurred, scan_file, few, tmp_path):
    falling = [0.5, 0.4, 0.3, 0.25, 0.2, 0.199, 0.198, 0.197]
    assert not has_settled(falling)
    assert not has_settled([*falling, 0.196, 0.195, 0.195, 0.195])
    assert has_settled([*falling, 0.196, 0.195, 0.194, 0.193, 0.192])
    network = reconstruct(Session(blurred), few)
    automatic = refine(few, network, "auto")
    epochs = int(automatic.refinement.split()[0])
    assert 3 < epochs < MOST_EPOCHS
    # Four more epochs explain the patterns hardly better, one epoch alone much worse.
    misfit, longer, shorter = (
        float(result.refinement.split()[-1])
        for result in (automatic, refine(few, network, epochs + 4), refine(few, network, 1))
    )
    assert 0.8 * misfit < longer <= misfit
    assert misfit < 0.7 * shorter
    code, out, err = run("reconstruct", blurred, scan_file, "--out", tmp_path / "o.h5", "--refine", "auto")
    assert code == 0, err
    assert f"{epochs} epochs of mPIE" in out
    code, _, err = run("reconstruct", blurred, scan_file, "--out", tmp_path / "p.h5", "--refine", "many")
    assert code == 2
    assert "--refine many: is neither a number from 0 nor 'auto'" in err


def test_what_cannot_be_iterated_on_is_refused_before_anything_runs(run, blurred, few, tmp_path):
    path, out = tmp_path / "dark.npz", tmp_path / "out"
    write_scan(path, replace(few, probe=None))
    for command in (
        ["evaluate", blurred, "--scan", path, "--out", out, "--iterations", 1, "--weighting", "window"],
        ["reconstruct", blurred, path, "--out", out / "object.h5", "--refine", 1, "--weighting", "window"],
    ):
        code, _, err = run(*command)
        assert code == 2
        assert "iterations need a probe" in err
        assert not out.exists()
    code, _, err = run("reconstruct", blurred, path, "--out", out / "object.h5", "--refine-probe")
    assert code == 2
    assert "expected --refine K or --iterations K with it" in err


def test_a_study_passes_the_iterations_on(tmp_path):
    plan = plan_lines(["fno"], tmp_path, evaluate_options=["--iterations", "5"])
    assert "--iterations 5" in " ".join(plan.evaluation)


def test_epochs_that_a_caller_ends_leave_the_object_so_far(blurred, few):
    seen = []

    def until(misfits):
        seen.append(len(misfits))
        return len(misfits) == 2

    ended = ptychonnx.reconstruct(blurred, few, refine=30, until=until)
    assert seen == [1, 2]
    assert ended.refinement.startswith("2 epochs of mPIE")
    np.testing.assert_allclose(ended.object, ptychonnx.reconstruct(blurred, few, refine=2).object, atol=1e-4)


def test_iterations_from_vacuum_need_no_network(run, few, scan_file, tmp_path):
    out, picture = tmp_path / "object.h5", tmp_path / "object.png"
    code, text, err = run("reconstruct", scan_file, "--iterations", 30, "--out", out, "--picture", picture)
    assert code == 0, err
    assert "30 epochs of mPIE" in text
    assert "from vacuum" in text
    assert "good, the object explains the patterns" in text
    assert "ms per pattern" not in text
    with h5py.File(out) as file:
        assert file.attrs["contract"] == ""
        assert "from vacuum" in file.attrs["refinement"]
        image = file["object"][()]
    assert picture.read_bytes().startswith(b"\x89PNG")
    (row,) = evaluate([], [few], None, objects={"written": out}).rows
    (result,) = row.results.values()
    assert result.comparison.phase.mae < 0.05
    alone = ptychonnx.reconstruct(None, few, iterations=30)
    np.testing.assert_array_equal(alone.object, image)
    assert alone.weighting == "none"
    automatic = ptychonnx.reconstruct(None, few, iterations="auto")
    assert 11 <= int(automatic.refinement.split()[0]) < MOST_EPOCHS
    assert alone.misfit.value <= automatic.misfit.value < 0.1


def test_many_scans_are_iterated_on_without_a_network(run, few, tmp_path):
    paths = [tmp_path / "first.npz", tmp_path / "second.npz"]
    for path in paths:
        write_scan(path, few)
    folder = tmp_path / "objects"
    code, _, err = run("reconstruct", *paths, "--iterations", 10, "--out", folder)
    assert code == 0, err
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert {line["result"] for line in lines} == {"first.h5", "second.h5"}
    assert {line["settings"]["network"] for line in lines} == {"none"}
    assert {line["verdict"] for line in lines} == {"good"}
    (record, _) = ptychonnx.reconstruct_scans(None, paths, tmp_path / "again", iterations=10)
    assert record.error is None


@pytest.mark.parametrize(
    "options",
    [
        ("--refine", "3"),
        ("--uncertainty",),
        ("--fit-patterns",),
        ("--weighting", "probe"),
        ("--synchronise",),
        ("--skip-invalid",),
        ("--correct-positions", "free"),
        ("--patches", "patches.h5"),
        ("--server", "grpc://127.0.0.1:1/network"),
        ("--executor", "local:1"),
        ("--shard", "1/2"),
    ],
)
def test_iterations_from_vacuum_refuse_what_belongs_to_a_network(run, scan_file, tmp_path, options):
    out = tmp_path / "object.h5"
    code, _, err = run("reconstruct", scan_file, "--iterations", 3, "--out", out, *options)
    assert code == 2
    assert f"{options[0]}: belongs to a network, and --iterations start from vacuum without one" in err
    assert not out.exists()


def test_iterations_from_vacuum_take_no_network(run, blurred, scan_file, few, tmp_path):
    out = tmp_path / "object.h5"
    code, _, err = run("reconstruct", blurred, scan_file, "--iterations", 3, "--out", out)
    assert code == 2
    assert "--iterations start from vacuum, expected no artifact, or --refine instead" in err
    for extra in ({"refine": 1}, {}):
        model = None if extra else blurred
        with pytest.raises(InputError, match="iterations: start from vacuum"):
            ptychonnx.reconstruct(model, few, iterations=3, **extra)


def test_iterations_that_exceed_the_memory_are_refused(few, monkeypatch):
    monkeypatch.setattr(iterations, "available_memory", lambda: 7 * len(few) * few.size**2)
    with pytest.raises(InputError, match=r"keep all amplitudes in memory, .* expected at most half of"):
        ptychonnx.reconstruct(None, few, iterations=1)


def test_the_object_of_the_general_network_is_refined_unless_the_user_chose(run, tmp_path):
    scan = ptychonnx.simulate_lines(grid=5)
    path = tmp_path / "scan.npz"
    write_scan(path, scan)
    texts = {}
    for name, options in (
        ("default", []),
        ("none", ["--refine", 0]),
        ("two", ["--refine", 2]),
        ("uncertainty", ["--uncertainty"]),
    ):
        code, text, err = run("reconstruct", path, "--out", tmp_path / f"{name}.npz", *options)
        assert code == 0, err
        texts[name] = text
    code, named, err = run("reconstruct", "zoo:any_64", path, "--out", tmp_path / "named.npz")
    assert code == 0, err
    assert "epochs of mPIE" not in texts["none"] + texts["uncertainty"] + named
    assert "2 epochs of mPIE" in texts["two"]
    (line,) = (line for line in texts["default"].splitlines() if "epochs of mPIE" in line)
    assert 11 <= int(line.split()[0]) < MOST_EPOCHS
    images = {}
    for name in ("default", "none"):
        with np.load(tmp_path / f"{name}.npz", allow_pickle=False) as file:
            images[name] = file["object"]
    np.testing.assert_array_equal(ptychonnx.reconstruct(None, scan).object, images["default"])
    np.testing.assert_array_equal(ptychonnx.reconstruct(None, scan, refine=0).object, images["none"])


def test_what_cannot_be_refined_is_not_by_default(few, tmp_path, monkeypatch):
    scan = ptychonnx.simulate_lines(grid=3)
    assert "epochs" in ptychonnx.reconstruct(None, scan).refinement
    in_tiles = ptychonnx.reconstruct(None, scan, canvas_memory=0)
    assert in_tiles.refinement == ""
    monkeypatch.setattr(iterations, "available_memory", lambda: 7 * len(scan) * scan.size**2)
    assert ptychonnx.reconstruct(None, scan).refinement == ""


def test_an_object_that_leaves_noise_alone_is_not_iterated_on(few):
    """More epochs would follow the noise."""
    network = ptychonnx.reconstruct(None, few, iterations=100)
    assert network.misfit.value == network.misfit.scattered == 0
    automatic = refine(few, network, "auto")
    assert automatic.refinement.startswith(
        "0 epochs of mPIE: the object of the network explains the patterns down to"
    )
    np.testing.assert_array_equal(automatic.object, network.object)
    assert refine(few, network, 1).refinement.startswith("1 epoch of mPIE")


def test_pixels_that_no_patch_covers_stay_empty(blurred, few):
    network = reconstruct(Session(blurred), few)
    assert not network.stitched.covered.all()
    for start in (network, None):
        stitched = refine(few, start, 2).stitched
        np.testing.assert_array_equal(stitched.object != 0, stitched.covered)
        np.testing.assert_array_equal(stitched.covered, network.stitched.covered)


def test_iterations_that_nobody_asked_for_do_not_cost_the_object(run, tmp_path):
    scan = ptychonnx.simulate_lines(grid=8, step=20)
    path, out = tmp_path / "scan.npz", tmp_path / "object.npz"
    write_scan(path, replace(scan, probe=(0.4 * scan.probe).astype(np.complex64)))
    # A probe that is refined with momentum diverges.
    diverging = ["--refine-probe", "--momentum", 0.99]
    code, text, err = run("reconstruct", path, *diverging, "--out", out)
    assert code == 0, err
    assert "the iterations diverged in epoch" in err
    assert "the object of the network is kept as it is" in err
    assert "epochs" not in text
    with np.load(out, allow_pickle=False) as file:
        kept = file["object"]
    code, _, err = run("reconstruct", path, "--refine", 0, "--out", out)
    assert code == 0, err
    with np.load(out, allow_pickle=False) as file:
        np.testing.assert_array_equal(kept, file["object"])
    code, _, err = run("reconstruct", path, *diverging, "--refine", "auto", "--out", tmp_path / "asked.npz")
    assert code == 1
    assert not (tmp_path / "asked.npz").exists()
