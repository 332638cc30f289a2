"""From a network to a published ONNX file; checks and signatures of published files."""
