"""The compiled loops against the same written out in NumPy, and where their machine code is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptychonnx.runtime.reconstruction.stitching.canvas import Canvas, PlacedPatches
from ptychonnx.runtime.reconstruction.stitching.fourier_shift import shift

SHAPE = 9, 10
CANVAS = (20, 24)
MARGIN = 16
MOVED_AXES = {"whole": [0, 0], "rows": [1, 0], "columns": [0, 1], "both": [1, 1]}


def bilinear(image: np.ndarray, down: float, right: float) -> np.ndarray:
    """An image with its last row and column moved out; those that come in are not to be used."""
    above, left = np.roll(image, 1, axis=-2), np.roll(image, 1, axis=-1)
    corner = np.roll(above, 1, axis=-1)
    return (1 - down) * ((1 - right) * image + right * left) + down * ((1 - right) * above + right * corner)


def expected(placed: PlacedPatches, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums on a canvas with a margin, so that nothing lies outside; the margin is cut off at the end."""
    shape = tuple(n + 2 * MARGIN for n in CANVAS)
    values, weights = np.zeros(shape, complex), np.zeros(shape)
    for patch, (row, column), (down, right) in zip(
        placed.patches.astype(complex), placed.corners, placed.fractions, strict=True
    ):
        part, share = patch, bilinear(weight, down, right)
        share[: int(down > 0)] = 0
        share[:, : int(right > 0)] = 0
        if placed.interpolate:
            part = bilinear(part, down, right)
        here = tuple(slice(MARGIN + x, MARGIN + x + n) for x, n in zip((row, column), SHAPE, strict=True))
        values[here] += share * part
        weights[here] += share
    cut = (slice(MARGIN, -MARGIN),) * 2
    return values[cut], weights[cut]


@pytest.mark.parametrize("interpolate", [True, False])
@pytest.mark.parametrize("fraction", MOVED_AXES)
def test_sums_are_those_of_the_formula_wherever_patches_lie(fraction, interpolate):
    rng = np.random.default_rng(3)
    count = 60
    patches = (rng.normal(size=(count, *SHAPE, 2)) @ [1, 1j]).astype(np.complex64)
    # Some inside, some across each border, some beyond.
    corners = rng.integers(-12, 24, (count, 2))
    fractions = rng.uniform(0.01, 0.99, (count, 2)) * MOVED_AXES[fraction]
    weight = rng.random(SHAPE)
    placed = PlacedPatches(patches, corners, fractions, interpolate)
    canvas = Canvas(*CANVAS)
    canvas.add(placed, weight)
    values, weights = expected(placed, weight)
    assert (np.abs(weights) > 0).mean() > 0.95
    # Three operations in single precision for each axis, on values of up to 4 that come together five times.
    np.testing.assert_allclose(canvas.values, values, rtol=0, atol=0 if fraction == "whole" else 1e-5)
    np.testing.assert_allclose(canvas.weights, weights, rtol=1e-14, atol=0)


@pytest.mark.parametrize("size", [12, 13])
def test_fourier_placement_is_a_phase_ramp_on_the_mirrored_patch(size):
    near = [0, 1e-9, 0.3, 0.5, np.nextafter(0.5, 1), 0.8, 1 - 1e-9, np.nextafter(1, 0)]
    fractions = np.array([(d, e) for d in near for e in near])
    rng = np.random.default_rng(5)
    patches = (rng.normal(size=(len(fractions), size, size, 2)) @ [1, 1j]).astype(np.complex64)
    moved = np.empty_like(patches)
    shift(patches.view(np.float32), fractions, moved.view(np.float32))
    frequency = np.fft.fftfreq(2 * size)
    for patch, (down, right), found in zip(patches, fractions, moved, strict=True):
        modes = np.fft.fft2(np.pad(patch.astype(complex), (0, size), mode="symmetric"))
        ramp = np.exp(-2j * np.pi * (frequency[:, None] * down + frequency * right))
        np.testing.assert_allclose(found, np.fft.ifft2(modes * ramp)[:size, :size], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(moved[0], patches[0])


# The sum, the folder of the machine code, and how often it was found there.
PROGRAM = """
import numpy as np
from ptychonnx.runtime.reconstruction.stitching.canvas import Canvas, PlacedPatches
from ptychonnx.runtime.reconstruction.stitching.kernel import add_patches
canvas = Canvas(8, 8)
nowhere = np.zeros((1, 2))
canvas.add(PlacedPatches(np.ones((1, 8, 8), np.complex64), nowhere.astype(int), nowhere, True), np.ones((8, 8)))
print(canvas.values.sum().real, add_patches.stats.cache_path, sum(add_patches.stats.cache_hits.values()))
"""


ADDED_TWICE = """
import numpy as np
from ptychonnx.runtime.reconstruction.stitching import Stitcher
from ptychonnx.runtime.reconstruction.stitching.kernel import add_patches
positions = np.array([[0.0, 0.0], [3.5, 4.25]])
for _ in range(2):
    stitcher = Stitcher(positions, np.ones((8, 8)))
    before = len(add_patches.signatures)
    stitcher.add(np.ones((2, 8, 8), np.complex64), positions)
    print(before, len(add_patches.signatures))
"""


def printed(program: str, **environment: str) -> list[str]:
    """The words that a program prints in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_loop_is_compiled_before_the_first_patch_comes():
    assert printed(ADDED_TWICE) == ["1"] * 4


def test_it_runs_where_no_folder_takes_the_machine_code():
    # Of numba's places only the one inside zip archives is left, which this file is not in.
    assert printed(PROGRAM, NUMBA_CACHE_LOCATOR_CLASSES="ZipCacheLocator") == ["64.0", "None", "0"]


def test_the_next_process_finds_the_machine_code(tmp_path):
    for hits in ("0", "1"):
        value, folder, found = printed(PROGRAM, NUMBA_CACHE_DIR=str(tmp_path))
        assert value == "64.0"
        assert Path(folder).is_relative_to(tmp_path)
        assert found == hits
