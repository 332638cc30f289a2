"""Canvases that are kept in tiles: chosen by size, bounded in memory, refused in time where tiles do not do."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import EnvironmentFailure, InputError
from ptychonnx.runtime.reconstruction.stitching import (
    Stitched,
    StitchedTiles,
    Stitcher,
    canvas_memory,
    check_whole,
)
from ptychonnx.runtime.reconstruction.stitching import stitcher as stitcher_module
from ptychonnx.runtime.reconstruction.stitching.canvas import (
    BYTES_PER_PIXEL,
    Canvas,
    PlacedPatches,
    TiledCanvas,
)

SIZE = 32


def scattered(n: int, side: int) -> np.ndarray:
    return np.random.default_rng(4).uniform(0, side, (n, 2))


def test_the_size_of_the_canvas_chooses():
    positions = scattered(50, 300)
    rows, columns = Stitcher(positions, np.ones((SIZE, SIZE))).result().shape
    needed = rows * columns * BYTES_PER_PIXEL
    assert isinstance(Stitcher(positions, np.ones((SIZE, SIZE)), memory=needed).result(), Stitched)
    assert isinstance(Stitcher(positions, np.ones((SIZE, SIZE)), memory=needed - 1).result(), StitchedTiles)
    check_whole(positions, SIZE, needed, "o.npz: takes the whole object")
    with pytest.raises(InputError, match=rf"o\.npz: takes .* canvas of {rows} x {columns} pixels is kept in"):
        check_whole(positions, SIZE, needed - 1, "o.npz: takes the whole object")
    assert 2**27 < canvas_memory() < 2**50


def test_tiles_come_back_from_the_disk_whatever_the_order():
    positions = scattered(200, 300)
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(200, SIZE, SIZE)) + 1j * rng.normal(size=(200, SIZE, SIZE))
    weight = rng.random((SIZE, SIZE))
    whole = Stitcher(positions, weight)
    # One tile in memory: nearly every patch pushes one out.
    tiled = Stitcher(positions, weight, memory=1, tile=40)
    for stitcher in (whole, tiled):
        stitcher.add(patches[:120], positions[:120])
        if stitcher is tiled:
            half = list(tiled.result().blocks())
            assert max(block.weight.max() for block in half) > 0
        stitcher.add(patches[120:], positions[120:])
    expected, found = whole.result(), tiled.result()
    assert found.shape == expected.shape
    for _ in range(2):
        pixels = 0
        for block in list(found.blocks()):
            np.testing.assert_array_equal(block.object, expected.object[block.rows, block.columns])
            np.testing.assert_array_equal(block.weight, expected.weight[block.rows, block.columns])
            pixels += np.count_nonzero(block.weight)
        assert pixels == np.count_nonzero(expected.weight)
    for attribute in ("object", "weight", "covered"):
        with pytest.raises(InputError, match="kept in tiles"):
            getattr(found, attribute)


def test_sums_of_a_ring_take_the_tiles_that_it_reaches(monkeypatch):
    monkeypatch.setattr(stitcher_module, "_SMALL", 0)
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 400)
    ring = 600 * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    weight, patches = rng.random((SIZE, SIZE)), rng.normal(size=(400, SIZE, 2 * SIZE)).view(complex)
    objects = []
    for sparse, kind in ((False, Canvas), (True, TiledCanvas)):
        segment, whole = Stitcher(ring, weight, sparse=sparse, tile=32), Stitcher(ring, weight)
        assert isinstance(segment._canvas, kind)
        segment.add(patches, ring)
        whole.add_sums(segment.sums())
        objects.append(whole.result().object.tobytes())
    assert objects[0] == objects[1]
    # In memory, since that was allowed, and less than a third of the canvas.
    assert segment._canvas.disk_bytes == 0
    assert 3 * segment._canvas.all_bytes < BYTES_PER_PIXEL * np.prod(whole.result().object.shape)
    disc = ring * np.sqrt(np.linspace(0, 1, len(ring)))[:, None]
    assert isinstance(Stitcher(disc, weight, sparse=True, tile=32)._canvas, Canvas)


def test_a_patch_outside_the_canvas_is_refused():
    for memory in (None, 1):
        stitcher = Stitcher(np.array([[0.0, 0.0], [10.0, 10.0]]), np.ones((SIZE, SIZE)), memory=memory)
        for outside in ([-1.0, 0.0], [0.0, 12.0]):
            with pytest.raises(InputError, match="outside the canvas"):
                stitcher.add(np.ones((1, SIZE, SIZE), complex), np.array([outside]))


def test_a_disk_that_is_too_small_is_found_before_any_work(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=30 * 2**20))
    near, far = scattered(400, 300), scattered(400, 3000)
    Stitcher(near, np.ones((SIZE, SIZE)), memory=1)
    with pytest.raises(
        EnvironmentFailure,
        match=r"0\.2 GB .* the canvas of 3\d\d\d x 3\d\d\d pixels, and 0\.0 GB are free: set TMPDIR",
    ):
        Stitcher(far, np.ones((SIZE, SIZE)), memory=1)


def test_a_disk_that_fills_up_gives_one_line(monkeypatch):
    corners = np.array([[0, 0], [500, 500]])
    patch, weight, here = np.ones((1, 8, 8), np.complex64), np.ones((8, 8)), np.zeros((1, 2))
    canvas = TiledCanvas(1000, 1000, 1, corners, weight.shape, side=64)
    assert canvas.disk_bytes == 2 * 64**2 * BYTES_PER_PIXEL
    with pytest.raises(InputError, match="a patch lies outside the canvas"):
        canvas.add(PlacedPatches(patch, np.array([[300, 300]]), here, interpolate=True), weight)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        EnvironmentFailure, match=r"cannot hold the tiles of the canvas \(No space left on device\)"
    ):
        canvas.add(PlacedPatches(patch, corners[:1], here, interpolate=True), weight)


# 5,000 x 5,000 pixels are 600 MB of sums, and 400 MB more as an object with its weight.
CHILD = """
import resource, sys
from pathlib import Path
import numpy as np
from ptychonnx.runtime.formats.writers.reconstruction_file import Product, write_product
from ptychonnx.runtime.scan.scan import Scan
from ptychonnx.runtime.reconstruction.stitching import Stitcher

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

n = 2000
positions = np.random.default_rng(0).uniform(0, 4968, (n, 2))
scan = Scan(np.broadcast_to(np.float32(1), (n, 32, 32)), positions, name="large")
batch = np.full((100, 32, 32), 0.5 - 0.5j, np.complex64)
# What compiled the loop, or loaded it, has its own peak.
warm = Stitcher(positions[:1], np.ones((32, 32)))
warm.add(batch[:1], positions[:1])
before = peak()
stitcher = Stitcher(positions, np.ones((32, 32)), memory=int(sys.argv[2]))
for start in range(0, n, 100):
    stitcher.add(batch, positions[start : start + 100])
write_product(Path(sys.argv[1]), Product(stitcher.result(), scan, "uniform", "{}"))
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
@pytest.mark.parametrize("name", ["o.h5", "o.cxi"])
def test_the_peak_of_memory_is_bounded_from_patches_to_the_file(tmp_path, name):
    path, allowed = tmp_path / name, 48 * 2**20
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(allowed)], capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 0, child.stderr
    # Buffers of the stitcher, one tile on its way, and what HDF5 needs.
    assert int(child.stdout) < allowed + 24 * 2**20
    with h5py.File(path) as file:
        image, weight = (
            (file["object"], file["weight"])
            if name == "o.h5"
            else (file["entry_1/image_2/data"], file["entry_1/ptychonnx/weight"])
        )
        assert min(image.shape) > 4950
        some = image[2000:2600, 1000:1600][weight[2000:2600, 1000:1600] > 0]
        assert some.size > 10000
        np.testing.assert_allclose(some, 0.5 - 0.5j, rtol=1e-6)
