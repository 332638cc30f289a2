"""Foreign networks: an ONNX file of somebody else becomes an artifact, with what it needs around it in the graph."""

from ptychonnx.export.adoption.adopt import AdoptionResult, adopt
from ptychonnx.export.adoption.sidecar import Specification, read_specification

__all__ = ["AdoptionResult", "Specification", "adopt", "read_specification"]
