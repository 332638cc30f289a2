"""Options for large scans and for speed: canvases in tiles, and batches that are found by trials."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.formats.readers.native import write_scan
from ptychonnx.runtime.reconstruction import segment_run


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PTYCHONNX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def scan_file(tmp_path, lines_scan):
    write_scan(tmp_path / "scan.npz", lines_scan)
    return tmp_path / "scan.npz"


@pytest.mark.parametrize("name", ["o.h5", "o.cxi"])
def test_a_canvas_in_tiles_gives_the_same_file(run, four_artifacts, scan_file, tmp_path, name):
    objects = []
    for folder, options in (("memory", []), ("tiles", ["--canvas-memory", "0"])):
        out = tmp_path / folder / name
        code, text, error = run("reconstruct", four_artifacts[0], scan_file, "--out", out, *options)
        assert code == 0, error
        assert "45 x 45 pixels from 64 patterns" in text
        with h5py.File(out) as file:
            objects.append(file["object" if name == "o.h5" else "entry_1/image_2/data"][()])
    np.testing.assert_array_equal(*objects)
    assert np.abs(objects[0]).max() > 0.5


@pytest.mark.parametrize(
    ("out", "more", "named"),
    [
        ("o.npz", [], "o.npz"),
        ("o.tif", [], "o.tif"),
        ("o.h5", ["--picture", "p.png"], "p.png"),
        ("o.h5", ["--refine", "1"], "--refine"),
    ],
)
def test_what_needs_the_whole_object_is_refused_before_any_work(
    run, four_artifacts, scan_file, tmp_path, monkeypatch, out, more, named
):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(
        "reconstruct", four_artifacts[0], scan_file, "--out", out, "--canvas-memory", "0", *more
    )
    assert code == 2
    assert f"{named}: takes the whole object, and its canvas of 45 x 45 pixels is kept in tiles" in error
    assert {path.name for path in tmp_path.iterdir()} == {"scan.npz"}


def test_an_automatic_batch_is_found_once(run, four_artifacts, scan_file, tmp_path, cache):
    arguments = ["reconstruct", four_artifacts[0], scan_file, "--batch", "auto", "--out"]
    code, _, error = run(*arguments, tmp_path / "first.npz")
    assert code == 0, error
    assert "was fastest" in error
    code, _, error = run(*arguments, tmp_path / "second.npz")
    assert code == 0, error
    assert "cached in" in error
    assert run(*arguments[:3], "--out", tmp_path / "third.npz")[0] == 0
    objects = [np.load(tmp_path / f"{name}.npz")["object"] for name in ("first", "second", "third")]
    np.testing.assert_allclose(objects[0], objects[2], atol=1e-6)
    np.testing.assert_allclose(objects[1], objects[2], atol=1e-6)
    assert len(list(cache.rglob("*.json"))) == 1


def test_evaluate_and_loadtest_find_a_batch_for_each_artifact(
    run, four_artifacts, scan_file, tmp_path, cache
):
    code, _, error = run(
        "evaluate", *four_artifacts[:2], "--scan", scan_file, "--out", tmp_path / "report", "--batch", "auto"
    )
    assert code == 0, error
    remembered = {path: json.loads(path.read_text()) for path in cache.rglob("*.json")}
    assert len(remembered) == 2
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["batch"] is None
    for label in ("pinn_cnn", "pinn_fno"):
        assert any("which was fastest in trials" in note for note in metrics["rows"][label]["notes"])
    for number, (path, content) in enumerate(remembered.items()):
        path.write_text(json.dumps(content | {"batch": 3 + number}))
    options = ["--scan", scan_file, "--seconds", "0.02", "--rounds", "1", "--concurrency", "1"]
    code, _, error = run(
        "loadtest", *four_artifacts[:2], *options, "--batch", "auto", "--out", tmp_path / "b.json"
    )
    assert code == 0, error
    points = json.loads((tmp_path / "b.json").read_text())["points"]
    assert sorted(point["batch"] for point in points) == [3, 4]


@pytest.mark.parametrize("text", ["0", "-4", "few", "1.5"])
def test_a_batch_that_is_none_is_refused(run, four_artifacts, scan_file, tmp_path, text):
    code, _, error = run(
        "reconstruct", four_artifacts[0], scan_file, "--out", tmp_path / "o.h5", "--batch", text
    )
    assert code == 2
    assert "neither a number above 0 nor 'auto'" in " ".join(error.replace("│", " ").split())
    assert not (tmp_path / "o.h5").exists()


@pytest.mark.parametrize("command", ["reconstruct", "evaluate", "loadtest"])
def test_a_server_has_no_automatic_batch(run, scan_file, tmp_path, command):
    rest = {
        "reconstruct": [scan_file, "--out", tmp_path / "o.h5"],
        "evaluate": ["--scan", scan_file, "--out", tmp_path / "report"],
        "loadtest": ["--scan", scan_file],
    }[command]
    code, _, error = run(command, "--server", "grpc://127.0.0.1:9/net", *rest, "--batch", "auto")
    assert code == 2
    assert "--batch auto: is for artifacts, expected a number with --server" in error


def test_a_part_names_what_the_network_does_not_know(run, four_artifacts, scan_file, tmp_path):
    scan = read_scan(scan_file)
    other = replace(scan, probe=np.roll(scan.probe, 3, axis=1) * scan.probe.conj() / np.abs(scan.probe).max())
    write_scan(tmp_path / "other.npz", other)
    arguments = ["reconstruct", four_artifacts[0], tmp_path / "other.npz", "--shard", "1/1", "--out"]
    code, _, error = run(*arguments, tmp_path / "part.h5")
    assert code == 0, error
    assert "Warning: probe: that of the scan is not the one that the artifact holds" in " ".join(
        error.split()
    )
    code, _, error = run(*arguments, tmp_path / "strict.h5", "--strict")
    assert code == 2
    assert "--strict: " in error
    assert not (tmp_path / "strict.h5").exists()


def test_parts_are_merged_into_the_object_of_one_command(
    run, four_artifacts, scan_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(segment_run, "_SHORTEST", 16)
    parts = [tmp_path / f"part{number}.h5" for number in (1, 2, 3)]
    for number, part in enumerate(parts, 1):
        code, text, error = run(
            "reconstruct", four_artifacts[0], scan_file, "--shard", f"{number}/3", "--out", part
        )
        assert code == 0, error
        assert f"part {number} of 3" in text
    code, _, error = run("merge", *parts[:2], "--out", tmp_path / "merged.h5")
    assert code == 2
    host, said = platform.node(), " ".join(error.split())
    assert (
        f"part1.h5 (part 1/3, written on {host}): 1 of 4 segments of scan.npz are in none of the 2 parts"
        in said
    )
    assert "in none of the 2 parts: 3; expected part 3/3 too" in said
    assert not (tmp_path / "merged.h5").exists()
    code, text, error = run("merge", *parts[::-1], "--out", tmp_path / "merged.h5")
    assert code == 0, error
    assert "45 x 45 pixels from 64 patterns in 3 parts" in text
    assert run("reconstruct", four_artifacts[0], scan_file, "--out", tmp_path / "whole.h5")[0] == 0
    with h5py.File(tmp_path / "merged.h5") as merged, h5py.File(tmp_path / "whole.h5") as whole:
        np.testing.assert_array_equal(merged["object"][()], whole["object"][()])
    # What is left of a file that is cut short still says which part it was.
    os.truncate(parts[1], 3000)
    code, _, error = run("merge", *parts, "--out", tmp_path / "again.h5")
    assert code == 2
    assert f"part2.h5 (part 2/3, written on {host}): the part is damaged or cut short" in " ".join(
        error.split()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "3/2", "--out", "p.h5"], "--shard 3/2: expected a number and a count"),
        (["--shard", "1/9", "--out", "p.h5"], "has 1 segments, expected at most 1 shards"),
        (["--shard", "1/1", "--out", "p.npz"], "p.npz: is a part of an object"),
        (["--shard", "1/1", "--out", "p.h5", "--picture", "p.png"], "--picture: takes the whole object"),
        (
            ["--shard", "1/1", "--out", "p.h5", "--batch", "auto"],
            "--batch auto: may differ between the parts",
        ),
    ],
)
def test_a_shard_that_cannot_be_made_is_refused(
    run, four_artifacts, scan_file, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    code, _, error = run("reconstruct", four_artifacts[0], scan_file, *options)
    assert code == 2
    assert message in " ".join(error.split())
    assert {path.name for path in tmp_path.iterdir()} == {"scan.npz"}
