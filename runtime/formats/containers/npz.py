"""NumPy archives (NPZ, also compressed with bzip2), read without pickles; errors name the file and the key."""

from __future__ import annotations

import bz2
import io
import math
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.formats.containers.damage import HEADER_DAMAGE
from ptychonnx.runtime.formats.containers.single_precision import in_single_precision
from ptychonnx.runtime.machine import check_memory

__all__ = ["Archive", "is_archive", "is_npy", "load_npy", "open_archive"]

_ZIP = b"PK\x03\x04"
_BZIP2 = b"BZh"
# Members up to this size are compared with their checksum, a second; larger ones would be read twice.
_CHECKED_BYTES = 2**30
# Bit of a member that needs a password.
_ENCRYPTED = 1
_NPY = b"\x93NUMPY"
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, UnicodeError),
    *HEADER_DAMAGE,
)
# Header of a member of a zip archive; its last two fields are the lengths of the name and of the extra field.
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")


class Archive:
    """Arrays of an NPZ file, loaded or memory-mapped on access.

    `path`: the file, for messages. `keys`: names of the arrays.
    """

    def __init__(self, path: Path, file: np.lib.npyio.NpzFile, *, plain: bool = True) -> None:
        """`plain`: the file is the archive itself, not compressed as a whole."""
        self.path = path
        self.keys = frozenset(file.files)
        self._file, self._plain = file, plain

    def __contains__(self, key: str) -> bool:
        return key in self.keys

    def array(self, key: str, expected: str) -> NDArray:
        """Load one array; `expected` describes it in the error.

        Raises InputError if the key is missing, the array is pickled, or the file is damaged.
        """
        if key not in self.keys:
            found = ", ".join(sorted(self.keys)) or "nothing"
            raise InputError(f"{self.path}: no key {key!r}, expected {expected} (the file has {found})")
        try:
            self._check_size(key)
            return self._file[key]
        except InputError:
            raise
        except (ValueError, *_DAMAGE) as error:
            pickled = "Object arrays" in str(error)
            fault = "a pickled object, which is never loaded" if pickled else f"damaged ({error})"
            raise InputError(f"{self.path}: {key!r} is {fault}, expected {expected}") from error

    def _check_size(self, key: str) -> None:
        """Refuse an array that declares more than the file or the memory can hold."""
        archive = self._file.zip
        member = None if archive is None else archive.NameToInfo.get(f"{key}.npy")
        if archive is None or member is None:
            return
        with archive.open(member) as file:
            shape, dtype = _declared(file)
        size = dtype.itemsize * math.prod(shape)
        where = f"{self.path}: {key!r}"
        if not dtype.hasobject and size > member.file_size:
            raise InputError(
                f"{where} is damaged: it declares {size} bytes, expected at most {member.file_size} as its archive says"
            )
        check_memory(size, where)

    def stack(self, key: str, expected: str) -> NDArray:
        """A large array of real numbers: memory-mapped if it is not compressed, otherwise loaded.

        Raises InputError as for `array`, and if it holds no real numbers.
        """
        return self.real(key, expected, self._mapped(key) if self._plain else None)

    def real(self, key: str, expected: str, mapped: NDArray | None = None) -> NDArray:
        """An array of real numbers or integers, loaded whole unless it is `mapped` to memory.

        Raises InputError as for `array`, and if it holds complex numbers or no numbers.
        """
        array = self.array(key, expected) if mapped is None else mapped
        if array.dtype.kind not in "fiu":
            raise InputError(f"{self.path}: {key!r} is {array.dtype}, expected {expected}")
        return array

    def complex(self, key: str, expected: str) -> NDArray[np.complex64]:
        """An array of numbers, as complex64.

        Raises InputError as for `array`, and if it holds no numbers.
        """
        return in_single_precision(self.array(key, expected), f"{self.path}: {key!r}", expected)

    def _mapped(self, key: str) -> np.memmap | None:
        """The member as a memory map; None if it is compressed or not a plain array."""
        if self._file.zip is None or f"{key}.npy" not in self._file.zip.NameToInfo:
            return None
        member = self._file.zip.NameToInfo[f"{key}.npy"]
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
            return None
        try:
            with self.path.open("rb") as file:
                file.seek(member.header_offset)
                header = file.read(_LOCAL_HEADER.size)
                *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
                start = member.header_offset + len(header) + name_length + extra_length
                file.seek(start)
                major, minor = np.lib.format.read_magic(file)
                if (major, minor) != (1, 0):
                    return None
                shape, column_major, dtype = np.lib.format.read_array_header_1_0(file)
                offset = file.tell()
        except (ValueError, OSError, *HEADER_DAMAGE):
            return None
        length = dtype.itemsize * math.prod(shape)
        if (
            dtype.hasobject
            or length <= 0
            or min(shape, default=0) < 0
            or offset + length > start + member.file_size
        ):
            return None
        if member.file_size <= _CHECKED_BYTES:
            self._check_sum(member, start, key)
        order: Literal["F", "C"] = "F" if column_major else "C"
        return np.memmap(self.path, dtype, "r", offset, shape, order)

    def _check_sum(self, member: zipfile.ZipInfo, start: int, key: str) -> None:
        """Compare a member that is not compressed with its checksum in the archive."""
        with self.path.open("rb") as file:
            file.seek(start)
            checksum, left = 0, member.file_size
            while left and (block := file.read(min(left, 2**22))):
                checksum, left = zlib.crc32(block, checksum), left - len(block)
        if checksum != member.CRC:
            raise InputError(
                f"{self.path}: {key!r} is damaged: its checksum is {checksum:08x}, expected {member.CRC:08x}"
            )


def is_npy(path: Path) -> bool:
    """True if the file begins like an NPY array."""
    with path.open("rb") as file:
        return file.read(len(_NPY)) == _NPY


def load_npy(path: Path, expected: str) -> NDArray:
    """The array of an NPY file, memory-mapped.

    Raises InputError if it is damaged, or pickled.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, *HEADER_DAMAGE) as error:
        raise InputError(f"{path}: no array of numbers ({first_line(error)}), expected {expected}") from error


def _declared(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type in the header of an NPY array."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype


def is_archive(path: Path) -> bool:
    """True if the file begins like a zip archive or a bzip2 stream."""
    with path.open("rb") as file:
        start = file.read(4)
    return start == _ZIP or start.startswith(_BZIP2)


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an NPZ file; one that is compressed with bzip2 as a whole is unpacked in memory.

    Raises InputError if the file is truncated or not an NPZ archive.
    """
    with ExitStack() as stack:
        try:
            content: IO[bytes] = stack.enter_context(path.open("rb"))
            packed = content.read(len(_BZIP2)) == _BZIP2
            content.seek(0)
            if packed:
                content = io.BytesIO(_unpacked(path, content))
            loaded = np.load(content, allow_pickle=False)
        except InputError:
            raise
        except (ValueError, *_DAMAGE) as error:
            raise InputError(
                f"{path}: truncated or no NPZ archive ({error}), expected a complete file"
            ) from error
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise InputError(f"{path}: holds a single array, expected an NPZ archive of named arrays")
        archive = stack.enter_context(loaded)
        if repeated := [name for name, count in Counter(archive.files).items() if count > 1]:
            raise InputError(f"{path}: holds {', '.join(repeated)} more than once, expected each array once")
        yield Archive(path, archive, plain=not packed)


def _unpacked(path: Path, content: IO[bytes]) -> bytes:
    """The content of a bzip2 stream, unless it exceeds the memory."""
    unpacker, parts, size = bz2.BZ2Decompressor(), [], 0
    while block := content.read(2**20):
        parts.append(unpacker.decompress(block))
        size += len(parts[-1])
        check_memory(2 * size, str(path))
    if not unpacker.eof:
        raise EOFError("the bzip2 stream ends too early")
    return b"".join(parts)
