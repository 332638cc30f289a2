"""The folder of an unfinished run, ``<run>.unfinished``, which becomes the run folder when training is complete.

A kill leaves it in place, and `--resume` continues from it. An earlier run of the same name stays until then.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptychonnx.runtime.atomic import check_output, check_replaceable, clear_folder, locked_folder, put_folder
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

    Raises InputError if `out` exists and is not a run; if another process is training in the folder; if there is an
    interrupted training and `resume` is false; or if it has another plan. Raises EnvironmentFailure if the folder
    cannot be written.
    """
    check_output(out)
    check_replaceable(out, CONFIG_NAME)
    folder = unfinished_folder(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected a folder or nothing")
    with _writable(folder):
        lock = locked_folder(folder, f"{folder}: another process is training there")
    try:
        if not (resume and (folder / PLAN_NAME).is_file()):
            _begin(folder, plan)
        else:
            _require_same(folder, read_plan(folder), plan)
        yield folder
    finally:
        os.close(lock)


def _begin(folder: Path, plan: TrainingPlan) -> None:
    """Empty the folder of what a training without an epoch left, and write the plan."""
    if any(folder.glob("epochs/[0-9]*")):
        raise InputError(
            f"{folder}: holds an interrupted training; --resume continues it, removing the folder discards it"
        )
    if any(folder.iterdir()) and not (folder / PLAN_NAME).is_file():
        raise InputError(f"{folder}: holds files but no {PLAN_NAME}, so it is not replaced")
    with _writable(folder):
        try:
            clear_folder(folder)
            write_plan(folder, plan)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentFailure(f"{folder}: cannot be written ({error.strerror})") from error


def publish_run(folder: Path, out: Path) -> None:
    """Give the folder of a complete run its final name."""
    (folder / PLAN_NAME).unlink(missing_ok=True)
    Checkpoints(folder, read_run(folder).training).remove()
    put_folder(folder, out)


def _require_same(folder: Path, there: TrainingPlan, asked: TrainingPlan) -> None:
    different = next(there.differences(asked), None)
    if different is not None:
        raise InputError(f"{folder}: cannot be resumed with other settings: it was started with {different}")
