"""The processor, the cores that this process may use, and the versions of packages."""

from __future__ import annotations

import contextlib
import math
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["available_cores", "installed_versions", "processor", "software_versions", "vector_instructions"]

_PACKAGES = ("ptychonnx", "onnxruntime-gpu", "onnxruntime", "numpy", "scikit-image", "scipy")
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


def available_cores(root: Path = Path("/")) -> int:
    """Number of cores that this process may use.

    A scheduler, a container or `taskset` may leave it some of the cores of the machine, and a control group a share of
    their time, as `docker run --cpus` and the limits of Kubernetes do.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(cores, max(1, _quota(root))))


def _quota(root: Path) -> float:
    """Cores' worth of time that the control group of this process has; infinite without a limit."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
        (own,) = (line.removeprefix("0::/") for line in groups if line.startswith("0::/"))
        quota, period = (root / "sys/fs/cgroup" / own / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf


def software_versions() -> dict[str, str]:
    """Version of Python and of each installed package that an evaluation depends on."""
    return {"python": platform.python_version(), **installed_versions(*_PACKAGES)}


def installed_versions(*packages: str) -> dict[str, str]:
    """Version of each of these packages that is installed, by the name of its distribution."""
    versions = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
