"""What a measurement on a device depends on: device, driver, libraries, processor, versions."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from typing import Any

from ptychonnx.runtime.inference.cuda_libraries import cuda_state
from ptychonnx.runtime.inference.providers import probe_providers
from ptychonnx.runtime.machine import available_cores, processor, software_versions

__all__ = ["describe_device", "memory_used"]

_COLUMNS = ("name", "driver_version", "memory.total", "compute_cap", "power.limit", "clocks.max.sm")


def describe_device() -> dict[str, Any]:
    """Devices as nvidia-smi reports them, the CUDA libraries with their paths, providers, processor and versions."""
    state = cuda_state()
    return {
        "devices": [dict(zip(_COLUMNS, row, strict=False)) for row in _nvidia_smi("--query-gpu", _COLUMNS)],
        "cuda": {
            "onnxruntime_built_for": state.needed,
            "driver": state.driver,
            "driver_supports": state.supported and ".".join(map(str, state.supported)),
            "libraries": dict(state.libraries),
            "problem": state.problem,
        },
        "providers": probe_providers(),
        "processor": processor(),
        "threads": available_cores(),
        "versions": software_versions(),
    }


def memory_used(on_device: bool) -> float:
    """Memory of this process in MB: on the devices now, or in the machine at its peak."""
    if not on_device:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    rows = _nvidia_smi("--query-compute-apps", ("pid", "used_memory"))
    return sum(float(used) for process, used in rows if process == str(os.getpid()))


def _nvidia_smi(query: str, columns: tuple[str, ...]) -> list[list[str]]:
    """Rows of a query; none without nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"{query}={','.join(columns)}", "--format=csv,noheader,nounits"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if answer.returncode:
        return []
    return [[cell.strip() for cell in line.split(",")] for line in answer.stdout.splitlines() if line.strip()]
