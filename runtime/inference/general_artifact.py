"""The general network of the zoo for a scan of which no network was named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.artifact_path import zoo_names, zoo_path
from ptychonnx.runtime.scan import Scan

__all__ = ["general_artifact"]

_NAME = re.compile(r"any_(\d+)(?:_grid(\d))?")


def general_artifact(scan: Scan, *, any_size: bool = False) -> Path:
    """Path of the general network of the zoo for patterns of the scan's size.

    Networks of several neighbouring patterns reconstruct better than those of one, and are taken if the scan has
    as many.

    Parameters
    ----------
    any_size
        Take the network of the nearest size if there is none of this size.

    Raises
    ------
    InputError
        If the zoo has none of this size, unless `any_size`, or no general network at all.
    """
    matches = [match for name in zoo_names() if (match := _NAME.fullmatch(name))]
    members = {match[0]: int(match[2] or 1) ** 2 for match in matches}
    fitting = [match for match in matches if members[match[0]] <= len(scan.positions)]
    sizes = {int(match[1]): match[0] for match in sorted(fitting, key=lambda match: members[match[0]])}
    if not sizes:
        raise InputError(
            f"{scan.name}: no artifact is named, and this zoo has no general network to take instead: name one, "
            "such as an artifact of your own"
        )
    nearest = min(sizes, key=lambda size: abs(np.log(size / scan.size)))
    if scan.size == nearest or any_size:
        return zoo_path(sizes[nearest])
    known = " and ".join(f"{size} x {size}" for size in sorted(sizes))
    raise InputError(
        f"{scan.name}: patterns are {scan.size} x {scan.size} pixels, and the zoo has general networks for {known}: "
        f"name an artifact, or allow {_changes(scan.size, nearest)}"
    )


def _changes(size: int, nearest: int) -> str:
    """The options that make patterns of the network's size."""
    if size < nearest:
        return f"patterns that are padded to {nearest} x {nearest}: --fit-patterns"
    by_hand = f"--crop {nearest}"
    if size % nearest == 0:
        by_hand += f" or --rebin {size // nearest}"
    return f"patterns of {nearest} x {nearest}: --fit-patterns, {by_hand}"
