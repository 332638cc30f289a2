"""Folders of numbered versions that a running server reads, changed so that it never sees half of a version.

Everything is written beside the root first, on the same file system, then renamed: a version or a new model is one
folder and appears whole; files that exist are replaced one by one in the order of the plan.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ptychonnx.runtime.errors import InputError

__all__ = ["ModelPlan", "Plan", "apply", "existing_versions"]


@dataclass(frozen=True)
class ModelPlan:
    """What changes in the folder of one model.

    Attributes
    ----------
    version
        Number of the new version, whose folder holds `version_files`.
    files
        Of the model's folder, by path in it. Those of an existing model are replaced after the version is there,
        the last one last: it is the one that makes a server look.
    remove
        Versions that go at the end.
    """

    name: str
    version: int
    version_files: Mapping[str, bytes]
    files: Mapping[str, bytes] = field(default_factory=dict)
    remove: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What changes under one root; its own `files` come after all models.

    `notes` are lines for the user.
    """

    root: Path
    models: tuple[ModelPlan, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """One line for each file that is written and each folder that is removed."""
        lines = []
        for model in self.models:
            folder = self.root / model.name
            for name, data in model.version_files.items():
                lines.append(_line(folder / str(model.version) / name, data))
            lines += [_line(folder / name, data) for name, data in model.files.items()]
            lines += [f"remove  {folder / str(version)}" for version in model.remove]
        return lines + [_line(self.root / name, data) for name, data in self.files.items()]


def _line(path: Path, data: bytes) -> str:
    verb = "write" if not path.is_file() else "keep" if path.read_bytes() == data else "replace"
    return f"{verb:<8}{path} ({len(data):,} bytes)"


def existing_versions(folder: Path) -> list[int]:
    """Numbers of the versions in the folder of a model, smallest first.

    Raises
    ------
    InputError
        If `folder` is there and is no folder.
    """
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected the folder of a model")
    names = (entry.name for entry in folder.iterdir() if entry.is_dir())
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and name[0] != "0")


def apply(plan: Plan) -> None:
    """Carry a plan out; on any error, what was there before is there again.

    Raises
    ------
    InputError
        If the root cannot be written, is the root of a mounted file system, or another deployment is at work.
    """
    root = Path(plan.root).resolve()
    created = not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root), _staging(root) as stage, ExitStack() as undo:
            for model in plan.models:
                _place(root, stage, model, undo)
            for name, data in plan.files.items():
                _replace(root / name, data, stage, undo)
            # From here on the new versions serve; what is left over from the old ones only takes space.
            undo.pop_all()
            for model in plan.models:
                for version in model.remove:
                    (root / model.name / str(version)).rename(_free(stage))
    except OSError as error:
        where = error.filename2 or error.filename or root
        raise InputError(f"{plan.root}: cannot be written ({error.strerror}: {where})") from error
    finally:
        if created and root.is_dir() and not any(root.iterdir()):
            root.rmdir()


def _place(root: Path, stage: Path, model: ModelPlan, undo: ExitStack) -> None:
    folder = root / model.name
    number = str(model.version)
    if not folder.exists():
        new = _free(stage)
        _write(new / number, model.version_files)
        _write(new, model.files)
        new.rename(folder)
        undo.callback(lambda: folder.rename(_free(stage)))
        return
    new = _free(stage)
    _write(new, model.version_files)
    # A rename onto an empty folder would succeed.
    if (folder / number).exists():
        raise InputError(f"{folder / number}: is there already, expected a free number")
    new.rename(folder / number)
    undo.callback(lambda: (folder / number).rename(_free(stage)))
    for name, data in model.files.items():
        _replace(folder / name, data, stage, undo)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _replace(path: Path, data: bytes, stage: Path, undo: ExitStack) -> None:
    """Write a file unless it is the same already: a server takes a new time stamp for a new model."""
    old = path.read_bytes() if path.is_file() else None
    if old == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _free(stage)
    partial.write_bytes(data)
    partial.replace(path)
    undo.callback(lambda: _restore(path, old, stage))


def _restore(path: Path, old: bytes | None, stage: Path) -> None:
    if old is None:
        path.unlink()
        return
    partial = _free(stage)
    partial.write_bytes(old)
    partial.replace(path)


def _free(stage: Path) -> Path:
    return stage / uuid.uuid4().hex


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """A folder beside the root: in it, a server in poll mode would take it for a model."""
    stage = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        if stage.stat().st_dev != root.stat().st_dev:
            raise InputError(
                f"{root}: is the root of a mounted file system, expected a folder in it, so that a version can be "
                "written beside and renamed into it"
            )
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One deployment at a time, where the system has locks of this kind."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{root}: another deployment is writing there, expected it to end first"
            ) from error
        yield
    finally:
        os.close(handle)
