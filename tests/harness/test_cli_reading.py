"""The options that say what a scan file does not say, on the commands that read scans."""

from __future__ import annotations

import re

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ptychonnx.harness.cli.app import all_commands


@pytest.fixture
def plain(tmp_path, lines_scan):
    """An HDF5 file of no known format: DC in the corner, (x, y) in micrometres."""
    path = tmp_path / "plain.h5"
    with h5py.File(path, "w") as file:
        file["counts"] = np.fft.ifftshift(lines_scan.diffraction.astype(np.float64) ** 2, axes=(1, 2))
        file["xy"] = lines_scan.positions[:, ::-1] * lines_scan.pixel_size * 1e6
        file["probe"] = lines_scan.probe
    return path


OPTIONS = (
    *("--map", "patterns=counts", "--map", "positions=xy", "--map", "probe=probe"),
    *("--positions-unit", "um", "--positions-axes", "column,row", "--pixel-size", "1e-8"),
)


def test_a_mapped_file_is_reconstructed_and_understood_aloud(run, oracle, lines_scan, plain, tmp_path):
    artifact = oracle(tmp_path / "m.onnx", lines_scan, "pinn_fno")
    code, out, err = run("reconstruct", artifact, plain, "--out", tmp_path / "o.npz", *OPTIONS)
    assert code == 0, err
    assert "dc: corner (the mean pattern is centred at [0, 0])" in err
    assert "axes: column,row (given)" in err
    assert "unit: um (given)" in err
    assert "o.npz: " in out
    with np.load(tmp_path / "o.npz") as file:
        found, covered = file["object"], file["weight"] > 1e-3
        corner = np.rint(file["positions"].min(axis=0) - lines_scan.positions.min(axis=0) - file["origin"])
    corner = (-corner - np.array(lines_scan.reference.origin)).astype(int)
    rows, columns = found.shape
    known = lines_scan.reference.object[corner[0] :, corner[1] :][:rows, :columns]
    covered = covered[: known.shape[0], : known.shape[1]]
    assert np.abs(found[: known.shape[0], : known.shape[1]] - known)[covered].max() < 1e-3


def test_a_tiff_pair_is_named(run, oracle, lines_scan, plain, tmp_path):
    artifact = oracle(tmp_path / "m.onnx", lines_scan, "pinn_fno")
    code, out, err = run("reconstruct", artifact, plain, "--out", tmp_path / "o.tif", *OPTIONS)
    assert code == 0, err
    assert "o_amplitude.tif and " in out
    assert {path.name for path in tmp_path.glob("o*")} == {"o_amplitude.tif", "o_phase.tif"}


@pytest.fixture
def theirs(tmp_path, lines_scan):
    """A foreign network, whose phase is the logarithm of the amplitude, and what is said about it."""
    side = lines_scan.size
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "one"], ["shifted"]), helper.make_node("Log", ["shifted"], ["y"])],
        "theirs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1, side, side])],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    path = tmp_path / "theirs.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    said = path.with_suffix(".yaml")
    said.write_text(f"label: theirs\nn: {side}\nflux: {lines_scan.flux}\noutput:\n  channels: [phase]\n")
    return "adopt", path, "--contract", said, "--out", tmp_path / "adopted.onnx"


def test_a_scan_that_may_be_left_out_is_read_likewise(run, plain, theirs):
    code, out, err = run(*theirs, "--scan", plain, *OPTIONS)
    assert code == 0, err
    assert "axes: column,row (given)" in err
    assert "adopted.onnx" in out


def test_saying_how_to_read_no_scan_is_refused(run, theirs, tmp_path):
    for option, command in (
        ("--scan", theirs),
        ("--scan", ("export", tmp_path, "--out", tmp_path / "o.onnx")),
        ("--judge-on", ("bench", tmp_path / "m.onnx")),
    ):
        code, _, err = run(*command, *OPTIONS)
        assert code == 2
        assert err == f"Error: options about reading a scan were given, expected {option} FILE with them\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--map", "patterns"), "--map patterns: expected KEY=PATH"),
        (("--map", "patterns=none", "--map", "positions=xy"), "no dataset none"),
        (("--crop", "1"), "--crop 1: expected a value greater than or equal to 2"),
        (("--rebin", "0"), "--rebin 0: "),
        (("--pixel-size", "nan"), "--pixel-size nan: "),
        ((), "not a known scan file.*or a --map"),
    ],
)
def test_bad_options_get_one_line(run, oracle, lines_scan, plain, tmp_path, options, message):
    artifact = oracle(tmp_path / "m.onnx", lines_scan, "pinn_fno")
    for command in (
        ("reconstruct", artifact, plain, "--out", tmp_path / "o.h5"),
        ("evaluate", artifact, "--scan", plain, "--out", tmp_path / "report"),
        ("train", "fno", "--data", plain, "--out", tmp_path / "run"),
    ):
        code, out, err = run(*command, *options)
        lines = [line for line in err.splitlines() if line.startswith("Error:")]
        assert (code, out, len(lines)) == (2, "", 1), err
        assert re.search(message, lines[0]), lines[0]
    assert not (tmp_path / "run").exists()


def test_the_commands_that_read_scans_share_the_options():
    commands = all_commands().commands
    named = {
        name: {option for parameter in commands[name].params for option in parameter.opts}
        for name in ("reconstruct", "evaluate", "train")
    }
    shared = {
        "--map",
        "--companion",
        "--positions-unit",
        "--positions-axes",
        "--positions-sign",
        "--quantity",
        "--dc",
    }
    shared |= {
        "--orientation",
        "--crop",
        "--crop-centre",
        "--rebin",
        "--bad-pixels",
        "--pixel-size",
        "--wavelength",
    }
    for options in named.values():
        assert shared <= options
