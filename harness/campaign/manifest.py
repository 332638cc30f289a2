"""Manifest of a folder of results: one line of JSON per attempt, from which an interrupted command continues.

Lines are only ever appended; the last line of a result counts. A line that was cut short is skipped, so its scan is
processed again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ptychonnx.runtime.errors import EnvironmentFailure, InputError
from ptychonnx.runtime.paths import file_sha256, read_text
from ptychonnx.runtime.reconstruction.misfit import Verdict

__all__ = ["MANIFEST", "VERSION", "FileState", "Manifest", "ScanRecord"]

MANIFEST = "manifest.jsonl"
VERSION = version("ptychonnx")

_logger = logging.getLogger(__name__)


class FileState(BaseModel):
    """Size, time of the last change, and content of a file."""

    model_config = ConfigDict(frozen=True)

    bytes: int
    modified_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileState:
        """State of a file, which is read as a whole."""
        status = path.stat()
        return cls(bytes=status.st_size, modified_ns=status.st_mtime_ns, sha256=file_sha256(path))

    def holds(self, path: Path) -> bool:
        """Whether the file still has this content; it is read only if its time differs."""
        try:
            status = path.stat()
            if status.st_size != self.bytes:
                return False
            return status.st_mtime_ns == self.modified_ns or file_sha256(path) == self.sha256
        except OSError:
            return False


class ScanRecord(BaseModel):
    """One attempt to reconstruct or evaluate a scan."""

    model_config = ConfigDict(frozen=True)

    scan: str = Field(description="absolute path of the scan")
    state: FileState | None = Field(
        default=None, description="of the scan file; null if it could not be read"
    )
    settings: dict[str, Any] = Field(description="network and options that are not defaults")
    result: str = Field(
        pattern=r"^[^/]+$",
        description="name of the object's file, or of the folder of the report, next to the manifest",
    )
    version: str = Field(description="of ptychonnx")
    finished: str = Field(description="ISO 8601, UTC")
    seconds: float = 0.0
    host: str
    patterns: int | None = None
    shape: tuple[int, int] | None = Field(default=None, description="rows and columns of the object")
    misfit: float | None = None
    scattered: float | None = Field(default=None, description="misfit of the scattered light alone")
    verdict: Verdict | None = None
    ssim: dict[str, tuple[float | None, float | None]] = Field(
        default_factory=dict, description="of amplitude and phase, for each row of an evaluation, by label"
    )
    warnings: tuple[str, ...] = ()
    error: str | None = None


class Manifest:
    """The manifest of a folder.

    * `path`: the file.
    * `records`: the last record of each result, by its name.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / MANIFEST
        self.records: dict[str, ScanRecord] = {}
        self._complete = True
        try:
            text = read_text(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be read as a manifest ({error.strerror or error})"
            ) from error
        self._complete = text.endswith("\n") or not text
        for number, line in enumerate(text.splitlines(), 1):
            try:
                record = ScanRecord.model_validate_json(line)
            except ValidationError:
                _logger.warning("%s: line %d is damaged and was skipped", self.path, number)
                continue
            self.records[record.result] = record

    def append(self, record: ScanRecord) -> None:
        """Add the record of an attempt.

        Raises EnvironmentFailure if it cannot be written.
        """
        line = record.model_dump_json() + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line if self._complete else "\n" + line)
        except OSError as error:
            raise EnvironmentFailure(f"{self.path}: cannot be written ({error.strerror})") from error
        self._complete = True
        self.records[record.result] = record

    def is_done(self, scan: Path, result: Path, settings: Mapping[str, Any]) -> bool:
        """Whether a result was computed from this content of its scan, with these settings."""
        record = self.records.get(result.name)
        return (
            record is not None
            and record.error is None
            and record.settings == settings
            and result.exists()
            and record.state is not None
            and record.state.holds(scan)
        )
