"""Sizes that a file declares, compared with the memory of the machine before anything is allocated."""

from __future__ import annotations

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.machine import available_memory

__all__ = ["check_memory"]


def check_memory(size: int, where: str) -> None:
    """Refuse `size` bytes that exceed half of the memory that this process may use.

    Raises InputError with `where` (file and key) at the beginning of the message.
    """
    memory = available_memory()
    if memory is not None and size > memory / 2:
        raise InputError(
            f"{where} declares {size / 2**30:.3g} GiB, expected at most half of this machine's {memory / 2**30:.3g} GiB"
        )
