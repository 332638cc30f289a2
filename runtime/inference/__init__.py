"""Run networks: artifacts in this process with onnxruntime, or models on an inference server (`inference.remote`)."""

from ptychonnx.runtime.inference.predictor import DEFAULT_BATCH, Predictor
from ptychonnx.runtime.inference.providers import Provider, available
from ptychonnx.runtime.inference.request_statistics import RequestStatistics
from ptychonnx.runtime.inference.session import Session
from ptychonnx.runtime.inference.tuning import tuned

__all__ = [
    "DEFAULT_BATCH",
    "Predictor",
    "Provider",
    "RequestStatistics",
    "Session",
    "available",
    "tuned",
]
