"""Atomic outputs: an interrupted command leaves the old file or folder or the new one, never half of one.

Output is written to a hidden working folder `.NAME.writing` next to it and renamed; a folder changes places with the
one before it. The working folder is locked, so that a second process which writes the same output is refused, and the
remains of a killed process are removed by the next one.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ptychonnx.runtime.errors import EnvironmentFailure, InputError
from ptychonnx.runtime.paths import StrPath

try:
    import fcntl
except ImportError:  # Windows: no locks, and remains are always removed
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "atomic_folder",
    "atomic_path",
    "check_not_read",
    "check_output",
    "check_replaceable",
    "check_updatable",
    "claimed_output",
    "clear_folder",
    "is_claimed",
    "locked_folder",
    "put_folder",
    "updated_folder",
    "working_folder",
    "write_text",
]

_DEVICES = Path("/dev")
# Bytes of a name to which `.` and `.writing` can be added.
_LONGEST_NAME = 240
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
# Errors that another path would mend.
_PATH_ERRORS = (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError)
# File that is locked in a working folder.
_LOCK = "lock"
# Arguments of Linux's renameat2.
_HERE, _EXCHANGE = -100, 2
# Working folders that this process has claimed, and that nothing in it is using.
_claimed: set[Path] = set()
# Below this free space, a failure without an error number is taken for a full disk.
_FULL_BYTES = 2**16


@contextmanager
def atomic_path(path: StrPath) -> Iterator[Path]:
    """Yield a temporary path, and rename it to `path` on success; on any error nothing changes.

    The temporary name ends as `path` does, since some writers choose the format by the ending.

    Raises InputError if the parent cannot be a folder, `path` is a folder, or another process is writing it. Raises
    EnvironmentFailure if the disk is full, read-only or broken.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected the name of a file to write")
    with working_folder(path) as folder:
        partial = folder / path.name
        yield partial
        partial.replace(path)


@contextmanager
def atomic_folder(path: StrPath, marker: str) -> Iterator[Path]:
    """Yield a temporary folder, and move it to `path` on success; on any error nothing changes.

    An existing folder is replaced only if it is of the same kind, which means that it contains a file `marker`.

    Raises InputError if the parent cannot be a folder, `path` is a file or a folder with other content, or another
    process is writing it. Raises EnvironmentFailure if the disk is full, read-only or broken.
    """
    path = Path(path)
    check_replaceable(path, marker)
    with working_folder(path) as folder:
        partial = folder / "new"
        partial.mkdir()
        yield partial
        _swap(partial, path, folder)


@contextmanager
def updated_folder(path: StrPath) -> Iterator[Path]:
    """Yield a temporary folder with the files of `path`, and exchange the two on success; on any error nothing changes.

    Files that are not written anew stay: they are linked, not copied, where the file system can. Write a new file in
    place of a linked one, never into it.

    Raises InputError as `check_updatable`, or if another process is writing `path`. Raises EnvironmentFailure if the
    disk is full, read-only or broken.
    """
    path = Path(path)
    check_updatable(path)
    with working_folder(path) as folder:
        partial = folder / "new"
        partial.mkdir()
        for entry in path.iterdir() if path.is_dir() else ():
            try:
                os.link(entry, partial / entry.name, follow_symlinks=False)
            except OSError:  # file systems without hard links
                shutil.copy2(entry, partial / entry.name, follow_symlinks=False)
        yield partial
        _swap(partial, path, folder)


def check_updatable(path: Path) -> None:
    """Refuse a folder that cannot change as one: it holds folders, is the working folder or a mounted file system.

    Raises InputError also if `path` is a file.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, expected a folder to write to")
    if not path.is_dir():
        return
    absolute = path.resolve()
    if absolute == Path.cwd() or absolute in Path.cwd().parents or path.is_mount():
        raise InputError(
            f"{path}: is in use as a folder to work in, expected a new folder, inside it for example"
        )
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            raise InputError(
                f"{path}: holds the folder {entry.name}, expected a new folder, or one of files, which are "
                "replaced together"
            )


def check_replaceable(path: Path, marker: str) -> None:
    """Refuse to replace anything but an empty folder or one that contains a file `marker`.

    Raises InputError if `path` is a file or a folder with other content.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, expected the name of a folder to write")
    if path.is_dir() and any(path.iterdir()) and not (path / marker).is_file():
        raise InputError(
            f"{path}: holds files but no {marker}, so it is not replaced; expected a new or empty folder"
        )


def put_folder(partial: Path, path: Path) -> None:
    """Move a complete folder to `path`, on the same file system, in place of the folder there."""
    with working_folder(path) as folder:
        # Not exchanged: the earlier folder would stay under the name of the new one.
        _move(partial, path, folder)


def write_text(path: StrPath, text: str) -> None:
    """Write `text` (UTF-8) to `path` atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def check_output(path: StrPath, size: int = 0) -> None:
    """Check before any work that an output can be written: its folder, permissions and free space.

    Raises InputError if the parent cannot be a folder or is not writable, or another process is writing `path`. Raises
    EnvironmentFailure if the disk has too little space.

    `path`: file or folder to write; missing parents are created when it is written. `size`: expected size in bytes.
    """
    path = Path(path)
    _check_kind(path)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise _write_error(path, error) from error
    if free < max(size, 1):
        needed = f"needs {size / 1e6:.3g} MB, and " if size else ""
        raise EnvironmentFailure(f"{path}: {needed}{folder} has {free / 1e6:.3g} MB free")
    lock = _working_path(path) / _LOCK
    if lock.exists() and lock.parent.absolute() not in _claimed:
        with lock.open("rb") as file:
            _lock(file.fileno(), _refusal(path))


def check_not_read(path: StrPath, *read: object) -> None:
    """Refuse an output that is a file to read.

    Raises InputError.

    `read`: paths; anything else is ignored.
    """
    out = Path(path)
    paths = [Path(name) for name in read if isinstance(name, str | os.PathLike)]
    for name in paths:
        if out.exists() and name.exists() and out.samefile(name):
            raise InputError(f"{path}: is a file that is read, expected another name")


@contextmanager
def claimed_output(path: StrPath) -> Iterator[None]:
    """Keep other processes from writing an output while this one works on it, from before any work to the end.

    Raises as `working_folder`. Parents that were missing and stay empty are removed again.
    """
    path = Path(path)
    _check_kind(path)
    folder = _working_path(path).absolute()
    created = [parent for parent in folder.parents if not parent.exists()]
    lock = _locked_working_folder(folder, path)
    _claimed.add(folder)
    try:
        yield
    finally:
        _claimed.discard(folder)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        with suppress(OSError):
            for parent in created:
                parent.rmdir()


def is_claimed(path: StrPath) -> bool:
    """Whether this process has claimed an output."""
    return _working_path(Path(path)).absolute() in _claimed


@contextmanager
def working_folder(path: Path) -> Iterator[Path]:
    """Yield the empty, locked working folder of an output, on the same file system, and remove it at the end.

    The folder of an output that this process has claimed stays, empty, until the claim ends.

    Raises InputError if the parent cannot be a folder, or another process is writing `path`. Raises EnvironmentFailure
    if the disk is full, read-only or broken.
    """
    _check_kind(path)
    folder = _working_path(path)
    claim = folder.absolute()
    lock = None if claim in _claimed else _locked_working_folder(folder, path)
    _claimed.discard(claim)
    try:
        yield folder
    except Exception as error:
        if (reason := _disk_error(error, path.parent)) is not None:
            raise EnvironmentFailure(f"{path}: cannot be written ({reason})") from error
        raise
    finally:
        if lock is None:
            clear_folder(folder, keep=_LOCK)
            _claimed.add(claim)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _check_kind(path: Path) -> None:
    """Refuse what a rename would replace by a file: a device, such as /dev/stdout, or a pipe."""
    try:
        other = path.exists() and not path.is_file() and not path.is_dir()
    except OSError as error:  # a name that is too long
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    if other or path.absolute().parent == _DEVICES:
        raise InputError(f"{path}: is a device or a pipe, expected the name of a file or a folder to write")


def _working_path(path: Path) -> Path:
    name = path.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.parent / f".{name}.writing"


def _locked_working_folder(folder: Path, path: Path) -> int:
    """Lock the working folder, remove the remains of a killed process, and return the lock's descriptor."""
    try:
        lock = locked_folder(folder, _refusal(path), name=_LOCK)
        try:
            _recover(folder, path)
        except BaseException:
            os.close(lock)
            raise
    except OSError as error:
        raise _write_error(path, error) from error
    return lock


def locked_folder(folder: Path, refusal: str, name: str = "") -> int:
    """Create a folder if need be, lock it, or the file `name` in it, and return the open descriptor.

    The system unlocks it when the descriptor is closed, and when this process is killed.

    Raises InputError with `refusal` if another process holds the lock.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # its owner has just renamed or removed it
            lock = os.open(folder / name, os.O_RDWR | os.O_CREAT if name else os.O_RDONLY, 0o666)
            try:
                _lock(lock, refusal)
                if os.path.samestat((folder / name).stat(), os.fstat(lock)):
                    return lock
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)


def _refusal(path: Path) -> str:
    return f"{path}: another process is writing it"


def _lock(descriptor: int, refusal: str) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(refusal) from error
    except OSError as error:
        if error.errno not in {errno.ENOLCK, errno.EOPNOTSUPP}:  # file systems without locks
            raise


def _recover(folder: Path, path: Path) -> None:
    """Undo an interrupted `_swap`, and remove the other remains of a killed process."""
    if (folder / "old").exists() and not path.exists():
        (folder / "old").replace(path)
    clear_folder(folder, keep=_LOCK)


def clear_folder(folder: Path, keep: str = "") -> None:
    """Remove what a folder holds besides the entry `keep`."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != keep:
            entry.unlink()


def _swap(partial: Path, path: Path, folder: Path) -> None:
    """Move `partial` to `path`; the folder there, if any, moves to the working folder, in one step if possible."""
    if not (path.exists() and _exchange(partial, path)):
        _move(partial, path, folder)


def _move(partial: Path, path: Path, folder: Path) -> None:
    """Move `partial` to `path`, after the folder there, if any, to the working folder."""
    if not path.exists():
        partial.replace(path)
        return
    old = folder / "old"
    path.replace(old)
    try:
        partial.replace(path)
    except BaseException:
        old.replace(path)
        raise


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; False where the system cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux
        return False
    return rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0


def _write_error(path: Path, error: OSError) -> InputError | EnvironmentFailure:
    kind = InputError if isinstance(error, _PATH_ERRORS) else EnvironmentFailure
    return kind(f"{path}: cannot be written ({error.strerror or error})")


def _disk_error(error: BaseException | None, folder: Path) -> str | None:
    """Reason if an exception, or one that it followed, comes from a full or failing disk; otherwise None.

    NumPy and PyTorch report a full disk without an error number.
    """
    unnumbered, seen = False, set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        number = getattr(error, "errno", None)
        if isinstance(error, OSError) and number in _DISK_ERRORS:
            return os.strerror(number)
        if number is None and "requested and" in str(error):  # numpy.ndarray.tofile
            return str(error)
        unnumbered |= isinstance(error, OSError | RuntimeError) and number is None
        error = error.__cause__ or error.__context__
    if unnumbered and shutil.disk_usage(folder).free < _FULL_BYTES:
        return os.strerror(errno.ENOSPC)
    return None
