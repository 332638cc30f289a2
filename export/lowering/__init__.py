"""From a framework to an ONNX graph of real operators."""
