"""Phase retrieval on several neighbouring patterns: one object explains them all, alike in both frameworks."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from numpy.typing import NDArray

from ptychonnx.harness.simulate.objects import make_object
from ptychonnx.harness.simulate.probes import make_probe
from ptychonnx.runtime.scan.forward_model import cut_windows, forward, illumination
from ptychonnx.runtime.scan.grouping import group_offsets, nearest_groups
from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import (
    CORRELATION,
    DARKEST,
    FAINT,
    RetrievalConstants,
    retrieval_constants,
)
from ptychonnx.train.registry import architectures, get_architecture

torch = pytest.importorskip("torch")
tf = pytest.importorskip("tensorflow")

from ptychonnx.train.tensorflow.beam import constant_beam  # noqa: E402
from ptychonnx.train.tensorflow.neighbours import Neighbours as TensorflowNeighbours  # noqa: E402
from ptychonnx.train.tensorflow.retrieval import Retrieval as TensorflowRetrieval  # noqa: E402
from ptychonnx.train.torch.neighbours import Neighbours as TorchNeighbours  # noqa: E402
from ptychonnx.train.torch.retrieval import Retrieval as TorchRetrieval  # noqa: E402

N = 32
SQUARE = np.array([[0, 0], [0, 7], [6, 0], [5, 8]], dtype=np.float32)
BETWEEN = SQUARE + np.array([[0.25, 0], [0, -0.5], [0.3, 0.7], [0, 0.1]], dtype=np.float32)


@pytest.fixture(scope="module")
def probe() -> NDArray[np.complex128]:
    found = make_probe("zone-plate", N)
    return found * N / np.sqrt(illumination(found).sum())


@pytest.fixture(scope="module")
def guess(probe) -> RetrievalConstants:
    return retrieval_constants(probe, 1.0, steps=6, final_steps=6, members=4)


def torch_neighbours(guess: RetrievalConstants, offsets: NDArray[np.float32]) -> TorchNeighbours:
    retrieval = TorchRetrieval(guess)
    return retrieval.neighbourhood(torch.from_numpy(offsets), retrieval.own_beam())


def lines(seed: int, side: int = 48) -> NDArray[np.complex128]:
    return make_object("lines", (side, side), np.random.default_rng(seed))


def windows(image: NDArray, offsets: NDArray) -> NDArray:
    """At whole pixels."""
    return cut_windows(image, offsets.astype(np.float64) + N // 2, N)


def retrieved(
    guess: RetrievalConstants, amplitude: NDArray, offsets: NDArray, steps: int, start: NDArray | None = None
) -> NDArray[np.complex128]:
    """[B, C, N, N], from Torch, after TensorFlow was found to agree."""
    given = None if start is None else np.stack([start.real, start.imag], axis=-2).astype(np.float32)
    by_torch = TorchRetrieval(guess)(
        torch.from_numpy(amplitude),
        steps,
        torch.from_numpy(offsets),
        None if given is None else torch.from_numpy(given),
    ).numpy()
    by_tensorflow = TensorflowRetrieval(guess)(
        tf.constant(amplitude),
        steps,
        tf.constant(offsets),
        None if given is None else tf.constant(given),
    ).numpy()
    assert np.abs(by_torch - by_tensorflow).max() < 1e-4 * np.abs(by_torch).max()
    return by_torch[..., 0, :].astype(np.float64) + 1j * by_torch[..., 1, :]


def by_formula(probe: NDArray, amplitude: NDArray, offsets: NDArray, steps: int) -> NDArray[np.complex128]:
    """The same steps in double precision, pixel by pixel: every pixel of every window is a point of the plane."""
    axis = np.arange(N)
    light = illumination(probe) / illumination(probe).max()
    rows, columns = (offsets[:, i, None].astype(np.float64) + axis for i in (0, 1))

    def carried(images: NDArray, kernel) -> NDArray:
        total = np.zeros_like(images)
        for to in range(len(offsets)):
            for source in range(len(offsets)):
                along_rows = kernel(rows[to][:, None] - rows[source])
                along_columns = kernel(columns[to][:, None] - columns[source])
                total[to] += along_rows @ images[source] @ along_columns.T
        return total

    density = carried(np.stack([light + DARKEST] * len(offsets)), lambda d: np.maximum(1 - np.abs(d), 0))
    spread = (density / density.max() + FAINT) ** -0.25
    length = retrieval_constants(probe, 1.0, steps=1, final_steps=0, members=4).step / density.max()
    last = ahead = np.ones(amplitude.shape, dtype=np.complex128)
    for _ in range(steps):
        waves = np.fft.fftshift(np.fft.fft2(probe * ahead[:, None], norm="ortho"), axes=(-2, -1))
        factor = amplitude / np.sqrt(np.sum(np.abs(waves) ** 2, axis=1) + 1e-5) - 1
        change = np.fft.ifft2(np.fft.ifftshift(waves * factor[:, None], axes=(-2, -1)), norm="ortho")
        gradient = spread * np.sum(probe.conj() * change, axis=1)
        now = ahead + length * spread * carried(gradient, lambda d: np.exp(-0.5 * (d / CORRELATION) ** 2))
        ahead, last = now + 0.9 * (now - last), now
    return last


@pytest.mark.parametrize("offsets", [SQUARE, BETWEEN], ids=["whole pixels", "between pixels"])
@pytest.mark.parametrize("modes", [1, 2])
def test_the_steps_agree_with_their_formula(probe, offsets, modes):
    several = np.concatenate([probe, 0.4 * np.roll(probe, 5, axis=-1)])[:modes]
    amplitude = forward(windows(lines(1), SQUARE), several).astype(np.float32)
    guess = retrieval_constants(several, 1.0, steps=6, final_steps=0, members=4)
    found = retrieved(guess, amplitude[None], offsets[None], 6)[0]
    expected = by_formula(several, amplitude, offsets, 6)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_patches_show_one_object(probe, guess):
    amplitude = forward(windows(lines(2), SQUARE), probe).astype(np.float32)
    found = retrieved(guess, amplitude[None], SQUARE[None], 12)[0]
    canvas = np.full((48, 48), np.nan, dtype=np.complex128)
    for patch, (row, column) in zip(found, SQUARE.astype(int), strict=True):
        there = canvas[row : row + N, column : column + N]
        known = ~np.isnan(there)
        assert np.abs(there - patch)[known].max(initial=0) < 1e-4
        there[:] = patch


def test_only_distances_matter(probe, guess):
    amplitude = forward(windows(lines(2), SQUARE), probe).astype(np.float32)[None]
    moved = SQUARE + np.float32([1000.5, -300.25])
    here, there = (retrieved(guess, amplitude, offsets[None], 6) for offsets in (SQUARE, moved))
    assert np.abs(here - there).max() < 1e-3


def test_patterns_far_apart_do_not_touch_each_other(probe, guess):
    apart = np.array([[0, 0], [0, 90], [90, 0], [90, 90]], dtype=np.float32)
    amplitude = forward(windows(lines(3), SQUARE), probe).astype(np.float32)
    other = amplitude.copy()
    other[3] = forward(windows(lines(4), SQUARE), probe)[3]
    before, after = (retrieved(guess, each[None], apart[None], 6)[0] for each in (amplitude, other))
    assert np.abs(before - after)[:3].max() < 1e-5
    assert np.abs(before - after)[3].max() > 0.1


def test_the_true_object_is_not_changed(probe, guess):
    true = windows(lines(5), SQUARE)
    amplitude = forward(true, probe).astype(np.float32)
    found = retrieved(guess, amplitude[None], SQUARE[None], 12, start=true[None])[0]
    assert np.abs(found - true).max() < 3e-3


def test_more_patterns_give_a_better_object(probe, guess):
    true = windows(lines(6), SQUARE)
    amplitude = forward(true, probe).astype(np.float32)[None]
    light = illumination(probe)

    def error(patches: NDArray) -> float:
        phase = np.sum(light * patches.conj() * true, axis=(1, 2), keepdims=True)
        return float(np.sum(light * np.abs(patches * phase / np.abs(phase) - true) ** 2))

    alone = TorchRetrieval(retrieval_constants(probe, 1.0, steps=24, final_steps=0))
    parts = alone(torch.from_numpy(amplitude), 24).numpy()[0]
    together = retrieved(guess, amplitude, SQUARE[None], 24)[0]
    assert error(together) < 0.5 * error(parts[..., 0, :] + 1j * parts[..., 1, :])


@pytest.mark.parametrize("offsets", [SQUARE, BETWEEN], ids=["whole pixels", "between pixels"])
def test_patches_of_a_plane_that_agree_are_merged_to_themselves(guess, offsets):
    # A linear function is what linear interpolation gives back.
    rows, columns = (offsets[:, i, None] + np.arange(N) for i in (0, 1))
    plane = 0.02 * rows[:, :, None] - 0.01 * columns[:, None, :]
    parts = np.stack([plane, 1 - plane], axis=-2)[None].astype(np.float32)
    inside = np.s_[:, :, 1:-1, :, 1:-1]
    light = (np.square(guess.light) > 0.05)[1:-1, None, 1:-1]
    by_torch = torch_neighbours(guess, offsets[None]).merge(torch.from_numpy(parts)).numpy()
    windows = TensorflowNeighbours(tf.constant(offsets[None]), constant_beam(guess))
    by_tensorflow = windows.merge(tf.constant(parts)).numpy()
    for merged in (by_torch, by_tensorflow):
        assert np.abs((merged - parts)[inside] * light).max() < 0.02


def test_patches_that_differ_are_merged_by_the_light_that_fell_there(guess):
    offsets = np.zeros((1, 4, 2), dtype=np.float32)
    offsets[0, 1] = [3, 0]
    offsets[0, 2:] = 500
    parts = np.zeros((1, 4, N, 2, N), dtype=np.float32)
    parts[0, 1] = 1
    merged = torch_neighbours(guess, offsets).merge(torch.from_numpy(parts)).numpy()[0]
    light = np.square(guess.light) + DARKEST
    expected = light[:-3] / (light[:-3] + light[3:])  # window 1 begins three rows below window 0
    assert np.allclose(merged[0, 3:, 0], expected, atol=1e-5)
    assert np.allclose(merged[1, :-3, 1], expected, atol=1e-5)
    assert np.all(merged[0, :3] == 0)


@pytest.mark.parametrize("kind", ["zone-plate", "disk"])
@pytest.mark.parametrize("distance", [0, 2, 5, 9, 14, 20, 40])
def test_no_distance_makes_the_steps_too_long(kind, distance):
    probe = make_probe(kind, N)
    guess = retrieval_constants(
        probe * N / np.sqrt(illumination(probe).sum()), 1.0, steps=1, final_steps=0, members=4
    )
    grid = distance * np.array([[[0, 0], [0, 1], [1, 0], [1, 1]]], dtype=np.float32)
    jitter = np.random.default_rng(distance).uniform(-1, 1, grid.shape).astype(np.float32)
    neighbours = torch_neighbours(guess, grid + jitter * (distance > 0))
    density = torch.from_numpy(illumination(guess.probe[0, :, :, 0] + 1j * guess.probe[1, :, :, 1]))
    vector, value = torch.ones(4, N, 2, N), torch.ones(())
    for _ in range(100):
        vector = neighbours.smooth(density.float()[:, None] * vector)
        value = vector.norm()
        vector = vector / value
    # See the length of the step in ptychonnx.train.initial_retrieval: up to 1.36 over the largest curvature.
    assert value < 1.36


def test_groups_of_a_scan_are_retrieved_better_than_scattered_ones(probe, guess):
    image = lines(7, 64)
    corners = np.stack(np.meshgrid(*2 * [np.arange(2, 30, 7)], indexing="ij"), axis=-1).reshape(-1, 2)
    positions = corners.astype(np.float64) + N // 2
    true = cut_windows(image, positions, N)
    amplitude = forward(true, probe).astype(np.float32)
    light = illumination(probe)

    def error(groups: NDArray, offsets: NDArray) -> float:
        found = retrieved(guess, amplitude[groups], offsets, 12)
        overlap = np.abs(np.sum(light * found.conj() * true[groups], axis=(2, 3)))
        return float(
            1
            - np.mean(
                overlap
                / np.sqrt(
                    np.sum(light * np.abs(found) ** 2, axis=(2, 3))
                    * np.sum(light * np.abs(true[groups]) ** 2, axis=(2, 3))
                )
            )
        )

    groups = nearest_groups(positions, 4)
    right = group_offsets(positions, groups)
    assert error(groups, right) < 0.5 * error(groups, right[::-1].copy())


@pytest.mark.parametrize("name", [name for name, each in architectures().items() if not each.supervised])
def test_every_architecture_finds_one_object_for_four_patterns(probe, name):
    architecture = get_architecture(name)
    config = NetworkConfig(n=N, gridsize=2, width=4, blocks=2, modes=8, first_steps=3, final_steps=3)
    guess = retrieval_constants(probe, 1.0, steps=3, final_steps=3, members=4)
    build = import_module(f"ptychonnx.train.{architecture.framework}.network").build_network
    amplitude = forward(windows(lines(8), SQUARE), probe).astype(np.float32)[None]
    parts = build(architecture, config, guess, 0).predict(amplitude, SQUARE[None])
    patches = np.moveaxis(parts[0, ..., 0] + 1j * parts[0, ..., 1], -1, 0)
    # The second window lies seven columns beside the first.
    assert np.abs(patches[0, :, 7:] - patches[1, :, :-7]).max() < 1e-3
    assert np.abs(patches - 1).max() > 0.05
