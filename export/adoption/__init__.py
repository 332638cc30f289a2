"""Adoption of foreign networks: preprocessing and output conversion become part of their graph."""

from ptychonnx.export.adoption.adopt import adopt
from ptychonnx.export.adoption.sidecar import Specification, read_specification

__all__ = ["Specification", "adopt", "read_specification"]
