"""Manifest of simulated files: what they were made from, and their hashes, so that equal requests are not repeated."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.paths import file_sha256, read_text

__all__ = ["is_current", "manifest_of"]


def is_current(manifest: Path, content: dict[str, Any], files: Sequence[Path]) -> bool:
    """Whether a manifest has this content, and all files are still as it says."""
    try:
        recorded = json.loads(read_text(manifest))
        hashes = recorded.pop("sha256")
        # Tuples become lists in a file.
        return recorded == json.loads(json.dumps(content)) and all(
            hashes[path.name] == file_sha256(path) for path in files
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return False


@contextmanager
def manifest_of(manifest: Path, content: dict[str, Any], files: Sequence[Path]) -> Iterator[None]:
    """Write a manifest around the writing of its files, and remove files of the earlier one that are none of them.

    Until all files are new their hashes are missing, so that none looks up to date. If no file could be written, no
    manifest is left.

    Raises InputError if a file exists that the earlier manifest does not list.
    """
    earlier = _listed(manifest, content["generator"])
    for path in files:
        if path.exists() and path.name not in earlier:
            raise InputError(
                f"{path}: is not listed in a {manifest.name} next to it, so it is not replaced; expected a new folder"
            )
    names = [path.name for path in files]
    _write(manifest, content, dict.fromkeys(names))
    try:
        for name in earlier.difference(names):
            (manifest.parent / name).unlink(missing_ok=True)
        yield
    except BaseException:
        if not any(path.exists() for path in files):
            manifest.unlink()
        raise
    _write(manifest, content, {path.name: file_sha256(path) for path in files})


def _write(manifest: Path, content: dict[str, Any], hashes: Mapping[str, str | None]) -> None:
    write_text(manifest, json.dumps({**content, "sha256": hashes}, indent=2) + "\n")


def _listed(manifest: Path, generator: str) -> set[str]:
    """The names of the files that a manifest of the same generator lists."""
    try:
        recorded = json.loads(read_text(manifest))
        names = recorded["sha256"] if recorded["generator"] == generator else ()
        return {name for name in names if name == Path(name).name}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
