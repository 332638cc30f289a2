"""A probe in a file of its own: NPZ with `probe`, complex [modes, N, N] or [N, N], of any power."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.npz import complex_array, is_archive, open_archive
from ptychonnx.runtime.paths import StrPath

__all__ = ["read_probe"]


def read_probe(path: StrPath) -> NDArray[np.complex64]:
    """Read a probe, complex64 [modes, N, N].

    Raises
    ------
    InputError
        If the file is missing, damaged, or holds no probe.
    """
    path = Path(path)
    if not path.is_file() or not is_archive(path):
        raise InputError(f"{path}: no NPZ file, expected one with 'probe' complex [modes, N, N]")
    with open_archive(path) as archive:
        probe = complex_array(archive, "probe", "complex [modes, N, N]")
    return probe[None] if probe.ndim == 2 else probe
