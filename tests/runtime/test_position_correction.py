"""Positions that a scan states wrongly are corrected by the patches of the network, and right ones are left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.artifact_path import zoo_path
from ptychonnx.runtime.reconstruction.position_correction import reconstruct_with_positions
from ptychonnx.runtime.reconstruction.position_shifts import position_shifts
from ptychonnx.runtime.scan import Scan

SIZE, STEP, GRID = 32, 6, 7


def rms(shifts):
    centred = shifts - shifts.mean(axis=0)
    return float(np.sqrt(np.mean(np.sum(centred**2, axis=1))))


@pytest.fixture(scope="module")
def scan():
    """A raster with an overlap of 60 %, without patterns."""
    side = np.arange(SIZE) - SIZE // 2
    probe = np.exp(-(side[:, None] ** 2 + side**2) / 60).astype(np.complex64)[None]
    axis = 30 + STEP * np.arange(GRID)
    positions = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    positions = positions + np.random.default_rng(5).uniform(-1, 1, positions.shape)
    return Scan(np.ones((GRID**2, SIZE, SIZE), np.float32), positions, probe)


@pytest.fixture(scope="module")
def windows():
    """Windows of one object at any positions, each with a phase of its own as a network has it."""
    random = np.random.default_rng(0)
    fields = [gaussian_filter(random.normal(size=(100, 100)), 1.5) for _ in range(2)]
    absorbing, retarding = (field / np.abs(field).max() for field in fields)
    image = (1 - 0.4 * np.abs(absorbing)) * np.exp(2j * retarding)

    def cut(positions):
        grid = np.indices((SIZE, SIZE)) - SIZE // 2
        patches = []
        for position, phase in zip(positions, random.uniform(0, 6, len(positions)), strict=True):
            at = grid + position[:, None, None]
            values = map_coordinates(image.real, at) + 1j * map_coordinates(image.imag, at)
            patches.append(values * np.exp(1j * phase))
        return np.array(patches, np.complex64)

    return cut


def test_random_errors_of_two_pixels_are_found_to_a_tenth(scan, windows):
    errors = np.random.default_rng(1).normal(size=scan.positions.shape)
    errors *= 2 / rms(errors)
    shifts = position_shifts(scan, windows(scan.positions + errors))
    assert rms(shifts - errors) < 0.1
    np.testing.assert_allclose(shifts.mean(axis=0), 0, atol=1e-9)


def test_right_positions_have_no_errors(scan, windows):
    assert rms(position_shifts(scan, windows(scan.positions))) < 0.05


def test_one_wrong_patch_moves_no_other(scan, windows):
    patches = windows(scan.positions)
    patches[24] = windows(scan.positions[:1] + 9)[0]
    shifts = position_shifts(scan, patches)
    far = np.abs(scan.positions - scan.positions[24]).max(axis=1) > 3 * STEP - 2
    assert far.any()
    assert np.hypot(*(shifts[far] - shifts[far].mean(axis=0)).T).max() < 0.2


def test_a_drift_is_a_smooth_function_of_time(scan, windows):
    time = np.linspace(0, 1, len(scan))
    drift = np.stack([5 * time**2, 2 * np.sin(3 * time)], axis=1)
    assert rms(position_shifts(scan, windows(scan.positions + drift), "drift") - drift) < 0.1
    # Errors of single positions are none.
    errors = np.random.default_rng(2).normal(size=scan.positions.shape)
    assert rms(position_shifts(scan, windows(scan.positions + errors), "drift")) < 0.7


def test_a_backlash_follows_the_direction_of_travel(scan, windows):
    # A snake: every second row goes backwards.
    rows = np.arange(len(scan)).reshape(GRID, GRID)
    rows[1::2] = rows[1::2, ::-1]
    snake = replace(scan, positions=np.round(scan.positions[rows.ravel()] / STEP) * STEP)
    backwards = np.repeat(np.arange(GRID) % 2 == 1, GRID)
    backwards[::GRID] = np.roll(backwards, 1)[::GRID]
    backlash = np.zeros(snake.positions.shape)
    backlash[:, 1] = np.where(backwards, -1.5, 1.5)
    shifts = position_shifts(snake, windows(snake.positions + backlash), "backlash")
    assert rms(shifts - backlash) < 0.1


def test_patches_without_overlap_are_refused(scan, windows):
    apart = replace(scan, positions=scan.positions * 9)
    with pytest.raises(InputError, match="no two patches overlap"):
        position_shifts(apart, windows(scan.positions))


@pytest.fixture(scope="module")
def network():
    return Session(zoo_path("any_64"), provider="cpu")


@pytest.fixture(scope="module")
def lines():
    """Lines under a zone plate at an overlap of 60 %."""
    return simulate_scan(LinesConfig(step=12), 5, np.random.SeedSequence(3), "lines")


@pytest.fixture(scope="module")
def displaced(lines):
    errors = np.random.default_rng(0).normal(size=lines.positions.shape)
    errors *= 2 / rms(errors)
    return replace(lines, positions=lines.positions - errors), errors


def test_a_network_corrects_the_positions_of_a_simulated_scan(network, displaced):
    scan, errors = displaced
    corrected, result, correction = reconstruct_with_positions(network, scan)
    assert correction.applied
    assert rms(corrected.positions - scan.positions - errors) < 0.5
    assert result.misfit.value < 0.7 * correction.misfit[0]
    assert str(correction).startswith("positions corrected (free): shifts of ")


def test_positions_without_errors_are_left_alone(network, lines):
    corrected, result, correction = reconstruct_with_positions(network, lines)
    assert not correction.applied
    assert corrected is lines
    assert result.misfit.value == correction.misfit[0]
    assert "left as recorded" in str(correction)


def test_positions_beyond_the_bound_stay(network, displaced):
    scan = displaced[0].subset(np.flatnonzero((displaced[0].positions < 75).all(axis=1)))
    assert len(scan) == 16
    corrected, _, correction = reconstruct_with_positions(network, scan, bound=1.5)
    assert correction.beyond > 0
    assert np.hypot(*(corrected.positions - scan.positions).T).max() <= 1.5


def test_a_scan_without_a_probe_is_refused(network, lines):
    with pytest.raises(InputError, match="has no probe, expected one to correct positions"):
        reconstruct_with_positions(network, replace(lines, probe=None))
