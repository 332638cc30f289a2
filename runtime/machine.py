"""The processor, the cores and the memory that this process may use, and the versions of packages."""

from __future__ import annotations

import contextlib
import math
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ptychonnx.runtime.errors import InputError

__all__ = [
    "allow_open_files",
    "available_cores",
    "available_memory",
    "check_memory",
    "installed_versions",
    "processor",
    "software_versions",
    "vector_instructions",
]

# macOS permits no more.
_OPEN_FILES = 10_240
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
        quota, period = _control_group(root, "cpu.max").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes of memory that this process may use: those of the machine, of its control group, or of its own limit.

    None if the system does not tell.
    """
    limits: list[int] = []
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        limits.append(int(_control_group(root, "memory.max")))
    with contextlib.suppress(ImportError):  # nor has it limits of processes
        import resource

        own = resource.getrlimit(resource.RLIMIT_AS)[0]
        limits += [] if own == resource.RLIM_INFINITY else [own]
    return min(limits, default=None)


def check_memory(size: int, where: str) -> None:
    """Refuse `size` bytes that exceed half of the memory that this process may use.

    Raises InputError with `where` (file and key) at the beginning of the message.
    """
    memory = available_memory()
    if memory is not None and size > memory / 2:
        raise InputError(
            f"{where} declares {size / 2**30:.3g} GiB, expected at most half of this machine's {memory / 2**30:.3g} GiB"
        )


def allow_open_files() -> None:
    """Let this process open as many files as the system permits it; many systems begin with 256 or 1,024."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no such limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _OPEN_FILES if hard == resource.RLIM_INFINITY else hard
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _control_group(root: Path, name: str) -> str:
    """Content of a file of the control group of this process."""
    groups = (root / "proc/self/cgroup").read_text().splitlines()
    (own,) = (line.removeprefix("0::/") for line in groups if line.startswith("0::/"))
    return (root / "sys/fs/cgroup" / own / name).read_text()


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
