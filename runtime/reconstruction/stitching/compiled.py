"""Functions that numba compiles to machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

__all__ = ["compiled"]


def compiled(function: Callable[..., None]) -> Any:
    """Compiled when it is first called, and kept for the next process where there is a folder for that.

    Other threads run while it runs. Indices are not checked.
    """
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # numba found none
        return njit(nogil=True, error_model="numpy")(function)
