"""Processor and package versions, which measurements are reported with."""

from __future__ import annotations

import contextlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["processor", "software_versions", "vector_instructions"]

_PACKAGES = ("ptychonnx", "onnxruntime-gpu", "onnxruntime", "numpy", "scikit-image", "scipy", "cdtools-py")
_INSTRUCTIONS = {
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp")
}


def processor() -> str:
    """Name of the processor if the system states it, otherwise its architecture."""
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def vector_instructions() -> list[str]:
    """Instruction sets that 8-bit, bfloat16 and wide kernels depend on, if the system states them."""
    return sorted(_INSTRUCTIONS & {flag for line in _cpuinfo() for flag in line.split()})


def software_versions() -> dict[str, str]:
    """Version of Python and of each installed package that an evaluation depends on."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
