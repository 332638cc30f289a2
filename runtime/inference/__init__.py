"""Run networks: in this process with onnxruntime, or on an inference server."""
