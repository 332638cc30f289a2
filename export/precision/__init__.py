"""Artifacts of lower precision, accepted by the quality of their reconstructions.

``fp16`` is for GPUs: weights and values between layers are in half precision. onnxruntime has half-precision kernels
on GPUs only; on a CPU it computes such a graph in float32, slower than its parent.
``int8`` is for CPUs: convolutions compute on 8-bit integers, everything else in float32.

Types of inputs and outputs do not change. The caller passes the gate that judges reconstructions.
"""

from ptychonnx.export.precision.reduce import Precision, QualityGate, reduce_artifact
from ptychonnx.export.precision.reduced_artifact import ReducedArtifact

__all__ = ["Precision", "QualityGate", "ReducedArtifact", "reduce_artifact"]
