"""Compile trained networks to verified, self-describing ONNX artifacts, and deploy them."""
