"""Ptychography networks, from the framework they were trained in, through ONNX, to the beamline.

The names below are the public interface; each is loaded when it is first used.

>>> import ptychonnx
>>> scan = ptychonnx.simulate_lines(grid=6)
>>> reconstruction = ptychonnx.reconstruct("zoo:pinn_fno", scan)
>>> reconstruction.object.shape, reconstruction.object.dtype
((97, 97), dtype('complex64'))
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptychonnx import zoo
    from ptychonnx.api.adoption import adopt
    from ptychonnx.api.module_export import export_module
    from ptychonnx.api.reconstruction import reconstruct, reconstruct_scans
    from ptychonnx.api.run_export import export_run
    from ptychonnx.api.simulation import simulate_lines
    from ptychonnx.harness.evaluation.evaluate import evaluate
    from ptychonnx.runtime.contract import Contract
    from ptychonnx.runtime.errors import (
        DeviceError,
        EnvironmentFailure,
        InputError,
        InternalError,
        PtychonnxError,
        ServerError,
        UnsupportedError,
        VerificationError,
    )
    from ptychonnx.runtime.formats import ReadOptions, read_scan, write_scan
    from ptychonnx.runtime.inference import Session
    from ptychonnx.runtime.reconstruction import Reconstruction
    from ptychonnx.runtime.scan import Reference, Scan

__version__ = "0.2.0"

# Since version 1.29 onnxruntime sends the names, hashes and run times of models to Microsoft, and keeps a number of the
# device, unless this is set when it is loaded. A value that the user set stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
if "onnxruntime" in sys.modules:
    sys.modules["onnxruntime"].disable_telemetry_events()

__all__ = [
    "Contract",
    "DeviceError",
    "EnvironmentFailure",
    "InputError",
    "InternalError",
    "PtychonnxError",
    "ReadOptions",
    "Reconstruction",
    "Reference",
    "Scan",
    "ServerError",
    "Session",
    "UnsupportedError",
    "VerificationError",
    "__version__",
    "adopt",
    "evaluate",
    "export_module",
    "export_run",
    "read_scan",
    "reconstruct",
    "reconstruct_scans",
    "simulate_lines",
    "write_scan",
    "zoo",
]

_ERRORS = "ptychonnx.runtime.errors"
_MODULES = {
    "Contract": "ptychonnx.runtime.contract",
    "DeviceError": _ERRORS,
    "EnvironmentFailure": _ERRORS,
    "InputError": _ERRORS,
    "InternalError": _ERRORS,
    "PtychonnxError": _ERRORS,
    "ReadOptions": "ptychonnx.runtime.formats",
    "Reconstruction": "ptychonnx.runtime.reconstruction",
    "Reference": "ptychonnx.runtime.scan",
    "Scan": "ptychonnx.runtime.scan",
    "ServerError": _ERRORS,
    "Session": "ptychonnx.runtime.inference",
    "UnsupportedError": _ERRORS,
    "VerificationError": _ERRORS,
    "adopt": "ptychonnx.api.adoption",
    "evaluate": "ptychonnx.harness.evaluation.evaluate",
    "export_module": "ptychonnx.api.module_export",
    "export_run": "ptychonnx.api.run_export",
    "read_scan": "ptychonnx.runtime.formats",
    "reconstruct": "ptychonnx.api.reconstruction",
    "reconstruct_scans": "ptychonnx.api.reconstruction",
    "simulate_lines": "ptychonnx.api.simulation",
    "write_scan": "ptychonnx.runtime.formats",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name == "zoo":
        return import_module("ptychonnx.zoo")
    if name not in _MODULES:
        raise AttributeError(f"module 'ptychonnx' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
