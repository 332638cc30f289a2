"""Intervals are as wide as chance makes them, and tell two reconstructions apart only if they differ."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.confidence import REPLICATES, confidence
from harness.metrics.image import mae, pearson, ssim
from harness.metrics.region import Rectangle

SIDE = 96
WHOLE = Rectangle(0, SIDE, 0, SIDE)


def scene(seed=0):
    rng = np.random.default_rng(seed)
    smooth = np.cumsum(np.cumsum(rng.normal(size=(SIDE, SIDE)), 0), 1)
    return (smooth - smooth.mean()) / smooth.std()


def maps(noise, seed, truth=None):
    truth = scene() if truth is None else truth
    predicted = truth + noise * np.random.default_rng(seed).normal(size=truth.shape)
    return {"amplitude": (predicted, truth, predicted - truth)}


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    # Independent pixels: the mean of |noise| has the standard deviation of |noise| / sqrt(n).
    found = confidence({"a": maps(1.0, 1)}, WHOLE)
    assert (found.tiles, found.tile_px) == (64, 12)
    low, high = found.intervals["a"]["amplitude_mae"]
    expected = 2 * 1.96 * np.sqrt(1 - 2 / np.pi) / SIDE
    assert high - low == pytest.approx(expected, rel=0.3)
    assert low < np.sqrt(2 / np.pi) < high


def test_intervals_contain_the_figures_of_the_whole():
    each = maps(0.3, 1)
    predicted, truth, difference = each["amplitude"]
    found = confidence({"a": each}, WHOLE).intervals["a"]
    for metric, value in (
        ("mae", mae(difference)),
        ("pearson", pearson(predicted.ravel(), truth.ravel())),
        ("ssim", ssim(predicted, truth, float(np.ptp(truth)))),
    ):
        low, high = found[f"amplitude_{metric}"]
        assert low < high
        assert low - 0.01 < value < high + 0.01


def test_noise_of_equal_strength_is_not_told_apart_and_more_of_it_is():
    found = confidence({"a": maps(0.3, 1), "b": maps(0.3, 2), "c": maps(0.4, 3)}, WHOLE)
    for metric in ("amplitude_mae", "amplitude_ssim", "amplitude_pearson"):
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
    found = confidence(
        {
            "a": {"phase": (truth + noise, truth, noise)},
            "b": {"phase": (truth + 1.03 * noise, truth, 1.03 * noise)},
        },
        WHOLE,
    )
    (a_low, a_high), (b_low, b_high) = (found.intervals[label]["phase_mae"] for label in "ab")
    assert a_low < b_high
    assert b_low < a_high
    assert found.differs("a", "b", "phase_mae")


def test_equal_reconstructions_differ_by_nothing():
    each = maps(0.3, 1)
    found = confidence({"a": each, "b": each}, WHOLE)
    assert set(found.differences["a"]["b"].values()) == {(0.0, 0.0)}


def test_draws_are_the_same_every_time():
    assert confidence({"a": maps(0.3, 1)}, WHOLE) == confidence({"a": maps(0.3, 1)}, WHOLE)
    assert REPLICATES >= 1000


def test_what_is_not_defined_is_left_out():
    truth = scene()
    flat = np.zeros_like(truth)
    found = confidence({"a": {"amplitude": (flat, truth, -truth)}}, WHOLE)
    assert set(found.intervals["a"]) == {"amplitude_mae", "amplitude_ssim"}
    assert confidence({"a": maps(0.3, 1)}, Rectangle(0, 30, 0, 44)) is None
    assert confidence({}, WHOLE) is None
