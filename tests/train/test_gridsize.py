"""Groups of four patterns: what the loss of a group says of the four patches, in both frameworks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward
from ptychonnx.runtime.scan.grouping import group_offsets
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.dataset import TrainingData, prepare
from ptychonnx.train.registry import get_architecture

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
tf = pytest.importorskip("tensorflow")

from ptychonnx.train.tensorflow import training as tensorflow_training  # noqa: E402
from ptychonnx.train.tensorflow.network import KerasNetwork  # noqa: E402
from ptychonnx.train.torch import training as torch_training  # noqa: E402

NETWORK, TRAINING = NetworkConfig(n=32, gridsize=2, first_steps=3, final_steps=2), TrainingConfig(overlap=1)
ROWS = np.array([0, 7, 20])

Patches = NDArray[np.complex64]


@pytest.fixture(scope="module")
def noise_free(tiny_scan: Scan) -> tuple[Scan, Patches]:
    """A scan without noise, and its true patches."""
    reference = tiny_scan.reference
    patches = cut_windows(reference.object, tiny_scan.positions, 32, reference.origin)
    amplitude = forward(patches.astype(np.complex128), tiny_scan.probe.astype(np.complex128))
    return replace(tiny_scan, diffraction=amplitude.astype(np.float32)), patches


def parts_of(patches: Patches) -> NDArray[np.float32]:
    """Patches [groups, C, N, N] as a network gives them, [groups, N, N, C, 2]."""
    last = np.moveaxis(patches, 1, -1)
    return np.stack([last.real, last.imag], axis=-1).astype(np.float32)


def by_torch(data: TrainingData, groups: NDArray[np.intp], answer: Patches) -> float:
    class Oracle(torch.nn.Module):
        def forward(self, diffraction, offsets):
            assert torch.equal(diffraction, torch.from_numpy(data.diffraction[groups]))
            assert np.array_equal(offsets, group_offsets(data.positions, groups))
            return torch.from_numpy(parts_of(answer))

    task = torch_training.ReconstructionTask(Oracle(), data, TRAINING)
    return task.score((torch.from_numpy(groups), torch.from_numpy(data.offsets(groups)))).item()


def by_tensorflow(data: TrainingData, groups: NDArray[np.intp], answer: Patches) -> float:
    def oracle(inputs, beam):
        diffraction, offsets = inputs
        assert np.array_equal(diffraction, data.diffraction[groups])
        assert np.array_equal(offsets, group_offsets(data.positions, groups))
        return tf.constant(parts_of(answer))

    task = tensorflow_training.ReconstructionTask(KerasNetwork(oracle), data, TRAINING)
    batch = {
        "amplitude": tf.constant(data.diffraction[groups]),
        "offsets": tf.constant(data.offsets(groups)),
        "places": tf.constant(group_offsets(data.positions, groups)),
        "beam": tf.zeros(len(groups), dtype=tf.int64),
    }
    return float(task.score(batch, oracle))


def score(noise_free: tuple[Scan, Patches], change: Callable[[Patches], Patches]) -> float:
    """Loss of three groups whose true patches were changed; the same in both frameworks."""
    scan, patches = noise_free
    data = prepare(scan, NETWORK, TRAINING, get_architecture("hybrid"))
    groups = data.train[ROWS]
    answer = change(patches[groups].copy())
    found = by_torch(data, groups, answer)
    assert by_tensorflow(data, groups, answer) == pytest.approx(found, rel=1e-4, abs=1e-6)
    return found


def test_oracle_patches_of_a_group_explain_its_patterns(noise_free):
    assert score(noise_free, lambda patches: patches) < 1e-5


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [3, 2, 1, 0], [0, 2, 1, 3]])
def test_scrambled_channels_do_not(noise_free, order):
    assert score(noise_free, lambda patches: patches[:, order]) > 1e-3


@pytest.mark.parametrize("member", range(4))
def test_patches_that_explain_their_patterns_alone_must_agree_too(noise_free, member):
    def turned(patches: Patches) -> Patches:
        # A pattern does not know the phase of its object, so by itself this patch is as good as the true one.
        patches[:, member] *= np.exp(0.4j)
        return patches

    scan, patches = noise_free
    alone = forward(turned(patches[None, :4].copy())[0], scan.probe)
    assert np.allclose(alone, scan.diffraction[:4], rtol=1e-3, atol=1e-2)
    assert score(noise_free, turned) > 1e-3


def test_a_phase_that_all_patches_share_changes_nothing(noise_free):
    assert score(noise_free, lambda patches: patches * np.exp(0.4j)) < 1e-5


def test_a_group_holds_each_pattern_with_its_nearest_neighbours(noise_free):
    scan, _ = noise_free
    data = prepare(scan, NETWORK, TRAINING, get_architecture("hybrid"))
    assert data.train.shape[1] == data.held_out.shape[1] == 4
    assert all(len(set(group)) == 4 for group in data.train)


def test_overlap_adds_the_groups_of_the_nearest_patterns(noise_free):
    scan, _ = noise_free
    architecture = get_architecture("hybrid")
    alone = prepare(scan, NETWORK, TRAINING, architecture)
    data = prepare(scan, NETWORK, TrainingConfig(overlap=3), architecture)
    groups = {tuple(group) for group in alone.train}
    assert data.train.shape[1] == 12
    assert all(tuple(part) in groups for group in data.train for part in group.reshape(3, 4))
    assert [
        tuple(group) in {tuple(p) for p in row.reshape(3, 4)}
        for group, row in zip(alone.train, data.train, strict=True)
    ]
