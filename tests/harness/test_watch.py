"""A watched folder: scans are taken when they are complete, once, and again when they change."""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest

from ptychonnx.harness.campaign import watch
from ptychonnx.harness.campaign.watch import complete_scans
from ptychonnx.runtime.formats.readers.native import write_scan

WRITER = (
    "import sys, h5py\n"
    "with h5py.File(sys.argv[1], 'w') as file:\n"
    "    file['x'] = 1\n"
    "    file.flush()\n"
    "    print('open', flush=True)\n"
    "    sys.stdin.read()\n"
)


def names(scans):
    return [path.name for path in scans]


def test_a_scan_is_taken_when_its_file_is_complete_and_again_when_it_changes(tmp_path, lines_scan, caplog):
    folder, whole = tmp_path / "night", tmp_path / "whole.npz"
    folder.mkdir()
    write_scan(whole, lines_scan)
    content = whole.read_bytes()
    polls = complete_scans(folder, 0)
    assert next(polls) == []
    (folder / "a.npz").write_bytes(content)
    (folder / "log.txt").write_text("not a scan")
    assert [names(next(polls)) for _ in range(3)] == [[], ["a.npz"], []]
    (folder / "b.npz").write_bytes(content[:5000])
    assert [names(next(polls)) for _ in range(3)] == [[], [], []]
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder / 'b.npz'}: does not open, and is taken when it does"
    ]
    (folder / "b.npz").write_bytes(content)
    os.utime(folder / "a.npz", ns=(1, 1))
    assert [names(next(polls)) for _ in range(3)] == [[], ["a.npz", "b.npz"], []]


def test_an_hdf5_file_is_not_complete_while_it_is_written(tmp_path):
    folder = tmp_path / "night"
    folder.mkdir()
    polls = complete_scans(folder, 0)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, folder / "a.h5"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout.readline() == b"open\n"
        assert [names(next(polls)) for _ in range(3)] == [[], [], []]
        writer.stdin.close()
        writer.wait()
    assert names(next(polls)) + names(next(polls)) == ["a.h5"]
    with h5py.File(folder / "a.h5") as file:
        assert file["x"][()] == 1


@pytest.mark.parametrize("command", ["reconstruct", "evaluate"])
def test_a_command_takes_what_appears_until_it_is_interrupted(
    run, four_artifacts, lines_scan, tmp_path, monkeypatch, command
):
    folder, out = tmp_path / "night", tmp_path / "out"
    folder.mkdir()
    write_scan(folder / "first.npz", lines_scan)
    (folder / "corrupt.npz").write_bytes(zipped_nothing())
    looks = itertools.count(1)

    def results() -> dict[str, dict]:
        lines = (out / "manifest.jsonl").read_text().splitlines() if out.exists() else []
        return {Path(record["scan"]).stem: record for record in map(json.loads, lines)}

    def between_two_looks(_: float) -> None:
        # A file is taken when it has been the same at two looks.
        match next(looks) % 5:
            case 2:
                assert {"first", "corrupt"} <= set(results())
                if not (folder / "second.npz").exists():
                    write_scan(folder / "second.npz", lines_scan)
            case 0:
                raise KeyboardInterrupt

    monkeypatch.setattr(watch, "time", SimpleNamespace(sleep=between_two_looks))
    scans = [folder] if command == "reconstruct" else ["--scans", folder]

    def watched() -> tuple[int, str, str]:
        return run(command, four_artifacts[0], *scans, "--out", out, "--watch")

    code, said, error = watched()
    assert code == 1
    assert "1 of 3 scans failed" in error
    assert "Watching " in said
    # The network of this artifact multiplies the object by a factor.
    assert "first.npz: wrong" in said
    assert said.count("first.npz") == 2  # and in the table at the end
    done = results()
    assert done["first"]["misfit"] == done["second"]["misfit"]
    # What is done is not done again, and what has changed is.
    write_scan(folder / "second.npz", lines_scan.subset(slice(40)))
    code, said, _ = watched()
    assert code == 1
    assert "first.npz: done before, wrong" in said
    again = results()
    assert again["first"] == done["first"]
    assert (again["second"]["patterns"], done["second"]["patterns"]) == (40, len(lines_scan))


def zipped_nothing() -> bytes:
    with io.BytesIO() as file:
        zipfile.ZipFile(file, "w").close()
        return file.getvalue()


def test_what_is_no_folder_is_not_watched(run, four_artifacts, lines_scan, tmp_path):
    write_scan(tmp_path / "scan.npz", lines_scan)
    objects = tmp_path / "objects"
    code, _, error = run("reconstruct", four_artifacts[0], tmp_path / "scan.npz", "--out", objects, "--watch")
    assert code == 2
    assert "expected a folder of scans and one for their objects" in error
    code, _, error = run("reconstruct", four_artifacts[0], tmp_path, "--out", objects)
    assert code == 2
    assert f"{tmp_path}: is a folder, expected scans such as {tmp_path / '*.h5'}, or --watch" in error
    code, _, error = run("evaluate", four_artifacts[0], "--scans", tmp_path, "--out", objects)
    assert code == 2
    assert (
        f"--scans {tmp_path}: is a folder, expected scans such as '{tmp_path / '*.h5'}', or --watch" in error
    )
    code, _, error = run(
        "evaluate", four_artifacts[0], "--scans", tmp_path / "*.npz", "--out", objects, "--watch"
    )
    assert code == 2
    assert "expected one folder that exists" in error
    assert not objects.exists()
