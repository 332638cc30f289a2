from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ptychonnx.runtime.atomic import (
    _exchange,
    atomic_folder,
    atomic_path,
    check_output,
    check_updatable,
    claimed_output,
    put_folder,
    updated_folder,
    write_text,
)
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


def test_a_folder_changes_as_one_and_its_other_files_stay(tmp_path):
    out = tmp_path / "report"
    for content in ("old", "new"):
        with updated_folder(out) as folder:
            for name in ("a.txt", "b.txt"):
                (folder / name).unlink(missing_ok=True)
                (folder / name).write_text(content)
        if content == "old":
            (out / "notes.txt").write_text("mine")
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "a.txt": "new",
        "b.txt": "new",
        "notes.txt": "mine",
    }

    def write_half_of_it():
        with updated_folder(out) as folder:
            (folder / "a.txt").unlink()
            (folder / "a.txt").write_text("newer")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half_of_it()
    assert (out / "a.txt").read_text() == "new"
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_that_cannot_change_as_one_is_refused(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="holds the folder data"):
        check_updatable(tmp_path)
    monkeypatch.chdir(tmp_path / "data")
    for place in (".", tmp_path / "data", ".."):
        with pytest.raises(InputError, match="is in use as a folder to work in"):
            check_updatable(Path(place))
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        check_updatable(tmp_path / "file")
    check_updatable(tmp_path / "new")


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is a call of Linux")
def test_folders_are_exchanged_in_one_step(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    assert _exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "b").read_text() == "b"
    assert (tmp_path / "b" / "a").read_text() == "a"
    assert not _exchange(tmp_path / "a", tmp_path / "missing")


def test_a_full_disk_is_a_failure_of_the_machine(tmp_path, monkeypatch):
    def fail(self: Path, **arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ptychonnx.runtime.atomic.Path.mkdir", fail)
    with pytest.raises(EnvironmentFailure, match=r"o\.txt: cannot be written \(No space left on device\)"):
        write_text(tmp_path / "o.txt", "text")


def in_a_process(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


KILLED = """
import os, signal, sys
from pathlib import Path
from ptychonnx.runtime import atomic
from ptychonnx.runtime.atomic import atomic_path, atomic_folder
if sys.argv[2] == "file":
    with atomic_path(sys.argv[1]) as partial:
        partial.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
else:
    replace = Path.replace
    def replace_one(self, target):
        replace(self, target)
        os.kill(os.getpid(), signal.SIGKILL)
    Path.replace = replace_one
    atomic._exchange = lambda first, second: False
    with atomic_folder(sys.argv[1], "config.json") as partial:
        (partial / "config.json").write_text("new")
"""


def test_the_remains_of_a_killed_process_are_removed_by_the_next(tmp_path):
    path = tmp_path / "object.h5"
    path.write_text("old")
    assert in_a_process(KILLED, path, "file").returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_whose_replacement_was_killed_halfway_comes_back(tmp_path, earlier_run):
    assert in_a_process(KILLED, earlier_run, "folder").returncode == -signal.SIGKILL
    assert not earlier_run.exists()
    with pytest.raises(KeyboardInterrupt), atomic_folder(earlier_run, "config.json"):
        raise KeyboardInterrupt
    assert (earlier_run / "config.json").read_text() == "old"
    assert list(tmp_path.iterdir()) == [earlier_run]


def test_a_second_writer_of_the_same_output_is_refused(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_path(path) as partial:
        partial.write_text("first")
        child = in_a_process(
            "import sys; from ptychonnx.runtime.atomic import write_text; write_text(sys.argv[1], 'second')",
            path,
        )
        assert f"{path}: another process is writing it" in child.stderr
        for write in (lambda: write_text(path, "third"), lambda: check_output(path)):
            with pytest.raises(InputError, match="another process is writing it"):
                write()
        write_text(tmp_path / "b.txt", "another output")
    assert path.read_text() == "first"
    write_text(path, "later")
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "b.txt"]


def test_a_claimed_output_belongs_to_one_process_between_writes_too(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    second = "import sys; from ptychonnx.runtime.atomic import write_text; write_text(sys.argv[1], 'second')"
    with claimed_output(path):
        check_output(path)
        for text in ("first", "again"):
            write_text(path, text)
            assert f"{path}: another process is writing it" in in_a_process(second, path).stderr
            with pytest.raises(InputError, match="another process"), claimed_output(path):
                pass
        with atomic_path(path) as partial:
            partial.write_text("last")
            with pytest.raises(InputError, match="another process"):
                write_text(path, "third")
        assert path.read_text() == "last"
    assert list(path.parent.iterdir()) == [path]
    write_text(path, "later")


def test_a_claim_of_which_nothing_came_leaves_no_folders(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(KeyboardInterrupt), claimed_output(tmp_path / "there" / "deep" / "er" / "a.txt"):
        raise KeyboardInterrupt
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from ptychonnx.runtime.atomic import atomic_path, write_text
from ptychonnx.runtime.errors import EnvironmentFailure
from ptychonnx.runtime.formats.readers.native import write_scan
from ptychonnx.runtime.formats.writers.reconstruction_file import Product, write_product
from ptychonnx.runtime.reconstruction.stitching import Stitched
from ptychonnx.runtime.scan import Scan
rng, folder = np.random.default_rng(0), Path(sys.argv[1])
probe = (rng.random((1, 32, 32)) + 1j).astype(np.complex64)
patterns, positions = rng.random((25, 32, 32), dtype=np.float32), rng.uniform(0, 80, (25, 2))
scan = Scan(patterns, positions, probe, pixel_size=1e-8, wavelength=1e-10, name="s")
image = (rng.random((150, 150)) + 1j).astype(np.complex64)
product = Product(Stitched(image, rng.random((150, 150)), (0.0, 0.0)), scan, "uniform", "{}" * 2000)
def save(path):
    with atomic_path(path) as partial:
        np.save(partial, image)
writers = {
    "a.txt": lambda path: write_text(path, "x" * 10**6),
    "s.npz": lambda path: write_scan(path, scan),
    "o.npy": save,
} | {name: lambda path: write_product(path, product) for name in ("o.npz", "o.tif", "o.h5", "o.cxi")}
sys.dont_write_bytecode = True  # compiled modules would be cut short too
for name, write in writers.items():
    for limit in (0, 3000, 20_000, 60_000):
        path = folder / name
        path.write_text("old")
        # No file may grow beyond the limit, which fails like a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            write(path)
            print("written", name, limit)
        except EnvironmentFailure as error:
            assert str(error).startswith(f"{folder}/") and "cannot be written (" in str(error), error
            assert len(str(error).splitlines()) == 1, error
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert path.read_text() == "old", (name, limit)
        assert list(folder.iterdir()) == [path], (name, limit)
        path.unlink()
print("done", len(writers))
"""


def test_a_full_disk_is_one_line_and_the_old_file_stays_and_hdf5_does_not_crash_at_exit(tmp_path):
    child = in_a_process(FULL, tmp_path)
    assert child.returncode == 0, child.stderr[-500:]
    assert child.stdout == "done 7\n"


def test_an_output_is_tried_before_any_work(tmp_path, monkeypatch):
    check_output(tmp_path / "new" / "deep" / "o.h5", 1000)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        check_output(tmp_path / "file" / "o.h5")
    with pytest.raises(EnvironmentFailure, match=r"needs 1e\+12 MB, and .* MB free"):
        check_output(tmp_path / "o.h5", 10**18)


def test_a_name_that_is_no_utf8_is_written_with_its_number(tmp_path):
    write_text(tmp_path / "x.csv", "\udc80.npz")
    assert (tmp_path / "x.csv").read_text() == "\\udc80.npz"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize("place", ["pipe", "/dev/null", "/dev/stdout"])
def test_devices_and_pipes_are_never_replaced(tmp_path, place):
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / place
    for write in (check_output, lambda path: write_text(path, "new")):
        with pytest.raises(InputError, match="is a device or a pipe, expected the name of a file"):
            write(path)
    assert not path.is_file() or path.parent == Path("/dev")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["pipe"]


@pytest.mark.parametrize("name", ["x" * 246 + ".npz", "é" * 124 + ".h5"])
def test_the_longest_name_can_be_written(tmp_path, name):
    check_output(tmp_path / name)
    write_text(tmp_path / name, "new")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [(name, "new")]
    with pytest.raises(InputError, match="cannot be written"):
        check_output(tmp_path / f"another {name}")


def test_a_folder_that_takes_the_place_of_another_leaves_nothing_under_its_old_name(tmp_path):
    run, unfinished = tmp_path / "run", tmp_path / "run.unfinished"
    for folder, text in ((run, "old"), (unfinished, "new")):
        folder.mkdir()
        (folder / "config.json").write_text(text)
    put_folder(unfinished, run)
    assert (run / "config.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
