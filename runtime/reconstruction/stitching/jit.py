"""Compilation to machine code by numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

__all__ = ["jit"]


def jit(function: Callable[..., None]) -> Any:
    """Compile a function at its first call, and cache the machine code on disk where possible.

    It runs without the interpreter lock, and indices are not checked.
    """
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # numba found no writable cache folder
        return njit(nogil=True, error_model="numpy")(function)
