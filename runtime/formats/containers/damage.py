"""Whatever the libraries raise for a damaged file becomes one line that names the file."""

from __future__ import annotations

import errno
import os
import struct
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptychonnx.runtime.errors import InputError, PtychonnxError, first_line

__all__ = ["HEADER_DAMAGE", "damage_refused"]

# What NumPy raises for the header of a damaged array, besides ValueError.
HEADER_DAMAGE = (tokenize.TokenError, SyntaxError, struct.error, TypeError)
# RuntimeError and KeyError are what h5py raises for damaged groups and links.
_DAMAGE = (OSError, RuntimeError, KeyError, EOFError, UnicodeError, *HEADER_DAMAGE)


@contextmanager
def damage_refused(path: Path) -> Iterator[None]:
    """Refuse a damaged file, or one that does not fit into memory.

    Raises InputError, which names the file and the reason.
    """
    try:
        yield
    except PtychonnxError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into memory ({error}), expected a smaller file") from error
    except _DAMAGE as error:
        if os.strerror(errno.EMFILE) in str(error):
            raise InputError(
                f"{path}: needs more open files than this process may have, expected fewer: ulimit -n raises the limit"
            ) from error
        if "already open for write" in str(error):
            raise InputError(
                f"{path}: open for writing, expected a finished scan: if no program writes to it any longer, h5clear "
                "-s of HDF5 mends it"
            ) from error
        raise InputError(
            f"{path}: damaged or unreadable ({first_line(error)}), expected a complete file"
        ) from error
