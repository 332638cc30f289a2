"""Densities of simulated specimens: pairs of images in [0, 1], [rows, columns], what absorbs and what retards.

Natural images are photographs that scikit-image installs with itself; nothing is downloaded.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom
from scipy.spatial import KDTree
from skimage import data
from skimage.color import rgb2gray
from skimage.draw import line_aa
from skimage.filters import gaussian
from skimage.util import img_as_float64

# Each is a kind of object.
__all__ = [
    "cells",
    "circuits",
    "grains",
    "labyrinth",
    "leaves",
    "lines",
    "natural",
    "photographs",
    "smooth",
    "spheres",
    "spokes",
    "star",
]

Densities = tuple[NDArray[np.float64], NDArray[np.float64]]

# Dense enough that every window contains several lines, whatever the size of the canvas.
_PIXELS_PER_LINE = 300
_LENGTHS = (20.0, 100.0)
_PIXELS_PER_CELL = 500
_RADII = (6.0, 20.0)
_SPOKES = 36
_PIXELS_PER_GRAIN = 260
_PIXELS_PER_SPHERE = 220
_PIXELS_PER_LEAF = 90
_PIXELS_PER_STAR = 22_500
_NATURAL = ("brick", "grass", "gravel", "coins", "moon", "coffee", "chelsea", "cell")
_PHOTOGRAPHS = ("astronaut", "camera", "rocket")


def lines(shape: tuple[int, int], rng: np.random.Generator) -> Densities:
    """Random straight lines, drawn independently for what absorbs and what retards."""
    return _strokes(shape, rng), _strokes(shape, rng)


def cells(shape: tuple[int, int], rng: np.random.Generator) -> Densities:
    """Overlapping rounded bodies of random size with denser cores.

    The bodies are smooth inside and have curved edges. Each absorbs and retards in a random proportion.
    """
    thickness, absorbing = np.zeros(shape), np.zeros(shape)
    rows, columns = np.indices(shape, dtype=np.float64)
    for _ in range(int(shape[0] * shape[1] / _PIXELS_PER_CELL)):
        row, column = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        angle, long, short = rng.uniform(0, np.pi), rng.uniform(*_RADII), rng.uniform(*_RADII)
        along = (rows - row) * np.sin(angle) + (columns - column) * np.cos(angle)
        across = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
        squared = (along / long) ** 2 + (across / short) ** 2
        body = np.sqrt(np.clip(1 - squared, 0, 1)) + np.sqrt(np.clip(1 - 9 * squared, 0, 1))
        thickness += rng.uniform(0.3, 1.0) * body
        absorbing += rng.uniform(0.0, 1.0) * body
    return _scaled(absorbing), _scaled(thickness)


def star(shape: tuple[int, int], rng: np.random.Generator) -> Densities:
    """A Siemens star of one material on the whole canvas, randomly rotated."""
    rows, columns = np.indices(shape, dtype=np.float64)
    row, column = rows - (shape[0] - 1) / 2, columns - (shape[1] - 1) / 2
    spokes = np.sin(_SPOKES * np.arctan2(row, column) + rng.uniform(0, 2 * np.pi)) > 0
    gold = _blurred(spokes.astype(np.float64))
    return gold, gold


def grains(shape: tuple[int, int], rng: np.random.Generator) -> Densities:
    """A polycrystal: Voronoi cells of constant density with narrow boundaries, and little absorption contrast."""
    centres = rng.uniform(0, 1, (int(shape[0] * shape[1] / _PIXELS_PER_GRAIN) + 2, 2)) * shape
    pixels = np.argwhere(np.ones(shape, dtype=bool))
    distances, index = KDTree(centres).query(pixels, 2)
    boundary = (distances[:, 1] - distances[:, 0] < 1.5).reshape(shape)
    absorbing, retarding = (rng.uniform(0, 1, len(centres))[index[:, 0]].reshape(shape) for _ in range(2))
    absorbing = np.where(boundary, 1.0, 0.6 * absorbing)
    return _blurred(absorbing), _blurred(np.where(boundary, 0.0, retarding))


def circuits(shape: tuple[int, int], rng: np.random.Generator) -> Densities:
    """An integrated circuit of one metal: layers of parallel wires along either axis, with gaps, and square vias."""
    metal = np.zeros(shape)
    for layer in range(2):
        wires = np.zeros(shape if layer else shape[::-1])
        row = int(rng.integers(0, 6))
        while row < wires.shape[0]:
            width = int(rng.integers(2, 8))
            start = -int(rng.integers(0, 40))
            while start < wires.shape[1]:
                length = int(rng.integers(15, 120))
                wires[row : row + width, max(start, 0) : max(start + length, 0)] = 1
                start += length + int(rng.integers(3, 40))
            row += width + int(rng.integers(3, 14))
        metal += rng.uniform(0.3, 0.5) * (wires if layer else wires.T)
    for _ in range(shape[0] * shape[1] // 1200):
        row, column = (int(rng.integers(0, extent)) for extent in shape)
        metal[row : row + 5, column : column + 5] += 0.4
    metal = _blurred(np.clip(metal, 0, 1))
    return metal, metal


def spokes(shape: tuple[int, int], rng: np.random.Generator) -> Densities:
    """Siemens stars of one material with different numbers of spokes; each pixel belongs to the nearest star."""
    count = max(1, round(shape[0] * shape[1] / _PIXELS_PER_STAR))
    centres = rng.uniform(0, 1, (count, 2)) * shape
    pixels = np.argwhere(np.ones(shape, dtype=bool))
    index = KDTree(centres).query(pixels)[1]
    row, column = (pixels - centres[index]).T
    number, rotation = rng.integers(8, 40, count)[index], rng.uniform(0, 2 * np.pi, count)[index]
    gold = np.sin(number * np.arctan2(row, column) + rotation) > 0
    density = _blurred(gold.reshape(shape).astype(np.float64))
    return density, density


def smooth(shape: tuple[int, int], rng: np.random.Generator) -> Densities:
    """Two independent random fields with power spectra k^-3 to k^-4, like those of smooth natural images."""
    return _field(shape, rng.uniform(1.5, 2.0), rng), _field(shape, rng.uniform(1.5, 2.0), rng)


def natural(shape: tuple[int, int], rng: np.random.Generator) -> Densities:
    """Two photographs of textures and things, cropped, scaled and flipped at random."""
    first, second = rng.choice(_NATURAL, 2, replace=False)
    return _crop(str(first), shape, rng), _crop(str(second), shape, rng)


def photographs(shape: tuple[int, int], rng: np.random.Generator) -> Densities:
    """As `natural`, from photographs of people and landscapes that it does not use."""
    first, second = rng.choice(_PHOTOGRAPHS, 2, replace=False)
    return _crop(str(first), shape, rng), _crop(str(second), shape, rng)


def spheres(shape: tuple[int, int], rng: np.random.Generator) -> Densities:
    """Balls of one material and of many sizes, whose projected thicknesses add."""
    thickness = np.zeros(shape)
    for _ in range(int(shape[0] * shape[1] / _PIXELS_PER_SPHERE)):
        centre, radius = rng.uniform(0, 1, 2) * shape, np.exp(rng.uniform(np.log(2.5), np.log(12)))
        window, squared = _around(shape, centre, radius)
        thickness[window] += np.sqrt(np.clip(radius**2 - squared, 0, None))
    thickness = _scaled(thickness)
    return thickness, thickness


def labyrinth(shape: tuple[int, int], rng: np.random.Generator) -> Densities:
    """Domains of two phases with winding boundaries: the sign of noise in a narrow band of frequencies."""
    period = rng.uniform(7.0, 14.0)
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])
    band = np.exp(-0.5 * ((np.hypot(rows, columns) * period - 1) / 0.15) ** 2)
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=shape)) * band).real
    domains = _blurred((noise > 0).astype(np.float64))
    return 0.5 * domains, domains


def leaves(shape: tuple[int, int], rng: np.random.Generator) -> Densities:
    """Dead leaves: opaque disks of random size and density that hide each other, with the statistics of scenes."""
    absorbing, retarding = np.zeros(shape), np.zeros(shape)
    for _ in range(int(shape[0] * shape[1] / _PIXELS_PER_LEAF)):
        centre, radius = rng.uniform(0, 1, 2) * shape, 3 / np.sqrt(rng.uniform(0.02, 1))
        window, squared = _around(shape, centre, radius)
        inside = squared < radius**2
        absorbing[window][inside], retarding[window][inside] = rng.uniform(0, 1, 2)
    return _blurred(absorbing), _blurred(retarding)


def _strokes(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Anti-aliased lines of random width and density, slightly blurred, scaled to [0, 1]."""
    canvas = np.zeros(shape)
    for _ in range(int(shape[0] * shape[1] / _PIXELS_PER_LINE)):
        length = rng.uniform(*_LENGTHS)
        angle = rng.uniform(0, np.pi)
        row, column = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        width, density = int(rng.integers(1, 5)), rng.uniform(0.3, 1.0)
        half = length / 2 * np.array([np.sin(angle), np.cos(angle)])
        across = np.array([np.cos(angle), -np.sin(angle)])
        stroke = np.zeros(shape)
        for offset in np.arange(width) - (width - 1) / 2:
            (r0, c0), (r1, c1) = (np.array([row, column]) + offset * across + sign * half for sign in (-1, 1))
            rows, columns, value = line_aa(*(round(float(v)) for v in (r0, c0, r1, c1)))
            inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
            np.maximum.at(stroke, (rows[inside], columns[inside]), value[inside])
        canvas += density * stroke
    return _scaled(canvas)


def _around(
    shape: tuple[int, int], centre: NDArray[np.float64], radius: float
) -> tuple[tuple[slice, slice], NDArray[np.float64]]:
    """The part of the canvas near a disk, and the squared distance of its pixels from the centre."""
    low = np.maximum(np.floor(centre - radius).astype(int), 0)
    high = np.minimum(np.ceil(centre + radius).astype(int) + 1, shape)
    row, column = np.arange(low[0], high[0]) - centre[0], np.arange(low[1], high[1]) - centre[1]
    return np.s_[low[0] : high[0], low[1] : high[1]], row[:, None] ** 2 + column**2


def _field(shape: tuple[int, int], slope: float, rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])
    k = np.hypot(rows, columns)
    k[0, 0] = np.inf
    # No period is longer than about a hundred pixels, so that every window has contrast.
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=shape)) * np.maximum(k, 0.01) ** -slope).real
    low, high = np.quantile(field, (0.01, 0.99))
    return np.clip((field - low) / (high - low), 0, 1)


@cache
def _photograph(name: str) -> NDArray[np.float64]:
    image = getattr(data, name)()
    return rgb2gray(image) if image.ndim == 3 else img_as_float64(image)


def _crop(name: str, shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """A photograph as large as the canvas, mirrored at its borders where it is smaller, with a scale of its own."""
    image = zoom(_photograph(name), rng.uniform(0.5, 1.0), order=1)
    image = np.rot90(image, int(rng.integers(4)))[:: rng.choice((-1, 1))]
    row, column = (int(rng.integers(0, extent)) for extent in image.shape)
    rows, columns = (
        _mirrored(start + np.arange(size), extent)
        for start, size, extent in zip((row, column), shape, image.shape, strict=True)
    )
    part = image[rows[:, None], columns]
    low, high = np.quantile(part, (0.005, 0.995))
    return _blurred(np.clip((part - low) / max(high - low, 1e-3), 0, 1), 0.7)


def _mirrored(index: NDArray[np.integer], extent: int) -> NDArray[np.integer]:
    index = index % (2 * extent)
    return np.minimum(index, 2 * extent - 1 - index)


def _blurred(density: NDArray[np.float64], sigma: float = 1.0) -> NDArray[np.float64]:
    return gaussian(density, sigma=sigma, preserve_range=True)


def _scaled(density: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slightly blurred, and scaled to [0, 1]."""
    blurred = _blurred(density)
    return np.clip(blurred / np.quantile(blurred, 0.999), 0, 1)
