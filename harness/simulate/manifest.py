"""Manifest of simulated files: what they were made from, and their hashes, so that equal requests are not repeated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.paths import file_sha256, read_text

__all__ = ["begin_manifest", "is_current", "write_manifest"]


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


def begin_manifest(manifest: Path, content: dict[str, Any], files: Sequence[Path]) -> None:
    """Write the manifest of files that are about to be written, and remove those of the earlier one that are not.

    Without hashes, no file looks up to date.

    Raises InputError if a file exists that the earlier manifest does not list.
    """
    earlier = _listed(manifest)
    for path in files:
        if path.exists() and path.name not in earlier:
            raise InputError(
                f"{path}: is not listed in a {manifest.name} next to it, so it is not replaced; expected a new folder"
            )
    names = [path.name for path in files]
    write_text(manifest, json.dumps({**content, "sha256": dict.fromkeys(names)}, indent=2) + "\n")
    for name in earlier.difference(names):
        (manifest.parent / name).unlink(missing_ok=True)


def _listed(manifest: Path) -> set[str]:
    """The names of the files that a manifest lists."""
    try:
        names = json.loads(read_text(manifest))["sha256"]
        return {name for name in names if name == Path(name).name}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def write_manifest(manifest: Path, content: dict[str, Any], files: Sequence[Path]) -> None:
    """Write the content and the SHA-256 of every file."""
    hashes = {path.name: file_sha256(path) for path in files}
    write_text(manifest, json.dumps({**content, "sha256": hashes}, indent=2) + "\n")
