"""Noise that the photons of a scan leave in its object."""

from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.harness.iterative.iterations import iterate
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.reconstruction.counting_noise import counting_noise, dose
from ptychonnx.runtime.reconstruction.misfit import forward_misfit
from ptychonnx.runtime.reconstruction.stitching import Stitched

N = 32


def lines(photons: float):
    config = LinesConfig(n=N, step=4, train_grid=12, photons=photons)
    return simulate_scan(config, 12, np.random.SeedSequence(7), "lines")


def truth(scan):
    image = scan.reference.object
    return Stitched(image, np.ones(image.shape), scan.reference.origin)


def dose_of(scan):
    return dose(scan, scan.reference.object.shape, scan.reference.origin)


def test_every_photon_of_the_probe_is_on_the_object():
    scan = lines(1e6)
    lit = dose_of(scan)
    assert lit.sum() == pytest.approx(len(scan) * np.sum(np.abs(scan.probe) ** 2), rel=1e-4)
    # One window alone is where its pattern was taken.
    alone = dose_of(scan.subset(np.array([17])))
    rows, columns = (
        np.average(np.arange(len(light)), weights=light) for light in (alone.sum(1), alone.sum(0))
    )
    assert np.allclose((rows, columns), scan.positions[17] - scan.reference.origin, atol=1)


def test_light_beyond_the_object_is_left_out():
    scan = lines(1e6)
    whole = dose_of(scan)
    (rows, columns), origin = whole.shape, np.add(scan.reference.origin, (10, 7))
    assert np.allclose(dose(scan, (rows - 30, columns - 16), origin), whole[10:-20, 7:-9])


@pytest.mark.parametrize("photons", [1e5, 1e7])
def test_iterations_have_the_noise_that_is_expected(photons):
    """From the true object, which they leave because of noise alone."""
    scan = lines(photons)
    lit = dose_of(scan)
    inner = lit > 0.5 * lit.max()
    found = iterate(scan, 10, truth(scan)).stitched.object[inner]
    known = scan.reference.object[inner]
    phase = np.vdot(found, known)
    error = np.sqrt(np.mean(np.abs(found * phase / np.abs(phase) - known) ** 2))
    # The expected noise is the least that is possible.
    assert 1 < error / np.sqrt(np.mean(1 / lit[inner])) < 4


def test_noise_falls_with_the_photons_and_contrast_does_not():
    faint, bright = (counting_noise(scan, truth(scan)) for scan in (lines(1e5), lines(1e7)))
    assert faint.level == pytest.approx(10 * bright.level, rel=0.02)
    assert faint.contrast == bright.contrast
    image = truth(lines(1e5)).object
    assert faint.contrast == pytest.approx(image.std(), rel=0.3)
    assert faint.share == faint.level / faint.contrast


def test_more_photons_make_an_object_good_that_noise_made_doubtful():
    verdicts = [forward_misfit(scan, truth(scan)).verdict for scan in (lines(2e3), lines(1e6))]
    assert verdicts == ["doubtful", "good"]
