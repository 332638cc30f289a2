"""Joint retrieval takes the steps of the networks' initial retrieval, and neighbours add information."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest

from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward, illumination
from ptychonnx.train.initial_retrieval import retrieval_constants

torch = pytest.importorskip("torch")

from benchmarks.joint_retrieval import JointRetrieval, retrieved_jointly  # noqa: E402
from ptychonnx.train.torch.retrieval import Retrieval  # noqa: E402

N = 32
CORNERS = np.array([[[0, 0], [3, 9], [8, 2]], [[7, 7], [0, 4], [5, 0]]])
SIDE = 42


def noise(rng, *shape):
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def after(retrieval, start, amplitude, steps):
    return next(islice(retrieval.steps(start, amplitude), steps - 1, None)).numpy()


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(LinesConfig(n=N), 5, np.random.SeedSequence([0, 1]), "test")


def test_the_true_objects_are_not_changed():
    rng = np.random.default_rng(0)
    known, probe = noise(rng, 2, SIDE, SIDE), noise(rng, 2, N, N)
    windows = [cut_windows(each, group + N / 2, N) for each, group in zip(known, CORNERS, strict=True)]
    amplitude = forward(np.stack(windows), probe).astype(np.float32)
    amplitude[..., 3, 4] = 99.0
    mask = np.ones((N, N), dtype=bool)
    mask[3, 4] = False
    found = after(JointRetrieval(probe, CORNERS, SIDE, mask), known, amplitude, 12)
    assert np.abs(found - known).max() < 1e-3


@pytest.mark.parametrize("modes", [1, 2])
def test_one_pattern_gets_the_first_guess_of_the_networks(modes):
    rng = np.random.default_rng(modes)
    probe = 40 * noise(rng, modes, N, N)
    mask = rng.random((N, N)) < 0.9
    amplitude = forward(noise(rng, 3, N, N), probe).astype(np.float32)
    guess = retrieval_constants(probe, 0.02, mask, steps=9, final_steps=0)
    scaled = np.float32(0.02) * amplitude
    expected = Retrieval(guess)(torch.from_numpy(scaled[:, None]), 9)[:, 0].numpy()
    retrieval = JointRetrieval(0.02 * probe, np.zeros((3, 1, 2), dtype=int), N, mask)
    found = after(retrieval, np.ones((3, N, N), dtype=np.complex64), scaled[:, None], 9)
    assert np.abs(expected - 1).max() > 0.3
    assert np.abs(found - (expected[:, :, 0] + 1j * expected[:, :, 1])).max() < 1e-3


def test_every_step_explains_all_patterns_better(scan):
    scale = scan.size / np.sqrt(scan.flux)
    corners = (scan.positions - N // 2).astype(int)
    side = int(corners.max()) + N
    retrieval = JointRetrieval(scan.probe * scale, corners[None], side, scan.mask)
    measured = np.float32(scale) * scan.diffraction
    errors = []
    for image in islice(retrieval.steps(np.ones((1, side, side), dtype=np.complex64), measured[None]), 12):
        patches = cut_windows(image.numpy()[0], scan.positions, N)
        errors.append(np.linalg.norm(forward(patches, scan.probe * scale) - measured))
    assert all(later < earlier for earlier, later in pairwise(errors))


def distance(scan, patches):
    """Mean distance of patches from the true ones, where there is light, each turned to its phase."""
    known = cut_windows(scan.reference.object, scan.positions, N)
    light = illumination(scan.probe)
    overlap = (light * patches.conj() * known).sum(axis=(1, 2), keepdims=True)
    return np.sqrt((light * np.abs(patches * overlap / np.abs(overlap) - known) ** 2).sum() / light.sum())


def test_more_neighbours_bring_a_pattern_closer_to_its_window(scan):
    distances = [distance(scan, retrieved_jointly(scan, members, (30,))[30]) for members in (1, 2, 4, 25)]
    assert all(more < 0.9 * fewer for fewer, more in pairwise(distances))


def test_all_patterns_have_one_object(scan):
    found = retrieved_jointly(scan, len(scan), (3, 6))
    corners = (scan.positions - N // 2).astype(int)
    low = corners.min(axis=0)
    side = int((corners - low).max()) + N
    for patches in found.values():
        image = np.zeros((side, side), dtype=np.complex64)
        for patch, (row, column) in zip(patches, corners - low, strict=True):
            image[row : row + N, column : column + N] = patch
        assert (cut_windows(image, scan.positions, N, tuple(low)) == patches).all()
    assert not np.allclose(found[3], found[6])
