"""Simulated files with a manifest: what they were made from, and their hashes; equal requests are not repeated."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ptychonnx.runtime.atomic import check_output, write_text
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.paths import file_sha256, read_text
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan

__all__ = ["is_current", "write_simulated"]


def is_current(manifest: Path, content: dict[str, Any], files: Iterable[Path]) -> bool:
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


def write_simulated(
    manifest: Path,
    content: dict[str, Any],
    files: Mapping[Path, Callable[[], Scan]],
    progress: Progress = SILENT,
    stage: str = "Simulating",
) -> bool:
    """Simulate the scan of each file and write both it and the manifest, unless all are up to date; whether it did.

    Files that only the earlier manifest lists are removed. Until all files are new their hashes are missing, so that
    none looks up to date. If no file could be written, no manifest is left.

    Raises InputError if the folder cannot be written, or holds a file that the earlier manifest does not list.

    `progress`: receives a stage of this name, and is updated after each file.
    """
    if is_current(manifest, content, files):
        return False
    check_output(manifest)
    earlier = _listed(manifest, content["generator"])
    for path in files:
        if path.exists() and path.name not in earlier:
            raise InputError(
                f"{path}: is not listed in a {manifest.name} next to it, so it is not replaced; expected a new folder"
            )
    names = [path.name for path in files]
    _write(manifest, content, dict.fromkeys(names))
    progress.stage(stage, len(files), "scans")
    try:
        for name in earlier.difference(names):
            (manifest.parent / name).unlink(missing_ok=True)
        for number, (path, simulate) in enumerate(files.items(), start=1):
            write_scan(path, simulate())
            progress.update(number)
    except BaseException:
        if not any(path.exists() for path in files):
            manifest.unlink()
        raise
    _write(manifest, content, {path.name: file_sha256(path) for path in files})
    return True


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
