"""The growing object in tiles."""

from __future__ import annotations

import numpy as np

from ptychonnx.runtime.live.growing_object import TILE, GrowingObject


def test_tiles_stay_where_they_are_when_the_canvas_grows() -> None:
    rng = np.random.default_rng(0)
    growing = GrowingObject(np.ones((32, 32)), synchronise=False)
    patch = (rng.normal(size=(1, 32, 32)) + 1j * rng.normal(size=(1, 32, 32))).astype(np.complex64)
    growing.add(patch, np.array([[80.0, 80.0]]))
    # Pixels 64 to 95 in either direction.
    assert growing.changed(-1) == [(1, 1)]
    before, version = growing.tile(1, 1), growing.version
    np.testing.assert_allclose(before[:32, :32], patch[0], rtol=1e-6)
    assert np.isnan(before[32:]).all()
    growing.add(patch, np.array([[-300.0, 900.0]]))
    # Rows -316 to -285, columns 884 to 915.
    assert sorted(growing.changed(version)) == [(-5, 13), (-5, 14)]
    np.testing.assert_array_equal(growing.tile(1, 1), before)
    left, right = growing.tile(-5, 13), growing.tile(-5, 14)
    both = np.concatenate([left, right], axis=1)
    np.testing.assert_allclose(both[4:36, 52:84], patch[0], rtol=1e-6)
    assert np.isfinite(both).sum() == patch.size


def test_a_coarse_tile_has_every_second_pixel() -> None:
    rng = np.random.default_rng(0)
    growing = GrowingObject(np.ones((200, 200)), synchronise=False)
    patch = rng.normal(size=(1, 200, 200)).astype(np.complex64)
    # The canvas begins at an odd pixel, left of the origin.
    growing.add(patch, np.array([[97.0, 97.0]]))
    fine = np.block([[growing.tile(row, column) for column in (-1, 0, 1, 2, 3)] for row in (-1, 0, 1, 2, 3)])
    coarse = np.block([[growing.tile(row, column, 2) for column in (-1, 0, 1)] for row in (-1, 0, 1)])
    np.testing.assert_array_equal(coarse[TILE // 2 :, TILE // 2 :][:160, :160], fine[::2, ::2])
    assert np.isfinite(fine).sum() == 200**2


def test_patches_are_rotated_to_the_object_so_far() -> None:
    rng = np.random.default_rng(3)
    truth = np.exp(1j * rng.uniform(0, 1, (60, 60)))
    corners = np.array([(row, column) for row in range(0, 32, 8) for column in range(0, 32, 8)])
    phases = np.exp(2j * np.pi * rng.random(len(corners)))
    patches = np.array(
        [phase * truth[r : r + 32, c : c + 32] for phase, (r, c) in zip(phases, corners, strict=True)]
    )
    errors = {}
    for synchronise in (True, False):
        growing = GrowingObject(np.ones((32, 32)), synchronise=synchronise)
        for part in (slice(5), slice(5, 16)):
            growing.add(patches[part].astype(np.complex64), corners[part] + 16.0)
        seen = growing.window(corners[0] + 16.0)
        errors[synchronise] = np.abs(seen / phases[0] - truth[:32, :32]).max()
    assert errors[True] < 1e-5
    assert errors[False] > 0.1
