"""Copies of the command that Lightning starts for further devices."""

from __future__ import annotations

import os

__all__ = ["helps_another_process"]


def helps_another_process() -> bool:
    """Whether Lightning started this process, as a copy of the command, for another device."""
    return os.environ.get("LOCAL_RANK", "0") != "0"
