from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import importlib, importlib.util, pkgutil, sys
for name in ("torch", "tensorflow", "keras", "lightning", "neuralop", "tf2onnx", "onnxscript", "onnx_ir", "cdtools"):
    sys.modules[name] = None  # importing it fails, as where it is not installed
from ptychonnx import harness, runtime
for module in pkgutil.walk_packages(runtime.__path__, "ptychonnx.runtime."):
    importlib.import_module(module.name)
if importlib.util.find_spec("ptychonnx.harness.cli"):
    importlib.import_module("ptychonnx.harness.cli")
frameworks = {"torch", "tensorflow", "keras", "lightning", "neuralop"}
heavy = {name.split(".")[0] for name, module in sys.modules.items() if module is not None} & frameworks
print(",".join(sorted(heavy)), "ptychonnx.runtime.inference.session" in sys.modules)
"""


def test_runtime_and_harness_load_no_training_framework():
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"
