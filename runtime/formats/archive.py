"""NumPy archives (NPZ, also wrapped in bzip2), read without pickles; errors name file and key."""

from __future__ import annotations

import bz2
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError

__all__ = ["Archive", "complex_array", "is_archive", "open_archive", "real_array"]

_ZIP = b"PK\x03\x04"
_BZIP2 = b"BZh"


class Archive:
    """Arrays of an NPZ file, each loaded when it is asked for.

    Attributes
    ----------
    path
        The file, for messages.
    keys
        Names of the arrays.
    """

    def __init__(self, path: Path, file: np.lib.npyio.NpzFile) -> None:
        self.path = path
        self.keys = frozenset(file.files)
        self._file = file

    def __contains__(self, key: str) -> bool:
        return key in self.keys

    def array(self, key: str, expected: str) -> NDArray:
        """Load one array; `expected` says in the error what should have been there.

        Raises
        ------
        InputError
            If the key is missing, the array is pickled, or the file is damaged.
        """
        if key not in self.keys:
            found = ", ".join(sorted(self.keys)) or "nothing"
            raise InputError(f"{self.path}: no key {key!r}, expected {expected} (the file has {found})")
        try:
            return self._file[key]
        except ValueError as error:
            if "allow_pickle" in str(error):
                raise InputError(
                    f"{self.path}: {key!r} is a pickled object, which is never loaded, expected {expected}"
                ) from error
            raise InputError(f"{self.path}: {key!r} is damaged ({error}), expected {expected}") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise InputError(f"{self.path}: {key!r} is damaged ({error}), expected {expected}") from error


def is_archive(path: Path) -> bool:
    """True if the file begins like a zip archive or a bzip2 stream."""
    with path.open("rb") as file:
        start = file.read(4)
    return start == _ZIP or start.startswith(_BZIP2)


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an NPZ file, which may be compressed with bzip2 as a whole (then it is unpacked in memory).

    Raises
    ------
    InputError
        If the file is truncated or no NPZ archive.
    """
    with ExitStack() as stack:
        try:
            content: IO[bytes] = stack.enter_context(path.open("rb"))
            packed = content.read(len(_BZIP2)) == _BZIP2
            content.seek(0)
            if packed:
                content = io.BytesIO(bz2.decompress(content.read()))
            loaded = np.load(content, allow_pickle=False)
        except (zipfile.BadZipFile, EOFError, ValueError, OSError) as error:
            raise InputError(
                f"{path}: truncated or no NPZ archive ({error}), expected a complete file"
            ) from error
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise InputError(f"{path}: holds a single array, expected an NPZ archive of named arrays")
        yield Archive(path, stack.enter_context(loaded))


def real_array(archive: Archive, key: str, expected: str) -> NDArray:
    """An array of real numbers or integers.

    Raises
    ------
    InputError
        Also if the numbers are complex or no numbers.
    """
    array = archive.array(key, expected)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{archive.path}: {key!r} is {array.dtype}, expected {expected}")
    return array


def complex_array(archive: Archive, key: str, expected: str) -> NDArray[np.complex64]:
    """An array of numbers, as complex64.

    Raises
    ------
    InputError
        Also if it holds no numbers.
    """
    array = archive.array(key, expected)
    if array.dtype.kind not in "cfiu":
        raise InputError(f"{archive.path}: {key!r} is {array.dtype}, expected {expected}")
    return array.astype(np.complex64)
