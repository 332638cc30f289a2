"""Sizes that a file declares, compared with the memory of the machine before anything is allocated."""

from __future__ import annotations

import os
import resource

from ptychonnx.runtime.errors import InputError

__all__ = ["check_memory"]


def check_memory(size: int, where: str) -> None:
    """Refuse `size` bytes that exceed half of the memory of the machine, or of the process if that is limited.

    Raises InputError with `where` (file and key) at the beginning of the message.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        memory = min(memory, limit)
    if size > memory / 2:
        raise InputError(
            f"{where} declares {size / 2**30:.3g} GiB, expected at most half of this machine's {memory / 2**30:.3g} GiB"
        )
