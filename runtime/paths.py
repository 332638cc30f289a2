"""Paths as callers write them, and the hash of a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["StrPath", "file_sha256"]

StrPath = str | os.PathLike[str]


def file_sha256(path: Path) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
