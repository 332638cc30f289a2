"""Global phases of patches: found from their overlaps, all together, whatever the order in which patches come."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

from ptychonnx.runtime.errors import EnvironmentFailure
from ptychonnx.runtime.reconstruction.stitching import Stitched, Stitcher, patch_weight
from ptychonnx.runtime.reconstruction.stitching.synchronisation import (
    overlap_products,
    overlapping_pairs,
    synchronised_phases,
)
from ptychonnx.runtime.scan.forward_model import cut_windows
from tests.runtime.conftest import gaussian_probe

SIZE = 16


def smooth_object(side: int) -> np.ndarray:
    """complex [side, side], of amplitude about 1, with a phase that goes through more than half a turn."""
    row, column = np.mgrid[:side, :side]
    return (1 + 0.2 * np.sin(0.3 * row)) * np.exp(2j * np.sin(0.11 * column + 0.05 * row))


def raster(across: int, step: float) -> np.ndarray:
    """Centres [across^2, 2] of windows, the first at the corner of the object."""
    return SIZE // 2 + step * np.stack(np.divmod(np.arange(across**2), across), axis=1).astype(float)


def turned(patches: np.ndarray, rng: np.random.Generator, most: float = np.pi) -> np.ndarray:
    """Patches [n, N, N], each turned by a phase of its own."""
    return patches * np.exp(1j * rng.uniform(-most, most, len(patches)))[:, None, None]


def rms_of_phases(found: np.ndarray, expected: np.ndarray) -> float:
    """Root of the mean square of phases in rad, without the one that all share."""
    unit = np.exp(1j * (found - expected))
    return float(np.sqrt(np.mean(np.angle(unit * np.exp(-1j * np.angle(unit.sum()))) ** 2)))


@pytest.mark.parametrize("placement", ["bilinear", "fourier"])
@pytest.mark.parametrize("weighting", ["probe", "window", "uniform"])
def test_patches_of_any_phase_give_the_object_back_up_to_one_phase(
    truth, probe, positions, weighting, placement
):
    patches = turned(cut_windows(truth, positions, SIZE), np.random.default_rng(5))
    weight = patch_weight(weighting, SIZE, probe)
    results = {}
    for synchronise in (False, True):
        stitcher = Stitcher(positions, weight, placement, synchronise=synchronise)
        stitcher.add(patches, positions)
        results[synchronise] = stitcher.result()
    rows, columns = np.nonzero(results[True].covered)
    origin = np.array(results[True].origin, dtype=int)
    expected = truth[rows + origin[0], columns + origin[1]]
    errors = {}
    for synchronise, stitched in results.items():
        found = stitched.object[rows, columns]
        errors[synchronise] = np.abs(found - expected * np.exp(1j * np.angle(np.vdot(expected, found)))).max()
    assert errors[True] < 1e-6
    assert errors[False] > 0.1


def test_islands_keep_the_mean_phase_that_their_patches_have():
    rng = np.random.default_rng(1)
    island, known = raster(4, 6.0), smooth_object(40)
    positions = np.concatenate([island, island + [0, 60], island[:1] + [60, 0]])
    patches = np.tile(cut_windows(known, island, SIZE), (2, 1, 1))
    patches = turned(np.concatenate([patches, patches[:1]]), rng, 0.8)
    patches[:16] *= np.exp(2.5j)
    weight = patch_weight("window", SIZE)
    stitcher = Stitcher(positions, weight, synchronise=True)
    stitcher.add(patches, positions)
    found = stitcher.result().object
    given = np.concatenate([cut_windows(known, island, SIZE)] * 2)
    for number, corner in ((0, 0), (1, 60)):
        own = slice(16 * number, 16 * number + 16)
        # The mean of exp(i phase), each patch with its energy.
        mean = np.angle(np.sum(weight**2 * patches[own] * given[own].conj()))
        expected = known[:34, :34] * np.exp(1j * mean)
        np.testing.assert_allclose(found[:34, corner : corner + 34], expected, atol=1e-6)
    # One that touches nothing is not turned at all.
    np.testing.assert_array_equal(found[60:76, :16], patches[32].astype(np.complex64))


@pytest.mark.parametrize("placement", ["bilinear", "fourier"])
def test_the_order_of_the_patches_does_not_matter(placement):
    rng = np.random.default_rng(2)
    positions = rng.uniform(0, 60, (80, 2))
    positions[60:] = positions[:20]  # several patches at one place
    patches = turned(rng.normal(size=(80, SIZE, SIZE, 2)).view(np.complex128)[..., 0] + 2, rng)
    weight = patch_weight("probe", SIZE, gaussian_probe(SIZE))
    at_once = Stitcher(positions, weight, placement, synchronise=True)
    at_once.add(patches, positions)
    expected = at_once.result()
    for step in (1, 7, 80):
        streamed, order = Stitcher(positions, weight, placement, synchronise=True), rng.permutation(80)
        for start in range(0, 80, step):
            some = order[start : start + step]
            streamed.add(patches[some], positions[some])
        found = streamed.result()
        np.testing.assert_allclose(found.object, expected.object, rtol=0, atol=2e-6)
        np.testing.assert_allclose(found.weight, expected.weight, rtol=0, atol=1e-9)


def test_more_patches_may_follow_a_result():
    rng = np.random.default_rng(3)
    positions, known = raster(5, 6.0), smooth_object(50)
    patches = turned(cut_windows(known, positions, SIZE), rng) + 0.1 * rng.normal(size=(25, SIZE, SIZE))
    weight = patch_weight("window", SIZE)
    for memory in (None, 1):
        stitcher, whole = (
            Stitcher(positions, weight, synchronise=True, memory=memory, tile=24) for _ in range(2)
        )
        assert not any(block.weight.any() for block in stitcher.result().blocks())
        stitcher.add(patches[:10], positions[:10])
        first = [block.object for block in stitcher.result().blocks()]
        again = [block.object for block in stitcher.result().blocks()]
        np.testing.assert_equal(again, first)
        stitcher.add(patches[10:], positions[10:])
        whole.add(patches, positions)
        for found, expected in zip(stitcher.result().blocks(), whole.result().blocks(), strict=True):
            np.testing.assert_array_equal(found.object, expected.object)
            np.testing.assert_array_equal(found.weight, expected.weight)


def test_patches_on_disk_and_tiles_give_the_same_bits(monkeypatch):
    rng = np.random.default_rng(4)
    positions = rng.uniform(0, 150, (300, 2))
    patches = turned(rng.normal(size=(300, SIZE, SIZE, 2)).view(np.complex128)[..., 0] + 2, rng)
    weight = patch_weight("window", SIZE)
    results = []
    for kept, memory in ((2**30, None), (1, None), (1, 1)):
        monkeypatch.setattr("ptychonnx.runtime.reconstruction.stitching.patch_store.MEMORY_BYTES", kept)
        stitcher = Stitcher(positions, weight, synchronise=True, memory=memory, tile=40)
        stitcher.add(patches, positions)
        assert stitcher._store._file._rolled == (kept == 1)
        results.append(stitcher.result())
    expected = results[0]
    np.testing.assert_array_equal(results[1].object, expected.object)
    pixels = 0
    for block in results[2].blocks():
        np.testing.assert_array_equal(block.object, expected.object[block.rows, block.columns])
        pixels += np.count_nonzero(block.weight)
    assert isinstance(expected, Stitched)
    assert pixels == np.count_nonzero(expected.weight)


def test_patches_without_a_phase_are_not_turned():
    positions, weight = raster(4, 6.0), patch_weight("window", SIZE)
    known = smooth_object(40)
    patches = turned(cut_windows(known, positions, SIZE), np.random.default_rng(6))
    patches[5] = 0
    patches[15] = np.nan
    with np.errstate(all="raise", under="ignore"):
        stitcher = Stitcher(positions, weight, synchronise=True)
        stitcher.add(patches, positions)
        stitched = stitcher.result()
        nothing = Stitcher(positions, weight, synchronise=True)
        nothing.add(np.zeros((16, SIZE, SIZE)), positions)
        assert (nothing.result().object == 0).all()
    found, expected = stitched.object[:18, :6], known[:18, :6]
    phase = np.exp(1j * np.angle(np.vdot(expected, found)))
    np.testing.assert_allclose(found, expected * phase, atol=1e-6)
    assert np.isnan(stitched.object).sum() == SIZE**2


def test_faint_and_dim_patches_are_turned_as_well():
    positions, known = raster(5, 6.0), smooth_object(50)
    patches = turned(cut_windows(known, positions, SIZE), np.random.default_rng(7))
    # A dim row cuts the bright ones in two: it alone connects them.
    dim = slice(10, 15)
    scale = np.ones(25)
    scale[dim] = 1e-20
    positions[15:, 0] += 10
    positions[dim, 0] += 5
    stitcher = Stitcher(positions, np.full((SIZE, SIZE), 1e-30), synchronise=True)
    known = np.insert(known, 22, np.ones((10, 50)), axis=0)
    patches[dim] = cut_windows(known, positions[dim], SIZE)
    patches[15:] = turned(cut_windows(known, positions[15:], SIZE), np.random.default_rng(8))
    patches[:10] = turned(cut_windows(known, positions[:10], SIZE), np.random.default_rng(9))
    stitcher.add(patches * scale[:, None, None], positions)
    found = stitcher.result().object
    bright = np.r_[0:17, 33:50]
    expected, found = known[bright, :40], found[bright, :40]
    phase = np.exp(1j * np.angle(np.vdot(expected, found)))
    np.testing.assert_allclose(found, expected * phase, rtol=1e-5)


def test_where_there_is_hardly_any_light_patches_do_not_overlap(probe):
    weight = patch_weight("probe", SIZE, probe)
    phases = {}
    for distance in (9.0, 14.0):
        positions = np.array([[0.0, 0.0], [distance, 0.0]])
        stitcher = Stitcher(positions, weight, synchronise=True)
        stitcher.add(np.exp([0.3j, 2.0j])[:, None, None] * np.ones((2, SIZE, SIZE)), positions)
        found = stitcher.result().object
        phases[distance] = np.angle(found[[2, -4], 8])
    np.testing.assert_allclose(phases[9.0], 1.15, atol=1e-6)
    np.testing.assert_allclose(phases[14.0], [0.3, 2.0], atol=1e-2)


def test_overlaps_are_sums_over_what_lies_on_top_of_each_other():
    rng = np.random.default_rng(8)
    patches = rng.normal(size=(6, 5, 7, 2)).view(np.complex128)[..., 0]
    pixels = rng.integers(0, 6, (6, 2))
    canvases = np.zeros((6, 12, 14), complex)
    for canvas, patch, (row, column) in zip(canvases, patches, pixels, strict=True):
        canvas[row : row + 5, column : column + 7] = patch
    pairs = np.array([(i, j) for i in range(6) for j in range(i + 1, 6)])
    products, energies = overlap_products(pairs, pixels, (5, 7), lambda index: patches[index])
    expected = np.einsum("irc,jrc->ij", canvases, canvases.conj())
    np.testing.assert_allclose(products, expected[tuple(pairs.T)], atol=1e-12)
    np.testing.assert_allclose(energies, np.diag(expected).real)


@pytest.mark.parametrize("spread", [8, 40, 400])
def test_windows_that_hang_together_by_overlaps_hang_together_by_pairs(spread):
    rng = np.random.default_rng(9)
    # Clusters much narrower than a window, whose nearest neighbours are all in the same cluster, some in one place.
    centres = rng.uniform(0, spread * 4, (30, 2))
    places = (centres[:, None] + rng.uniform(0, 2, (30, 40, 2))).reshape(-1, 2)
    places[::7] = places[1::7][: len(places[::7])]
    shape = (20, 14)
    pairs = overlapping_pairs(places, shape)
    overlapping = (np.abs(places[:, None] - places) < shape).all(axis=-1)
    assert overlapping[tuple(pairs.T)].all()
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs) < 10 * len(places)
    graph = csr_array((np.ones(len(pairs)), pairs.T), shape=overlapping.shape)
    number, labels = connected_components(graph, directed=False)
    expected_number, expected = connected_components(overlapping, directed=False)
    assert number == expected_number
    assert len(set(zip(labels.tolist(), expected.tolist(), strict=True))) == number
    if spread == 40:
        assert 1 < number < 30


def test_without_ambiguous_turns_the_phases_are_those_of_linear_least_squares():
    rng = np.random.default_rng(10)
    pairs = overlapping_pairs(raster(7, 6.0)[:45], (SIZE, SIZE))
    differences = rng.uniform(-0.5, 0.5, len(pairs))
    weights = 10.0 ** rng.uniform(-3, 3, len(pairs))
    found, component = synchronised_phases(46, pairs, weights * np.exp(1j * differences))
    design = np.zeros((len(pairs), 46))
    design[np.arange(len(pairs)), pairs[:, 0]] = 1
    design[np.arange(len(pairs)), pairs[:, 1]] = -1
    root = np.sqrt(weights)
    expected = np.linalg.lstsq(root[:, None] * design, root * differences, rcond=None)[0]
    residual = differences - design @ expected
    assert np.abs(residual).max() < np.pi
    apart = (found - found[0] - (expected - expected[0]))[:45] / (2 * np.pi)
    np.testing.assert_allclose(apart, np.rint(apart), atol=1e-7)
    assert component[45] != component[0] == component[44]
    assert found[45] == 0


def test_a_pair_of_hardly_any_weight_still_connects():
    pairs = np.array([[0, 1], [0, 2], [1, 2], [2, 3], [3, 4], [3, 5], [4, 5]])
    weights = np.array([1.0, 1.0, 1.0, 1e-30, 1.0, 1.0, 1.0])
    differences = np.array([0.3, 0.5, 0.1, 2.0, -0.4, 0.2, 0.9])
    found, component = synchronised_phases(6, pairs, weights * np.exp(1j * differences))
    assert (component == 0).all()
    # A third of what is left around each triangle, and nothing in between.
    left = differences - (found[pairs[:, 0]] - found[pairs[:, 1]])
    np.testing.assert_allclose(left, np.array([-0.1, 0.1, -0.1, 0, 0.3, -0.3, 0.3]) / 3, atol=1e-12)


def along_the_heaviest_tree(pairs: np.ndarray, products: np.ndarray, count: int) -> np.ndarray:
    """Phases [n] without least squares: each patch is turned to one before it."""
    dense = np.zeros((count, count), complex)
    dense[tuple(pairs.T)] = products
    dense += dense.conj().T
    rank = np.argsort(np.argsort(-np.abs(products))) + 1.0
    tree = minimum_spanning_tree(csr_array((rank, pairs.T), shape=(count, count)))
    order, above = breadth_first_order(tree, 0, directed=False)
    phases = np.zeros(count)
    for node in order[1:]:
        phases[node] = phases[above[node]] + np.angle(dense[node, above[node]])
    return phases


def walked(patches: np.ndarray, pixels: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Phases [n] by which each patch differs from the mean of those before it, which were turned back."""
    sums = np.zeros((*pixels.max(axis=0) + SIZE,), complex)
    totals, phases = np.zeros(sums.shape), []
    for patch, (row, column) in zip(patches, pixels, strict=True):
        here = slice(row, row + SIZE), slice(column, column + SIZE)
        mean = sums[here] / np.maximum(totals[here], 1e-9)
        common = np.sum(np.minimum(weight, totals[here]) * patch * mean.conj())
        phases.append(np.angle(common) if common else 0.0)
        sums[here] += weight * patch * np.exp(-1j * phases[-1])
        totals[here] += weight
    return np.array(phases)


def test_all_pairs_together_are_better_than_one_patch_after_the_other():
    weight, pixels = patch_weight("window", SIZE), raster(12, 6.0).astype(int) - SIZE // 2
    errors = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        given = rng.uniform(-np.pi, np.pi, 144)
        patches = cut_windows(smooth_object(90), raster(12, 6.0), SIZE) * np.exp(1j * given)[:, None, None]
        patches = patches + 1.5 * rng.normal(size=(144, SIZE, SIZE, 2)).view(np.complex128)[..., 0]
        pairs = overlapping_pairs(pixels, (SIZE, SIZE))
        weighted = weight * patches
        products, _ = overlap_products(pairs, pixels, (SIZE, SIZE), lambda index, all=weighted: all[index])
        errors.append(
            [
                rms_of_phases(found, given)
                for found in (
                    synchronised_phases(144, pairs, products)[0],
                    along_the_heaviest_tree(pairs, products, 144),
                    walked(patches, pixels, weight),
                )
            ]
        )
    together, tree, walk = np.mean(errors, axis=0)
    assert together < 0.7 * tree
    assert together < 0.8 * walk


def test_no_whole_turns_are_left_between_neighbours_of_a_large_scan():
    rng = np.random.default_rng(11)
    across, noise = 150, 0.2
    pairs = overlapping_pairs(raster(across, 6.0), (SIZE, SIZE))
    given = rng.uniform(-np.pi, np.pi, across**2)
    differences = given[pairs[:, 0]] - given[pairs[:, 1]] + rng.normal(0, noise, len(pairs))
    found, _ = synchronised_phases(
        across**2, pairs, rng.uniform(0.2, 1, len(pairs)) * np.exp(1j * differences)
    )
    assert rms_of_phases(found, given) < 2 * noise


def test_a_disk_too_small_for_the_patches_is_found_before_any_work(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    positions = np.zeros((40_000, 2))
    Stitcher(positions[:1000], np.ones((SIZE, SIZE)), synchronise=True)  # stay in memory
    Stitcher(positions, np.ones((SIZE, SIZE)))
    with pytest.raises(
        EnvironmentFailure,
        match=r"0\.1 GB .* the patches that are synchronised, and 0\.0 GB are free: set TMPDIR",
    ):
        Stitcher(positions, np.ones((SIZE, SIZE)), synchronise=True)


def test_a_disk_that_fills_up_with_patches_gives_one_line():
    stitcher = Stitcher(np.zeros((1, 2)), np.ones((SIZE, SIZE)), synchronise=True)
    stitcher._store._file = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115 - the stitcher closes it
    with pytest.raises(
        EnvironmentFailure, match=r"cannot hold the patches that are synchronised \(No space left on device\)"
    ):
        stitcher.add(np.ones((1, SIZE, SIZE)), np.zeros((1, 2)))


# 24,000 patches of 64 x 64 pixels are 786 MB.
CHILD = """
import resource, sys
import numpy as np
from ptychonnx.runtime.reconstruction.stitching import Stitcher

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

n = int(sys.argv[1])
positions = np.stack([12.0 * (np.arange(n) // 12), 12.0 * (np.arange(n) % 12)], axis=1)
rng = np.random.default_rng(0)
batch = np.full((100, 64, 64), 0.5 - 0.5j, np.complex64)
stitcher = Stitcher(positions, np.ones((64, 64)), synchronise=True, memory=2**24)
for start in range(0, n, 100):
    turns = np.exp(2j * np.pi * rng.random(100)).astype(np.complex64)
    stitcher.add(batch * turns[:, None, None], positions[start : start + 100])
values = np.concatenate([b.object[b.weight > 0] for b in stitcher.result().blocks() if b.rows.start % 1024 == 0])
assert np.abs(values - values[0]).max() < 1e-6 and len(values) > 10000
print(peak())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
def test_the_peak_of_memory_does_not_grow_with_the_patches():
    peaks = []
    for patches in (6_000, 24_000):
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(patches)], capture_output=True, text=True, timeout=120
        )
        assert child.returncode == 0, child.stderr
        peaks.append(int(child.stdout))
    # Where patches lie and the equations of their phases take 0.6 kB a patch here; a patch takes 33.
    assert peaks[1] - peaks[0] < 18_000 * 2048
