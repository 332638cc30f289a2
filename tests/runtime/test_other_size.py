"""Patterns of another size than they were measured with: the same object explains them, on pixels of another size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.formats.conversion.other_size import with_pattern_size
from ptychonnx.runtime.formats.conversion.probe_window import resampled_probe
from ptychonnx.runtime.reconstruction.misfit import forward_misfit
from ptychonnx.runtime.reconstruction.stitching import Stitched
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward

N = 32


@pytest.fixture(scope="module")
def smooth() -> tuple[Scan, np.ndarray]:
    """A scan without noise of a periodic object whose frequencies all pass a detector of a quarter of the side."""
    rng = np.random.default_rng(2)
    spectrum = np.zeros((4 * N, 4 * N), complex)
    spectrum[:5, :5] = rng.normal(size=(5, 5)) + 1j * rng.normal(size=(5, 5))
    waves = np.fft.ifft2(spectrum)
    image = np.exp(0.8j * waves.real / np.abs(waves).max()).astype(np.complex64)
    config = LinesConfig(n=N, step=4, probe="disk", train_grid=4, photons=1e6)
    axis = np.arange(N) - N // 2
    probe = np.exp(-(axis[:, None] ** 2 + axis**2) / 9).astype(np.complex64)[None]
    probe *= np.float32(1e3 / np.linalg.norm(probe))
    scan = simulate_scan(config, 4, np.random.SeedSequence(1), "smooth")
    positions = scan.positions + N
    amplitudes = forward(cut_windows(image, positions, N), probe).astype(np.float32)
    return replace(scan, diffraction=amplitudes, positions=positions, probe=probe, reference=None), image


@pytest.mark.parametrize("size", [16, 24, 40, 64])
def test_the_object_on_the_pixels_of_other_patterns_explains_them(smooth, size):
    scan, image = smooth
    other, line = with_pattern_size(scan, size)
    assert other.diffraction.shape == (len(scan), size, size)
    whole = round(len(image) * scan.pixel_size / other.pixel_size)
    resampled = resampled_probe(image[None], whole)[0] * (whole / len(image))
    truth = Stitched(resampled.astype(np.complex64), np.ones(resampled.shape), (0.0, 0.0))
    misfit = forward_misfit(other, truth)
    # A bin measures the sum of its pixels, which the model takes for as many times its middle.
    assert misfit.value < (0.05 if "binned" in line else 0.02)
    assert misfit.vacuum > 0.1
    assert f"{size} x {size}" in line


def test_larger_patterns_are_binned_only_if_the_light_fits_into_the_smaller_window(smooth):
    scan, _ = smooth
    assert "binned by 2 to 16 x 16" in with_pattern_size(scan, 16)[1]
    apart = np.abs(np.roll(scan.probe, 10, axis=1))
    moved, line = with_pattern_size(replace(scan, probe=apart), 16)
    assert "cropped to 16 x 16" in line
    assert moved.pixel_size == pytest.approx(2 * scan.pixel_size)


def test_the_border_of_padded_patterns_is_not_valid(smooth):
    scan, _ = smooth
    padded, _ = with_pattern_size(scan, 40)
    assert padded.mask.sum() == N**2
    assert not padded.diffraction[:][:, ~padded.mask].any()
    assert np.array_equal(padded.diffraction[3][padded.mask].reshape(N, N), scan.diffraction[3])
