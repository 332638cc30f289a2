"""Measured amplitudes of a known object, with the noise of counting photons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.scan.forward_model import cut_windows, forward

__all__ = ["measure"]

_CHUNK = 256


def measure(
    image: NDArray[np.complexfloating],
    positions: NDArray[np.float64],
    probe: NDArray[np.complexfloating],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Amplitudes float32 [n, N, N] of an object at positions [n, 2], for a probe [modes, N, N] in sqrt(photons)."""
    size = probe.shape[-1]
    amplitude = np.empty((len(positions), size, size), dtype=np.float32)
    for start in range(0, len(positions), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        expected = forward(cut_windows(image, positions[chunk], size), probe) ** 2
        amplitude[chunk] = np.sqrt(rng.poisson(expected))
    return amplitude
