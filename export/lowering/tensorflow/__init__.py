"""Keras networks, by tf2onnx."""
