"""Description of this installation for a bug report: versions, providers that work, processor, folders."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from ptychonnx.runtime.inference.providers import probe_providers
from ptychonnx.runtime.machine import (
    available_cores,
    available_memory,
    installed_versions,
    processor,
    vector_instructions,
)
from ptychonnx.runtime.paths import cache_folder

__all__ = ["EXTRAS", "describe_installation"]

_BASE = (
    *("numpy", "scipy", "h5py", "hdf5plugin", "numba", "scikit-image", "matplotlib"),
    *("pydantic", "typer", "rich", "onnx", "onnx-ir", "onnxruntime-gpu", "onnxruntime", "protobuf"),
)
# Packages that each extra of pyproject.toml installs; those that an extra only bounds are left out.
EXTRAS = {
    "torch": ("torch", "lightning", "neuraloperator", "onnxscript", "safetensors"),
    "spherical": ("torch-harmonics",),
    "tensorflow": ("tensorflow", "keras", "tf2onnx", "onnxscript"),
    "tensorboard": ("tensorboard",),
    "openvino": ("openvino",),
    "serve": ("tritonclient", "grpcio", "packaging"),
    "signing": ("model-signing", "pyopenssl"),
    "live": ("pyzmq", "lz4", "bitshuffle", "blosc", "cbor2", "p4p", "websockets"),
    "cluster": ("distributed", "dask-jobqueue"),
}
_VARIABLES = (
    *("PTYCHONNX_CACHE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "CUDA_VISIBLE_DEVICES"),
)


def describe_installation() -> dict[str, Any]:
    """Describe the installation.

    Every provider is probed with a session of one operator. No training framework is imported.

    Returns ``versions``, ``extras`` (None for a package that is missing), ``providers`` (``works`` or the reason why
    not), ``machine``, ``environment`` (variables that are set) and ``folders``; ready for JSON.
    """
    return {
        "versions": {
            **installed_versions("ptychonnx"),
            "python": platform.python_version(),
            **installed_versions(*_BASE),
        },
        "extras": {
            extra: dict.fromkeys(names) | installed_versions(*names) for extra, names in EXTRAS.items()
        },
        "providers": probe_providers(),
        "machine": {
            "system": platform.platform(),
            "processor": processor(),
            "vector_instructions": vector_instructions(),
            "threads": os.cpu_count(),
            "threads_available": available_cores(),
            "memory_gb": _memory(),
        },
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "folders": {"package": str(Path(__file__).parents[1]), "cache": str(cache_folder())},
    }


def _memory() -> float | None:
    """Memory that this process may use, in gigabytes, where the system tells it."""
    memory = available_memory()
    return None if memory is None else round(memory / 1e9, 1)
