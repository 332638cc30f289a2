"""Compile a Fourier neural operator to ONNX, and run it without torch.

    python examples/export_network.py

needs `pip install "ptychonnx[torch]"` and writes `fno.onnx`, which runs wherever onnxruntime does. Any torch module
takes the place of this one.
"""

import time

import numpy as np
import onnxruntime
import torch
from neuralop.models import FNO

import ptychonnx

# Load: your trained network. Here the weights are random.
torch.manual_seed(0)
network = FNO(n_modes=(8, 8), in_channels=1, out_channels=1, hidden_channels=8, n_layers=2).eval()

# Run: compile, and compare with torch on random, empty, faint and bright inputs, in every engine that is installed.
result = ptychonnx.export_module(network, (1, 64, 64), "fno.onnx", source="an FNO of neuraloperator")
print(*result.verdict(), sep="\n")

# Look: the same answer, and how long it takes.
images = np.random.default_rng(0).normal(size=(8, 1, 64, 64)).astype(np.float32)
session = onnxruntime.InferenceSession("fno.onnx", providers=["CPUExecutionProvider"])
(name,) = (tensor.name for tensor in session.get_inputs())
start = time.perf_counter()
(answer,) = session.run(None, {name: images})
middle = time.perf_counter()
with torch.no_grad():
    expected = network(torch.from_numpy(images)).numpy()
print(f"onnxruntime {1e3 * (middle - start):.0f} ms, torch {1e3 * (time.perf_counter() - middle):.0f} ms")
print(
    f"largest difference over the largest value: {np.abs(answer - expected).max() / np.abs(expected).max():.1e}"
)
