"""Writing files so that an interrupted command leaves the old file or the new one, never half of one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptychonnx.runtime.errors import EnvironmentFailure, InputError, PtychonnxError

__all__ = ["atomic_folder", "atomic_path", "check_replaceable", "put_folder", "write_text"]


# What is wrong with the path itself; other errors are of the machine.
_ERRORS_OF_PATHS = (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError)


def _unwritable(path: Path, error: OSError) -> PtychonnxError:
    kind = InputError if isinstance(error, _ERRORS_OF_PATHS) else EnvironmentFailure
    return kind(f"{path}: cannot be written ({error.strerror})")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` on success, remove it on any error.

    The temporary name ends like `path` does, since some writers choose the format by the ending.

    Raises
    ------
    InputError
        If the parent cannot be a folder, or `path` is one.
    EnvironmentFailure
        If the disk is full, read-only or broken.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected the name of a file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        partial = folder / path.name
        yield partial
        partial.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def atomic_folder(path: Path, marker: str) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; put it in the place of `path` on success, remove it on any error.

    A folder that is there already is replaced only if it is one of the same kind, which holds a file `marker`.

    Raises
    ------
    InputError
        If the parent cannot be a folder, or `path` is a file or a folder with something else in it.
    EnvironmentFailure
        If the disk is full, read-only or broken.
    """
    path = Path(path)
    check_replaceable(path, marker)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        partial = holder / "new"
        partial.mkdir()
        yield partial
        put_folder(partial, path)
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def check_replaceable(path: Path, marker: str) -> None:
    """Refuse to replace anything but an empty folder, or one of the same kind, which holds a file `marker`.

    Raises
    ------
    InputError
        If `path` is a file or a folder with something else in it.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, expected the name of a folder to write")
    if path.is_dir() and any(path.iterdir()) and not (path / marker).is_file():
        raise InputError(
            f"{path}: holds files but no {marker}, so it is not replaced; expected a new or empty folder"
        )


def put_folder(partial: Path, path: Path) -> None:
    """Put a complete folder in the place of `path`, on the same file system; what was there is removed."""
    if not path.exists():
        partial.replace(path)
        return
    holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    old = holder / "old"
    try:
        path.replace(old)
        try:
            partial.replace(path)
        except BaseException:
            old.replace(path)
            raise
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path` atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")
