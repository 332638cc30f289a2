"""The command line: bad input gets one line and exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.formats import read_scan, write_scan
from ptychonnx.runtime.inference import available
from ptychonnx.runtime.scan import Scan

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def scan(lines_scan: Scan) -> Scan:
    return lines_scan


@pytest.fixture
def artifact(oracle: Callable[..., Path], scan: Scan, tmp_path: Path) -> Path:
    """An artifact that gives the known object back."""
    (tmp_path / "models").mkdir()
    return oracle(tmp_path / "models" / "pinn_fno.onnx", scan, "pinn_fno")


@pytest.fixture
def scan_file(tmp_path: Path, scan: Scan) -> Path:
    path = tmp_path / "in" / "scan.npz"
    write_scan(path, scan)
    return path


def changed(path: Path, **changes: object) -> Path:
    """A copy of an NPZ with some keys changed, or removed if None."""
    with np.load(path) as file:
        arrays = {key: file[key] for key in file}
    for key, value in changes.items():
        arrays.pop(key)
        if value is not None:
            arrays[key] = value(path) if callable(value) else value
    bad = path.with_name("bad.npz")
    np.savez(bad, **arrays)
    return bad


def with_value(key: str, value: float):
    def change(path: Path) -> np.ndarray:
        with np.load(path) as file:
            array = file[key].copy()
        array[(3,) + (0,) * (array.ndim - 1)] = value
        return array

    return change


BAD_SCANS = {
    "NaN": ({"diffraction": with_value("diffraction", np.nan)}, r"diffraction\[3\] holds NaN"),
    "negative": ({"diffraction": with_value("diffraction", -1)}, r"diffraction\[3\] holds -1"),
    "shape": ({"diffraction": np.ones((64, 16, 8), np.float32)}, r"\(64, 16, 8\)"),
    "positions missing": ({"positions": None}, "positions"),
    "positions count": ({"positions": np.ones((5, 2))}, r"\(5, 2\)"),
    "position NaN": ({"positions": with_value("positions", np.nan)}, r"positions\[3\]"),
    "position outside": (
        {"positions": with_value("positions", 1e9)},
        r"positions\[3\] is 1e\+09 pixels away",
    ),
    "probe size": ({"probe": np.ones((1, 8, 8), np.complex64)}, r"probe has shape \(1, 8, 8\)"),
    "empty": ({"diffraction": np.ones((0, 16, 16), np.float32), "positions": np.ones((0, 2))}, "empty"),
}


@pytest.mark.parametrize("case", BAD_SCANS)
def test_a_bad_scan_is_refused(run, scan_file, tmp_path, artifact, scan, case):
    changes, message = BAD_SCANS[case]
    bad = changed(scan_file, **changes)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run("reconstruct", artifact, bad, "--out", tmp_path / "out" / "object.h5")
    assert_refused(code, out, err, message)
    assert sorted(tmp_path.rglob("*")) == before
    code, out, err = run("evaluate", artifact, "--scan", bad, "--out", tmp_path / "report")
    assert_refused(code, out, err, message)
    assert sorted(tmp_path.rglob("*")) == before


def assert_refused(code: int, out: str, err: str, message: str, expected_code: int = 2) -> None:
    lines = [line for line in err.splitlines() if line.startswith("Error:")]
    assert code == expected_code, err
    assert out == ""
    assert len(lines) == 1
    assert "Traceback" not in err
    assert re.search(message, lines[0]), lines[0]


def test_bad_scans_do_not_train(run, scan_file, tmp_path):
    bad = changed(scan_file, diffraction=with_value("diffraction", np.nan))
    code, out, err = run("train", "fno", "--data", bad, "--out", tmp_path / "run")
    assert_refused(code, out, err, "holds NaN")
    code, out, err = run("train", "resnet", "--data", scan_file, "--out", tmp_path / "run")
    assert_refused(
        code, out, err, "architecture 'resnet' is unknown, expected one of cnn, baseline, fno, hybrid"
    )
    code, out, err = run("train", "fno", "--data", scan_file, "--out", tmp_path / "run", "--epochs", "0")
    assert_refused(code, out, err, "--epochs 0: expected a value greater than or equal to 1")
    code, out, err = run("train", "fno", "--data", tmp_path / "no.npz", "--out", tmp_path / "run")
    assert_refused(code, out, err, "no.npz: no such file")
    code, out, err = run("train", "fno")
    assert_refused(code, out, err, "expected ARCHITECTURE --data SCAN --out RUN")
    assert not (tmp_path / "run").exists()


def test_bad_artifacts_are_refused(run, artifact, scan, scan_file, tmp_path):
    truncated, text, bare = (tmp_path / f"{name}.onnx" for name in ("truncated", "text", "bare"))
    truncated.write_bytes(artifact.read_bytes()[: artifact.stat().st_size // 2])
    text.write_text("not a model at all")
    model = onnx.load(artifact)
    del model.metadata_props[:]
    onnx.save(model, bare)
    for path, message in (
        (truncated, "not a readable ONNX model"),
        (text, "not a readable ONNX model"),
        (bare, "no ptychonnx.contract in its metadata"),
        (tmp_path / "none.onnx", "no such file"),
    ):
        assert_refused(*run("inspect", path), message)
        assert_refused(*run("evaluate", path, "--scan", scan_file, "--out", tmp_path / "report"), message)
        assert_refused(*run("reconstruct", path, scan_file, "--out", tmp_path / "object.h5"), message)
    assert not (tmp_path / "report").exists()
    assert not (tmp_path / "object.h5").exists()


def test_a_provider_that_is_not_there_is_refused(run, artifact, scan):
    if "cuda" in available():
        pytest.skip("this machine has a CUDA device")
    assert_refused(*run("inspect", artifact, "--provider", "cuda"), "no device on this machine", 3)


def test_exporting_something_else_is_refused(run, tmp_path):
    (tmp_path / "folder").mkdir()
    code, out, err = run("export", tmp_path / "folder", "--out", tmp_path / "m.onnx")
    assert_refused(code, out, err, "no config.json inside")
    assert not (tmp_path / "m.onnx").exists()


def test_a_report_cannot_take_the_place_of_a_file(run, artifact, scan, scan_file, tmp_path):
    (tmp_path / "taken").write_text("mine")
    code, out, err = run("evaluate", artifact, "--scan", scan_file, "--out", tmp_path / "taken")
    assert_refused(code, out, err, "taken: is a file")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_foreign_network_is_adopted_and_inspected(run, tmp_path):
    make = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["phase"])],
        "theirs",
        [make("x", TensorProto.FLOAT, ["n", 1, 16, 16])],
        [make("phase", TensorProto.FLOAT, ["n", 1, 16, 16])],
    )
    theirs = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.save(theirs, tmp_path / "theirs.onnx")
    yaml = "label: theirs\nn: 16\nflux: 100\norigin: a colleague\noutput: {channels: [phase]}\n"
    (tmp_path / "theirs.yaml").write_text(yaml)
    out = tmp_path / "ours.onnx"
    arguments = ["adopt", tmp_path / "theirs.onnx", "--contract", tmp_path / "theirs.yaml", "--out", out]
    code, text, err = run(*arguments)
    assert code == 0, err
    assert "against the foreign network run by itself" in text
    code, text, _ = run("inspect", out)
    assert code == 0
    assert "a colleague" in text
    assert run("inspect", "--verify", out)[0] == 0
    (tmp_path / "theirs.yaml").write_text(yaml.replace("n: 16", "n: [16"))
    assert_refused(*run(*arguments), "theirs.yaml: line 3: expected ',' or ']'")


def test_reconstruct_gives_the_known_object_back(run, artifact, scan, scan_file, tmp_path):
    out = tmp_path / "object.h5"
    code, text, err = run(
        "reconstruct", artifact, scan_file, "--out", out, "--picture", tmp_path / "object.png"
    )
    assert code == 0, err
    assert "ms per pattern" in text
    with h5py.File(out) as file:
        found, origin = file["object"][()], file["origin_px"][()]
        covered = file["weight"][()] > 1e-3
    shift = np.rint(origin - np.array(scan.reference.origin)).astype(int)
    known = scan.reference.object[shift[0] :, shift[1] :][: found.shape[0], : found.shape[1]]
    found, covered = found[: known.shape[0], : known.shape[1]], covered[: known.shape[0], : known.shape[1]]
    assert np.abs(found - known)[covered].max() < 1e-4
    assert (tmp_path / "object.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_writes_the_report_and_prints_the_table(run, artifact, scan, scan_file, tmp_path):
    code, text, err = run(
        "evaluate", artifact, "--scan", scan_file, "--out", tmp_path / "report", "--ptychopinn"
    )
    assert code == 0, err
    assert "pinn_fno" in text
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["rows"]["pinn_fno"]["amplitude"]["pearson"] > 0.999
    assert "ptychonnx evaluate" in (tmp_path / "report" / "report.html").read_text()


def test_inspect_prints_the_contract_and_where_operators_run(run, artifact, scan):
    code, text, _ = run("inspect", "--json", artifact)
    assert code == 0
    assert Contract.from_json(text, "inspect").label == "pinn_fno"
    assert json.loads(text)["parity"]["max_relative_error"] < 1e-4
    code, text, _ = run("inspect", artifact)
    assert code == 0
    assert "CPUExecutionProvider" in text


def test_the_published_schema_is_the_one_in_force(run):
    code, text, _ = run("inspect", "--schema")
    assert code == 0
    published = Path(__file__).parents[2] / "docs" / "reference" / "contract.schema.json"
    assert json.loads(text) == json.loads(published.read_text())


def test_simulate_writes_a_dataset_that_it_finds_again(run, tmp_path):
    options = (
        "simulate",
        "lines",
        "--n",
        32,
        "--train-grid",
        3,
        "--test-grid",
        2,
        "--out",
        tmp_path / "lines",
    )
    code, text, _ = run(*options)
    assert code == 0
    assert "simulated" in text
    assert len(read_scan(tmp_path / "lines" / "train.npz")) == 9
    assert "taken from the cache" in run(*options)[1]
    assert_refused(
        *run("simulate", "lines", "--n", 2, "--out", tmp_path / "x"),
        "--n 2: expected a value greater than or equal to 16",
    )


def test_train_lists_the_architectures(run):
    code, text, _ = run("train", "--list")
    assert code == 0
    assert all(name in text for name in ("pinn_cnn", "pinn_fno", "pinn_hybrid", "baseline"))


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("simulate", "lines"),
        ("train",),
        ("export",),
        ("export-module",),
        ("adopt",),
        ("inspect",),
        ("reconstruct",),
        ("evaluate",),
        ("study", "lines"),
    ],
)
def test_every_command_has_help_with_an_example(run, command):
    code, text, _ = run(*command, "--help")
    assert code == 0
    assert not command or "Example" in text
