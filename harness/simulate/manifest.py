"""Manifest of simulated files: what they were made from, and their hashes, so that equal requests are not repeated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.paths import file_sha256, read_text

__all__ = ["is_current", "write_manifest"]


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


def write_manifest(manifest: Path, content: dict[str, Any], files: Sequence[Path]) -> None:
    """Write the content and the SHA-256 of every file."""
    hashes = {path.name: file_sha256(path) for path in files}
    write_text(manifest, json.dumps({**content, "sha256": hashes}, indent=2) + "\n")
