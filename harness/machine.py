"""What a measurement was made on."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["processor", "vector_instructions"]

_INSTRUCTIONS = {
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
}


def processor() -> str:
    """Its name where the system tells, otherwise its kind."""
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def vector_instructions() -> list[str]:
    """Those that 8-bit, bfloat16 and wide kernels depend on, where the system tells."""
    return sorted(_INSTRUCTIONS & {flag for line in _cpuinfo() for flag in line.split()})


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
