"""Folders of numbered versions that a running server reads, changed so that it never reads a partial version.

Everything is first written next to the root, on the same file system, and then renamed. A version or a new model is
one folder and appears complete; existing files are replaced one by one in the order of the plan.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ptychonnx.runtime.atomic import working_folder
from ptychonnx.runtime.errors import InputError

__all__ = ["ModelPlan", "Plan", "apply", "existing_versions"]


@dataclass(frozen=True)
class ModelPlan:
    """Changes in the folder of one model.

    * `version`: number of the new version, whose folder holds `version_files`.
    * `files`: files in the folder of the model, by relative path. For an existing model they are replaced after the new
      version, in this order: the last one makes a server load the version.
    * `remove`: versions that are removed at the end.
    """

    name: str
    version: int
    version_files: Mapping[str, bytes]
    files: Mapping[str, bytes] = field(default_factory=dict)
    remove: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Changes under one root; the `files` of the root come after all models.

    `notes` are lines for the user.
    """

    root: Path
    models: tuple[ModelPlan, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """One line per file that is written and per folder that is removed."""
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
    """Numbers of the versions in the folder of a model, in ascending order.

    Raises InputError if `folder` is a file.
    """
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected the folder of a model")
    names = (entry.name for entry in folder.iterdir() if entry.is_dir())
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and name[0] != "0")


def apply(plan: Plan) -> None:
    """Carry out a plan; any error restores the previous state.

    Raises InputError if the root cannot be written, is the root of a mounted file system, or another process is writing
    to it. Raises EnvironmentFailure if the disk is full, read-only or broken.
    """
    root = Path(plan.root).resolve()
    if root.is_mount():
        raise InputError(
            f"{root}: is the root of a mounted file system, expected a folder inside it, so that versions can be "
            "written next to it and renamed"
        )
    created = not root.exists()
    try:
        # The working folder is next to the root: inside, a server in poll mode would mistake it for a model.
        with working_folder(root) as stage, ExitStack() as undo:
            root.mkdir(exist_ok=True)
            for model in plan.models:
                _place(root, stage, model, undo)
            for name, data in plan.files.items():
                _replace(root / name, data, stage, undo)
            # From here on the new versions are served; removing old ones only frees space.
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
    # A rename to an empty folder would succeed.
    if (folder / number).exists():
        raise InputError(f"{folder / number}: exists already, expected a new version number")
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
    """Write a file unless it has this content already: a server reloads a model whose time stamp changed."""
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
