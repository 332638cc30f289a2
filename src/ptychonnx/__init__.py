"""Ptychography networks, from the framework they were trained in, through ONNX, to the beamline."""
