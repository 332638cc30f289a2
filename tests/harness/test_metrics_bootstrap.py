"""Confidence intervals have the width of chance, and distinguish reconstructions only if they differ."""

from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.harness.metrics.alignment import align
from ptychonnx.harness.metrics.bootstrap import (
    METRICS,
    REPLICATES,
    QuantitySample,
    ReconstructionSample,
    _metrics,
    _sums,
    bootstrap_confidence,
)
from ptychonnx.harness.metrics.comparison import bootstrap_sample, compare
from ptychonnx.harness.metrics.image_similarity import mae, pearson, ssim
from ptychonnx.harness.metrics.region import bounding_rectangle, largest_rectangle

SIDE = 96


def scene(seed=0):
    rng = np.random.default_rng(seed)
    smooth = np.cumsum(np.cumsum(rng.normal(size=(SIDE, SIDE)), 0), 1)
    return (smooth - smooth.mean()) / smooth.std()


def judged(predicted, truth, name="amplitude", defined=METRICS, region=None):
    region = np.ones(truth.shape, dtype=bool) if region is None else region
    maps = (predicted, truth, predicted - truth)
    quantity = QuantitySample(maps, float(np.ptp(truth[region])), frozenset(defined))
    return ReconstructionSample({name: quantity}, region, largest_rectangle(region))


def noisy(noise, seed):
    truth = scene()
    return judged(truth + noise * np.random.default_rng(seed).normal(size=truth.shape), truth)


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    # Independent pixels: the mean of |noise| has the standard deviation of |noise| / sqrt(n).
    found = bootstrap_confidence({"a": noisy(1.0, 1)})
    assert (found.tiles, found.tile_px) == (64, 12)
    low, high = found.intervals["a"]["amplitude_mae"]
    expected = 2 * 1.96 * np.sqrt(1 - 2 / np.pi) / SIDE
    assert high - low == pytest.approx(expected, rel=0.3)
    assert low < np.sqrt(2 / np.pi) < high


def test_intervals_contain_the_figures_of_the_whole():
    each = noisy(0.3, 1)
    predicted, truth, difference = each.quantities["amplitude"].images
    found = bootstrap_confidence({"a": each}).intervals["a"]
    for metric, value in (
        ("mae", mae(difference)),
        ("pearson", pearson(predicted.ravel(), truth.ravel())),
        ("ssim", ssim(predicted, truth, float(np.ptp(truth)))),
    ):
        low, high = found[f"amplitude_{metric}"]
        assert low < high
        assert low - 0.01 < value < high + 0.01


def test_noise_of_equal_strength_is_not_told_apart_and_more_of_it_is():
    found = bootstrap_confidence({"a": noisy(0.3, 1), "b": noisy(0.3, 2), "c": noisy(0.4, 3)})
    for metric in ("amplitude_mae", "amplitude_psnr", "amplitude_ssim", "amplitude_pearson"):
        assert not found.differs("a", "b", metric)
        assert found.differs("a", "c", metric)
    low, high = found.differences["a"]["c"]["amplitude_mae"]
    assert low < high < 0
    back = found.differences["c"]["a"]["amplitude_mae"]
    assert back == pytest.approx((-high, -low))


def test_pairing_shows_a_small_difference_that_separate_intervals_hide():
    # Errors differ much from tile to tile, and one is always a little larger than the other.
    rng = np.random.default_rng(4)
    truth = scene()
    strength = np.kron(rng.uniform(0.1, 3, (8, 8)), np.ones((12, 12)))
    noise = strength * rng.normal(size=truth.shape)
    found = bootstrap_confidence(
        {
            "a": judged(truth + noise, truth, "phase"),
            "b": judged(truth + 1.03 * noise, truth, "phase"),
        }
    )
    (a_low, a_high), (b_low, b_high) = (found.intervals[label]["phase_mae"] for label in "ab")
    assert a_low < b_high
    assert b_low < a_high
    assert found.differs("a", "b", "phase_mae")


def test_equal_reconstructions_differ_by_nothing():
    each = noisy(0.3, 1)
    found = bootstrap_confidence({"a": each, "b": each})
    assert set(found.differences["a"]["b"].values()) == {(0.0, 0.0)}


def test_draws_are_the_same_every_time():
    assert bootstrap_confidence({"a": noisy(0.3, 1)}) == bootstrap_confidence({"a": noisy(0.3, 1)})
    assert REPLICATES >= 1000


def test_what_is_not_defined_is_left_out():
    truth = scene()
    flat = np.zeros_like(truth)
    found = bootstrap_confidence({"a": judged(flat, truth)})
    assert set(found.intervals["a"]) == {"amplitude_mae", "amplitude_psnr", "amplitude_ssim"}
    found = bootstrap_confidence({"a": judged(truth + 1e-9 * scene(1), truth, defined=("mae", "ssim"))})
    assert set(found.intervals["a"]) == {"amplitude_mae", "amplitude_ssim"}
    small = np.zeros(truth.shape, dtype=bool)
    small[:22, :44] = True
    assert bootstrap_confidence({"a": judged(truth, truth, region=small)}) is None
    assert bootstrap_confidence({}) is None


def test_all_tiles_together_give_the_figures_of_the_comparison():
    # An ellipse, of which a rectangle holds a part only, and whose bounds no tile divides.
    rows, columns = np.mgrid[:SIDE, :SIDE]
    region = ((rows - 50) / 43) ** 2 + ((columns - 45) / 38) ** 2 < 1
    reference = (1 - 0.1 * scene(2)) * np.exp(0.3j * scene(3))
    rng = np.random.default_rng(5)
    noise = 0.1 * (rng.normal(size=region.shape) + 1j * rng.normal(size=region.shape))
    comparison = compare(reference + noise, reference, region, register=True)
    aligned = align(reference + noise, reference, region, register=True)
    assert comparison.alignment is not None
    each = bootstrap_sample(aligned.object, reference, region, comparison)
    np.testing.assert_array_equal(each.region, aligned.region)
    intervals = bootstrap_confidence({"a": each}).intervals["a"]
    for name, metrics in (("amplitude", comparison.amplitude), ("phase", comparison.phase)):
        sums = _sums(each.quantities[name], each, bounding_rectangle(each.region), 13)
        found = _metrics(sums.sum(axis=0, keepdims=True), each.quantities[name].data_range)
        for metric in METRICS:
            assert found[metric][0] == pytest.approx(getattr(metrics, metric), rel=1e-9)
            low, high = intervals[f"{name}_{metric}"]
            assert low < getattr(metrics, metric) < high
