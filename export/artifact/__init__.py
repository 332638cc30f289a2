"""From a network to a published ONNX file, and what may be done with the file afterwards."""
