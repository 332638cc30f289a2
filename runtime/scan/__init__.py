"""The scan: measured amplitudes, positions, probe and mask, and functions of them alone."""

from ptychonnx.runtime.scan.scan import Reference, Scan

__all__ = ["Reference", "Scan"]
