"""Measured amplitudes of a known object, with the noise of counting photons, and raster scans of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.simulate.probes import PIXEL_SIZE, WAVELENGTH
from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward

__all__ = ["measure", "simulate_raster"]

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


def simulate_raster(
    make_image: Callable[[tuple[int, int]], NDArray[np.complex64]],
    probe: NDArray[np.complex64],
    *,
    grid: int,
    step: int,
    jitter: int,
    position_rng: np.random.Generator,
    noise_rng: np.random.Generator,
    name: str,
) -> Scan:
    """Simulate a raster scan of grid x grid positions, with Poisson noise.

    * `make_image`: returns an object of the shape that the scan takes.
    * `step`, `jitter`: distance of two positions, and largest random shift of each, in pixels.
    """
    size = probe.shape[-1]
    side = size + (grid - 1) * step + 2 * jitter
    image = make_image((side, side))
    axis = size // 2 + jitter + step * np.arange(grid)
    raster = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    positions = (raster + position_rng.integers(-jitter, jitter + 1, raster.shape)).astype(np.float64)
    return Scan(
        diffraction=measure(image, positions, probe, noise_rng),
        positions=positions,
        probe=probe,
        mask=np.ones((size, size), dtype=bool),
        reference=Reference(image),
        pixel_size=PIXEL_SIZE,
        wavelength=WAVELENGTH,
        name=name,
    )
