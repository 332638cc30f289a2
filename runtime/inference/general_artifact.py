"""The general network of the zoo for a scan, if the user names no network."""

from __future__ import annotations

import re
from operator import itemgetter
from pathlib import Path

import numpy as np

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.artifact_path import zoo_names, zoo_path
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.probe_geometry import overlap_of

__all__ = ["general_artifact"]

_NAME = re.compile(r"any_(\d+)(?:_grid(\d))?")
# On six kinds of object four neighbours were better in 12 of 12 figures at 28 % and in 11 at 9 %; without overlap in 8,
# and the amplitude of four kinds was worse (docs/results/beams.md).
_LEAST_OVERLAP = 0.05


def general_artifact(scan: Scan, *, any_size: bool = False) -> Path:
    """Path of the general network of the zoo for patterns of the scan's size.

    Networks of several neighbouring patterns reconstruct better than those of one, and are taken if the scan has as
    many and its positions overlap.

    Raises InputError if the zoo has none of this size, unless `any_size`, or no general network at all.

    `any_size`: whether to take the network of the nearest size if there is none of this size.
    """
    overlap = overlap_of(scan)
    most = 1 if overlap is not None and overlap < _LEAST_OVERLAP else len(scan)
    networks = [(int(match[2] or 1) ** 2, match) for match in map(_NAME.fullmatch, zoo_names()) if match]
    sizes = {
        int(match[1]): match[0] for members, match in sorted(networks, key=itemgetter(0)) if members <= most
    }
    if not sizes:
        raise InputError(
            f"{scan.name}: no artifact is named, and this zoo has no general network to take instead: name one, "
            "such as an artifact of your own"
        )
    nearest = min(sizes, key=lambda size: abs(np.log(size / scan.size)))
    if scan.size == nearest or any_size:
        return zoo_path(sizes[nearest])
    known = ", ".join(f"{size} x {size}" for size in sorted(sizes))
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
