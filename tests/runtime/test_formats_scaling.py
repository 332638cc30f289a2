"""Counts become amplitudes in the fastest arithmetic that rounds as float64 does."""

from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.runtime.formats.conversion.scaling import root_of_counts


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64]
)
@pytest.mark.parametrize("most", [255, 2**24, 2**31 - 1])
def test_amplitudes_are_the_roots_of_the_exact_counts(dtype, most):
    generator = np.random.default_rng(0)
    if np.dtype(dtype).kind != "f":
        most = min(most, np.iinfo(dtype).max)
    counts = generator.integers(0, most, (50, 40), endpoint=True).astype(dtype)
    counts[0, :2] = 0, most
    expected = np.sqrt(counts.astype(np.float64)).astype(np.float32)
    found = root_of_counts(counts)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_nothing_has_no_amplitudes():
    assert root_of_counts(np.empty((0, 4, 4), np.uint32)).shape == (0, 4, 4)
