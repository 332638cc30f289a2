"""Scan files: one module a format; `docs/reference/formats.md` has them all in one table."""

from ptychonnx.runtime.formats.detection import FORMATS, ScanFormat, read_scan
from ptychonnx.runtime.formats.read_options import ReadOptions
from ptychonnx.runtime.formats.readers.native import write_scan
from ptychonnx.runtime.formats.readers.reference import read_reference

__all__ = ["FORMATS", "ReadOptions", "ScanFormat", "read_reference", "read_scan", "write_scan"]
