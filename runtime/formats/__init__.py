"""Scan files: one module a format; `docs/formats.md` has them all in one table."""

from runtime.formats.detect import FORMATS, ScanFormat, read_scan
from runtime.formats.native import write_scan
from runtime.formats.options import ReadOptions
from runtime.formats.reference import read_reference

__all__ = ["FORMATS", "ReadOptions", "ScanFormat", "read_reference", "read_scan", "write_scan"]
