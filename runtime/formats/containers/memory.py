"""Sizes that a file declares, compared with the memory of the machine before anything is allocated."""

from __future__ import annotations

import os

from ptychonnx.runtime.errors import InputError

__all__ = ["check_memory"]


def check_memory(size: int, where: str) -> None:
    """Refuse `size` bytes that exceed the memory of the machine.

    Raises
    ------
    InputError
        With `where` (file and key) at the beginning of the message.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        raise InputError(
            f"{where} declares {size / 2**30:.3g} GiB, expected at most the {memory / 2**30:.3g} GiB of this machine"
        )
