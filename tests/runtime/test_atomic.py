from __future__ import annotations

import errno
import shutil

import pytest

from ptychonnx.runtime.atomic import atomic_folder, atomic_path, write_text
from ptychonnx.runtime.errors import EnvironmentFailure, InputError


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_writer_leaves_the_old_file_and_nothing_else(tmp_path, interruption):
    path = tmp_path / "object.h5"
    path.write_text("old")

    def write_half_of_it():
        with atomic_path(path) as partial:
            partial.write_text("ne")
            raise interruption

    with pytest.raises(interruption):
        write_half_of_it()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_there_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_path(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.suffix == path.suffix
        assert partial.parent.parent == tmp_path  # a rename must not cross file systems
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_gets_its_folders(tmp_path):
    write_text(tmp_path / "deep" / "er" / "a.txt", "Ångström")
    assert (tmp_path / "deep" / "er" / "a.txt").read_bytes() == "Ångström".encode()


def test_a_writer_that_wrote_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_impossible_places_are_refused(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        write_text(tmp_path, "x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "x")


@pytest.fixture
def earlier_run(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("old")
    return run


def test_a_finished_folder_takes_the_place_of_the_earlier_one(tmp_path, earlier_run):
    with atomic_folder(earlier_run, "config.json") as folder:
        (folder / "config.json").write_text("new")
        assert (earlier_run / "config.json").read_text() == "old"
    assert (earlier_run / "config.json").read_text() == "new"
    assert list(tmp_path.iterdir()) == [earlier_run]


def test_an_interrupted_folder_leaves_the_earlier_one(tmp_path, earlier_run):
    with pytest.raises(KeyboardInterrupt), atomic_folder(earlier_run, "config.json"):
        raise KeyboardInterrupt
    assert (earlier_run / "config.json").read_text() == "old"
    assert list(tmp_path.iterdir()) == [earlier_run]


def test_a_folder_that_cannot_be_put_in_place_gives_the_earlier_one_back(tmp_path, earlier_run):
    with pytest.raises(FileNotFoundError), atomic_folder(earlier_run, "config.json") as folder:
        shutil.rmtree(folder)
    assert (earlier_run / "config.json").read_text() == "old"
    assert list(tmp_path.iterdir()) == [earlier_run]


def test_a_full_disk_is_a_failure_of_the_machine(tmp_path, monkeypatch):
    def fail(**arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ptychonnx.runtime.atomic.tempfile.mkdtemp", fail)
    with pytest.raises(EnvironmentFailure, match=r"o\.txt: cannot be written \(No space left on device\)"):
        write_text(tmp_path / "o.txt", "text")
