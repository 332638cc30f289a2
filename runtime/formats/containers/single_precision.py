"""Complex numbers of files in single precision; values beyond its range are refused instead of becoming infinite."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError

__all__ = ["in_single_precision"]


def in_single_precision(values: NDArray, where: str) -> NDArray[np.complex64]:
    """Numbers as complex64; NaN and infinities stay, for `Scan` to refuse.

    Raises InputError if a value is beyond the range of float32; `where` (file and key) begins the message.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        single = values.astype(np.complex64)
    if np.isinf(single).any() and np.isfinite(values).all():
        raise InputError(
            f"{where} holds values up to {np.abs(values).max():.3g}, expected at most {np.finfo(np.float32).max:.3g}"
        )
    return single
