"""The functions of `import ptychonnx`, one module each, so that a function loads only what it needs."""
