"""Complex numbers of files in single precision; values beyond its range are refused instead of becoming infinite."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError

__all__ = ["in_single_precision", "of_polar", "of_two_fields"]


def in_single_precision(
    values: NDArray, where: str, expected: str = "complex numbers"
) -> NDArray[np.complex64]:
    """Numbers as complex64; NaN and infinities stay, for `Scan` to refuse.

    Raises InputError if they are no numbers, or one is beyond the range of float32; `where` (file and key) begins the
    message.
    """
    if values.dtype.kind not in "cfiu":
        raise InputError(f"{where} is {values.dtype}, expected {expected}")
    with np.errstate(over="ignore", invalid="ignore"):
        single = values.astype(np.complex64)
    if np.isinf(single).any() and np.isfinite(values).all():
        raise InputError(
            f"{where} holds values up to {np.abs(values).max():.3g}, expected at most {np.finfo(np.float32).max:.3g}"
        )
    return single


def of_two_fields(values: NDArray, where: str) -> NDArray[np.complex64]:
    """Complex numbers of MATLAB, which have the fields `real` and `imag`.

    Raises InputError as `in_single_precision`.
    """
    parts = {name: in_single_precision(values[name], f"{where}: {name}").real for name in ("real", "imag")}
    numbers = np.empty(values.shape, np.complex64)
    numbers.real, numbers.imag = parts["real"], parts["imag"]
    return numbers


def of_polar(amplitude: NDArray, phase: NDArray, where: str) -> NDArray[np.complex64]:
    """Complex numbers from amplitude and phase in rad; those of an infinite phase are NaN.

    Raises InputError as `in_single_precision`.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return in_single_precision(amplitude * np.exp(1j * phase), where)
