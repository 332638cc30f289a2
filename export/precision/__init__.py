"""Artifacts of lower precision, accepted on the quality of their reconstructions.

``fp16`` is for GPUs: weights and values between layers in half precision. onnxruntime has half-precision kernels on
GPUs only; on the CPU it computes such a graph in float32, slower than its parent.
``int8`` is for CPUs: convolutions on 8-bit integers, everything else in float32.

Input and output keep their types. Nothing of the harness is imported: whoever reduces an artifact brings the judge.
"""

from ptychonnx.export.precision.cost_text import quality_lines
from ptychonnx.export.precision.reduce import Judge, Precision, ReducedArtifact, reduce_artifact

__all__ = ["Judge", "Precision", "ReducedArtifact", "quality_lines", "reduce_artifact"]
