"""Disagreement of overlapping patches: nothing for the truth, and not for a blank object either."""

from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.runtime.scan.forward_model import cut_windows
from ptychonnx.train.overlap_consistency import overlap_disagreement

RNG = np.random.default_rng(0)
OFFSETS = np.array([[[0, 0], [0, 5], [4, 1], [5, 5]], [[0, 0], [3, 3], [6, 0], [6, 7]]])
WEIGHT = RNG.random((16, 16)) + 0.1
OBJECT = RNG.normal(size=(40, 40)) + 1j * RNG.normal(size=(40, 40))


def oracle():
    return np.stack([cut_windows(OBJECT, places + 8.0, 16) for places in OFFSETS])


def test_oracle_patches_agree():
    assert overlap_disagreement(oracle(), OFFSETS, WEIGHT) < 1e-20


def test_it_depends_neither_on_the_scale_nor_on_a_common_phase():
    noisy = oracle() + 0.3 * RNG.normal(size=(2, 4, 16, 16))
    found = overlap_disagreement(noisy, OFFSETS, WEIGHT)
    assert overlap_disagreement(7 * np.exp(2j) * noisy, OFFSETS, WEIGHT) == pytest.approx(found)
    assert 0.01 < found < 0.2


def test_patches_that_have_nothing_in_common_disagree_about_as_much_as_there_is_contrast():
    many = RNG.normal(size=(2, 4, 16, 16)) + 1j * RNG.normal(size=(2, 4, 16, 16))
    assert overlap_disagreement(many, OFFSETS, WEIGHT) > 0.8


def test_one_patch_with_another_phase_is_seen():
    patches = oracle()
    patches[1, 2] *= np.exp(0.5j)
    assert overlap_disagreement(patches, OFFSETS, WEIGHT) > 1e-3


def test_neither_a_blank_object_nor_patches_apart_say_anything():
    assert np.isnan(overlap_disagreement(np.ones((2, 4, 16, 16), complex), OFFSETS, WEIGHT))
    assert np.isnan(overlap_disagreement(oracle(), 16 * OFFSETS, WEIGHT))
