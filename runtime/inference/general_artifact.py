"""The general network of the zoo for a scan of which no network was named."""

from __future__ import annotations

import re
from pathlib import Path

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.artifact_path import zoo_names, zoo_path
from ptychonnx.runtime.scan import Scan

__all__ = ["general_artifact"]

_NAME = re.compile(r"any_(\d+)")


def general_artifact(scan: Scan) -> Path:
    """Path of the general network of the zoo for patterns of the scan's size.

    Raises
    ------
    InputError
        If the zoo has none of this size.
    """
    sizes = {int(match[1]): name for name in zoo_names() if (match := _NAME.fullmatch(name))}
    if scan.size in sizes:
        return zoo_path(sizes[scan.size])
    if not sizes:
        raise InputError(
            f"{scan.name}: no artifact is named, and this zoo has no general network to take instead: name one, "
            "such as an artifact of your own"
        )
    known = " and ".join(f"{size} x {size}" for size in sorted(sizes))
    raise InputError(
        f"{scan.name}: patterns are {scan.size} x {scan.size} pixels, and the zoo has general networks for {known}: "
        "name an artifact, or change the patterns with --crop or --rebin"
    )
