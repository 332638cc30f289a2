from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan.grouping import covering_groups, group_neighbours, group_offsets


def raster(rows=5, columns=6, step=8.0):
    row, column = np.meshgrid(np.arange(rows) * step, np.arange(columns) * step, indexing="ij")
    return np.stack([row.ravel(), column.ravel()], axis=1)


def test_groups_of_one_are_the_patterns_in_their_order():
    assert group_neighbours(raster(), 1).tolist() == [[i] for i in range(30)]


def test_every_pattern_has_a_group_of_different_patterns_that_holds_it():
    positions = np.random.default_rng(0).uniform(0, 60, (30, 2))
    groups = group_neighbours(positions, 2)
    assert groups.shape == (30, 4)
    for pattern, group in enumerate(groups):
        assert pattern in group
        assert len(set(group.tolist())) == 4


def test_a_group_holds_the_nearest_patterns():
    positions = np.random.default_rng(1).uniform(0, 60, (30, 2))
    for pattern, group in enumerate(group_neighbours(positions, 2)):
        distance = np.linalg.norm(positions - positions[pattern], axis=1)
        assert set(group.tolist()) == set(np.argsort(distance)[:4].tolist())


def test_members_come_row_by_row_even_with_jitter():
    jitter = np.random.default_rng(2).uniform(-0.5, 0.5, (30, 2))
    still, shaken = raster(), raster() + jitter
    corner = [0, 1, 6, 7]
    # Four positions alone, in any order: the group is always top left, top right, bottom left, bottom right.
    for order in ([3, 1, 0, 2], [2, 0, 3, 1]):
        for positions in (still[corner][order], shaken[corner][order]):
            for group in group_neighbours(positions, 2):
                assert [corner[order[member]] for member in group] == corner


def test_too_few_patterns_are_refused():
    with pytest.raises(InputError, match=r"needs.*4 patterns, the scan has 3"):
        group_neighbours(np.zeros((3, 2)), 2)


def test_patterns_at_one_position_can_be_grouped():
    assert sorted(group_neighbours(np.zeros((4, 2)), 2)[0].tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("gridsize", [2, 3, 4])
@pytest.mark.parametrize("place", ["raster", "scattered", "repeated"])
def test_of_equally_near_patterns_the_first_are_taken(gridsize, place):
    positions = {
        "raster": raster(12, 12),
        "scattered": np.random.default_rng(3).uniform(0, 60, (200, 2)),
        "repeated": np.repeat(raster(2, 2), 50, axis=0),
    }[place]
    for pattern, group in enumerate(group_neighbours(positions, gridsize)):
        distance = np.sum((positions - positions[pattern]) ** 2, axis=1)
        expected = np.argsort(distance, kind="stable")[: gridsize**2]
        assert sorted(group.tolist()) == sorted(expected.tolist())


@pytest.mark.parametrize("gridsize", [1, 2, 3])
@pytest.mark.parametrize("place", ["raster", "scattered"])
def test_covering_groups_hold_every_pattern_and_are_few(gridsize, place):
    positions = raster(12, 12) if place == "raster" else np.random.default_rng(5).uniform(0, 90, (144, 2))
    groups = covering_groups(positions, gridsize)
    assert set(groups.ravel().tolist()) == set(range(144))
    every = {tuple(group) for group in group_neighbours(positions, gridsize).tolist()}
    assert all(tuple(group) in every for group in groups.tolist())
    assert len(groups) * gridsize**2 <= 2 * 144
    # Taking one away leaves something uncovered, for most of them.
    members = np.bincount(groups.ravel(), minlength=144)
    needed = [any(members[pattern] == 1 for pattern in group) for group in groups]
    assert np.mean(needed) > 0.8


def test_offsets_are_counted_from_the_first_member():
    positions = np.array([[5.0, 7.0], [6.5, 7.0], [5.0, 9.25]])
    offsets = group_offsets(positions, np.array([[0, 1], [2, 0]]))
    assert offsets.dtype == np.float32
    assert offsets.tolist() == [[[0, 0], [1.5, 0]], [[0, 0], [0, -2.25]]]
