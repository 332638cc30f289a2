"""How a thread treats denormal numbers, which are many times slower than others on Intel processors.

onnxruntime flushes them to zero in the threads that it starts, and for good in the thread that makes the first session
of a process: NumPy there would lose numbers below 1.2e-38 too. So the thread of the caller gets its state back after a
session is made, and flushes denormal numbers only while it runs one.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["floating_point_kept"]

# More than `fenv_t` takes on any platform.
_BYTES = 64
# Offset in glibc's `fenv_t` of the register of SSE or NEON, and its bits that flush results and operands to zero.
_REGISTERS = {"x86_64": (28, 0x8040), "aarch64": (0, 1 << 24)}
_REGISTER = _REGISTERS.get(platform.machine()) if sys.platform == "linux" else None


@contextmanager
def floating_point_kept(*, flushed: bool = False) -> Iterator[None]:
    """Give the calling thread its treatment of rounding and denormal numbers back at the end.

    `flushed`: whether denormal numbers are flushed to zero meanwhile, also in threads that start then. Only on Linux,
    on x86-64 and 64-bit ARM.
    """
    library = _mathematics()
    kept = ctypes.create_string_buffer(_BYTES)
    if library is None or library.fegetenv(kept):
        yield
        return
    try:
        if flushed and _REGISTER is not None:
            offset, bits = _REGISTER
            state = ctypes.create_string_buffer(kept.raw, _BYTES)
            ctypes.c_uint32.from_buffer(state, offset).value |= bits
            library.fesetenv(state)
        yield
    finally:
        library.fesetenv(kept)


@cache
def _mathematics() -> ctypes.PyDLL | None:
    """The C library's functions of the floating-point environment, if the interpreter is linked with them."""
    try:
        # They take less time than to let another thread run.
        library = ctypes.PyDLL(None)
        return library if library.fegetenv and library.fesetenv else None
    except (AttributeError, OSError, TypeError):
        return None
