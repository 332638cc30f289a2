"""The contract that every artifact carries, and the checks that a model file passes before an engine opens it."""

from ptychonnx.runtime.contract.contract import (
    CONTRACT_KEY,
    Contract,
    Conversion,
    InputTensor,
    NetworkInput,
    NetworkOutput,
    OffsetsInput,
    Parity,
    Placement,
    Provenance,
    Quality,
    ReferencePair,
    Stitching,
    TrainingProbe,
    Weighting,
    WeightsProof,
)

__all__ = [
    "CONTRACT_KEY",
    "Contract",
    "Conversion",
    "InputTensor",
    "NetworkInput",
    "NetworkOutput",
    "OffsetsInput",
    "Parity",
    "Placement",
    "Provenance",
    "Quality",
    "ReferencePair",
    "Stitching",
    "TrainingProbe",
    "Weighting",
    "WeightsProof",
]
