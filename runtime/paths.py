"""Paths as callers write them, the folder of caches, and the text and the hash of a regular file."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from ptychonnx.runtime.errors import InputError

__all__ = ["StrPath", "cache_folder", "check_file", "file_sha256", "in_order", "read_text", "readable"]

StrPath = str | os.PathLike[str]
_CACHE_VARIABLE = "PTYCHONNX_CACHE"


def cache_folder() -> Path:
    """Folder for cached results: $PTYCHONNX_CACHE, or `ptychonnx` in the user's cache folder.

    The user's cache folder is $XDG_CACHE_HOME if that is an absolute path (as the XDG specification demands),
    %LOCALAPPDATA% on Windows, and ~/.cache otherwise.
    """
    if folder := os.environ.get(_CACHE_VARIABLE):
        return Path(folder)
    users = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    return (Path(users) if Path(users).is_absolute() else Path("~/.cache").expanduser()) / "ptychonnx"


def in_order(names: Iterable[str]) -> list[str]:
    """Names sorted with their numbers as numbers: data_2 before data_10."""
    return sorted(
        names, key=lambda name: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
    )


def check_file(path: Path, expected: str) -> None:
    """Refuse a path that is no regular file.

    Raises InputError, which ends with what was `expected`.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "not a regular file" if path.exists() else "no such file"
        raise InputError(f"{path}: {kind}, expected {expected}")


def file_sha256(path: Path) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal digits; OSError if it is no regular file."""
    _check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path) -> str:
    """Text of a small file; OSError if it is no regular file.

    Raises InputError if it is not UTF-8.
    """
    _check_regular(path)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8, expected text") from error


def _check_regular(path: Path) -> None:
    # A FIFO waits for a writer, and a device may never end.
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def readable(name: str) -> str:
    """A name of a file, which may be no UTF-8, as text that can be drawn and stored."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
