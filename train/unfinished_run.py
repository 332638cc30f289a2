"""The folder of an unfinished run, ``<run>.unfinished``, which becomes the run folder when training is complete.

A kill leaves it in place, and `--resume` continues from it. An earlier run of the same name stays until then.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ptychonnx.runtime.atomic import check_output, check_replaceable, is_open, put_folder
from ptychonnx.runtime.errors import EnvironmentFailure, InputError
from ptychonnx.train.checkpoints import Checkpoints
from ptychonnx.train.run import CONFIG_NAME, RunRecord, read_run
from ptychonnx.train.training_plan import PLAN_NAME, TrainingPlan, plan_of, read_plan, write_plan

__all__ = ["finished_already", "open_unfinished", "publish_run", "unfinished_folder"]


def unfinished_folder(out: Path) -> Path:
    """Folder of the run `out` during training."""
    return out.with_name(f"{out.name}.unfinished")


def finished_already(out: Path, plan: TrainingPlan) -> RunRecord | None:
    """The record of a run that `--resume` finds complete; None if there is something to train.

    Raises InputError if the run was trained with another plan.
    """
    folder = unfinished_folder(out)
    if (folder / CONFIG_NAME).is_file():
        # Killed between its last two steps.
        _require_same(folder, plan_of(read_run(folder)), plan)
        publish_run(folder, out)
    elif folder.is_dir() or not (out / CONFIG_NAME).is_file():
        return None
    record = read_run(out)
    _require_same(out, plan_of(record), plan)
    return record


@contextmanager
def open_unfinished(out: Path, plan: TrainingPlan, *, resume: bool) -> Iterator[Path]:
    """Yield the folder to train in, a new one or that of an interrupted training with the same plan, locked.

    The system unlocks it if this process is killed.

    Raises InputError if `out` exists and is not a run; if another process is training in the folder; if there is an
    interrupted training and `resume` is false; or if it has another plan. Raises EnvironmentFailure if the folder
    cannot be written.
    """
    check_output(out)
    check_replaceable(out, CONFIG_NAME)
    folder = unfinished_folder(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected a folder or nothing")
    with _locked(folder):
        if not (resume and (folder / PLAN_NAME).is_file()):
            _begin(folder, plan)
        else:
            _require_same(folder, read_plan(folder), plan)
        yield folder


def _begin(folder: Path, plan: TrainingPlan) -> None:
    """Empty the folder of what a training without an epoch left, and write the plan."""
    if any(folder.glob("epochs/[0-9]*")):
        raise InputError(
            f"{folder}: holds an interrupted training; --resume continues it, removing the folder discards it"
        )
    if any(folder.iterdir()) and not (folder / PLAN_NAME).is_file():
        raise InputError(f"{folder}: holds files but no {PLAN_NAME}, so it is not replaced")
    try:
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        write_plan(folder, plan)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise EnvironmentFailure(f"{folder}: cannot be written ({error.strerror})") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Create a folder if need be, and prevent other processes from training in it."""
    try:
        handle = _lock(folder)
    except OSError as error:
        raise EnvironmentFailure(f"{folder}: cannot be written ({error.strerror})") from error
    try:
        yield
    finally:
        os.close(handle)


def _lock(folder: Path) -> int:
    """The descriptor of a locked folder of this name, which is created if need be."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # a process that has just finished may rename or remove it
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(handle)
                raise InputError(f"{folder}: another process is training there") from error
            if is_open(folder, handle):
                return handle
            os.close(handle)


def publish_run(folder: Path, out: Path) -> None:
    """Give the folder of a complete run its final name."""
    (folder / PLAN_NAME).unlink(missing_ok=True)
    Checkpoints(folder, read_run(folder).training).remove()
    put_folder(folder, out)


def _require_same(folder: Path, there: TrainingPlan, asked: TrainingPlan) -> None:
    different = next(there.differences(asked), None)
    if different is not None:
        raise InputError(f"{folder}: cannot be resumed with other settings: it was started with {different}")
