"""Layers in lower precision, and how sensitive the output is to each of them.

``fp16`` is for GPUs: weights and values between layers are in half precision. onnxruntime has half-precision kernels
on GPUs only; on a CPU it computes such a graph in float32, slower than its parent.
``int8`` is for CPUs: convolutions compute on 8-bit integers, everything else in float32.

Types of inputs and outputs do not change. `ptychonnx.export.artifact.reduce_artifact` chooses the layers and publishes.
"""
