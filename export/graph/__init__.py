"""Inspect and build ONNX graphs."""
