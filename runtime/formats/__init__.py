"""Scan files: one reader per format; `docs/reference/formats.md` compares them in one table."""

from ptychonnx.runtime.formats.read_options import ReadOptions
from ptychonnx.runtime.formats.readers.native import write_scan
from ptychonnx.runtime.formats.readers.reference import read_reference
from ptychonnx.runtime.formats.scan_file import read_scan

__all__ = ["ReadOptions", "read_reference", "read_scan", "write_scan"]
