"""Paths as callers write them."""

from __future__ import annotations

import os

__all__ = ["StrPath"]

StrPath = str | os.PathLike[str]
