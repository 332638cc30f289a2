"""Many scans in one command: each to its own file, what is done is skipped, and what fails stops nothing."""

from __future__ import annotations

import json
import os

import h5py
import numpy as np
import pytest

import ptychonnx
from ptychonnx.harness.reconstruction import scan_run
from ptychonnx.runtime.formats.readers.native import write_scan

NAMES = ("one", "two", "three")


@pytest.fixture
def night(tmp_path, lines_scan):
    """Three scans, of different rows of the same object."""
    folder = tmp_path / "night"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        write_scan(folder / f"{name}.npz", lines_scan.subset(slice(8 * number, 8 * number + 40)))
    return [folder / f"{name}.npz" for name in NAMES]


@pytest.fixture
def opened(monkeypatch):
    """Sessions that were opened."""
    sessions = []

    class Counted(scan_run.Session):
        def __init__(self, *arguments):
            sessions.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr(scan_run, "Session", Counted)
    return sessions


def records(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def object_of(path):
    with h5py.File(path) as file:
        return file["object"][()]


def test_each_scan_is_reconstructed_to_its_own_file(run, four_artifacts, night, tmp_path, opened):
    objects = tmp_path / "objects"
    code, out, error = run("reconstruct", four_artifacts[0], *night, "--out", objects)
    assert code == 0, error
    assert len(opened) == 1
    for path in night:
        single = ptychonnx.reconstruct(four_artifacts[0], path)
        np.testing.assert_array_equal(object_of(objects / f"{path.stem}.h5"), single.object)
    for name, record in zip(NAMES, records(objects), strict=True):
        assert record["result"] == f"{name}.h5"
        assert record["error"] is None
        assert record["patterns"] == 40
        assert record["shape"] == [45 - 12, 45]
        assert record["state"]["bytes"] == (tmp_path / "night" / f"{name}.npz").stat().st_size
        assert f"{name}.npz" in out
        assert f"{record['misfit']:.3f}" in out


def test_a_corrupt_scan_stops_nothing_and_is_done_again(run, four_artifacts, night, tmp_path, lines_scan):
    objects, whole = tmp_path / "objects", night[1].read_bytes()
    night[1].write_bytes(whole[: len(whole) // 2])
    missing = tmp_path / "night" / "missing.npz"
    arguments = ["reconstruct", four_artifacts[0], *night, missing, "--out", objects]
    code, out, error = run(*arguments)
    assert code == 1
    assert "2 of 4 scans failed, the others are in" in error
    assert "two.npz" in out
    assert out.count("failed: ") == 2
    assert sorted(path.name for path in objects.glob("*.h5")) == ["one.h5", "three.h5"]
    assert [record["error"] is None for record in records(objects)] == [True, False, True, False]

    night[1].write_bytes(whole)
    write_scan(missing, lines_scan)
    code, out, error = run(*arguments)
    assert code == 0, error
    assert out.count("done before") == 2
    assert [record["result"] for record in records(objects)[4:]] == ["two.h5", "missing.h5"]


def test_what_is_done_is_skipped_and_what_changed_is_not(run, four_artifacts, night, tmp_path, lines_scan):
    objects = tmp_path / "objects"

    def redone(*more, model=four_artifacts[0]):
        before = len(records(objects)) if objects.is_dir() else 0
        code, _, error = run("reconstruct", model, *night, "--out", objects, *more)
        assert code == 0, error
        return [record["result"].removesuffix(".h5") for record in records(objects)[before:]]

    assert redone() == list(NAMES)
    assert redone() == []
    os.utime(night[0], ns=(1, 1))  # only the time differs
    assert redone() == []
    write_scan(night[0], lines_scan)
    (objects / "three.h5").unlink()
    assert redone() == ["one", "three"]
    assert redone("--weighting", "uniform") == list(NAMES)
    assert redone("--weighting", "uniform", model=four_artifacts[1]) == list(NAMES)
    assert redone("--weighting", "uniform", model=four_artifacts[1]) == []


def test_a_line_of_the_manifest_that_was_cut_short_costs_one_scan(run, four_artifacts, night, tmp_path):
    objects = tmp_path / "objects"
    arguments = ["reconstruct", four_artifacts[0], *night, "--out", objects]
    assert run(*arguments)[0] == 0
    manifest = objects / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    code, out, error = run(*arguments)
    assert code == 0
    assert "line 3 is damaged and was skipped" in error
    assert out.count("done before") == 2
    code, out, _ = run(*arguments)
    assert (code, out.count("done before")) == (0, 3)


def test_a_strict_command_writes_no_object_of_an_unknown_scan(run, four_artifacts, night, tmp_path):
    # The blank network explains none of the patterns.
    code, out, _ = run("reconstruct", four_artifacts[3], *night, "--out", tmp_path / "objects", "--strict")
    assert code == 1
    assert out.count("failed: --strict: ") == 3
    assert not list((tmp_path / "objects").glob("*.h5"))


def test_names_that_collide_are_refused_before_any_work(run, four_artifacts, night, tmp_path, lines_scan):
    other = tmp_path / "other"
    other.mkdir()
    write_scan(other / "one.npz", lines_scan)
    objects = tmp_path / "objects"
    code, _, error = run("reconstruct", four_artifacts[0], *night, other / "one.npz", "--out", objects)
    assert code == 2
    assert "one.h5, expected names that differ" in error
    assert not list(objects.glob("*"))
    assert run("reconstruct", four_artifacts[0], *night, "--out", objects)[0] == 0
    code, _, error = run("reconstruct", four_artifacts[0], other / "one.npz", "--out", objects)
    assert code == 2
    assert f"is the object of {night[0]}, expected another folder" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "o.h5"], "o.h5: is a file, expected a folder for the objects of 3 scans"),
        (["--out", "objects", "--picture", "p.png"], "--picture: is for one scan"),
        (["--out", "objects", "--shard", "1/2"], "--shard: is for one scan"),
    ],
)
def test_what_is_for_one_scan_is_refused(run, four_artifacts, night, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    code, _, error = run("reconstruct", four_artifacts[0], *night, *options)
    assert code == 2
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["night"]
