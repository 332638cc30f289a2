"""The forward model and the losses are the same in NumPy, Torch and TensorFlow."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from ptychonnx.runtime.reconstruction.stitching import Stitcher
from ptychonnx.runtime.scan.forward_model import cut_windows, forward, illumination

torch = pytest.importorskip("torch")
tf = pytest.importorskip("tensorflow")

from ptychonnx.train.initial_retrieval import CONTRAST_GAIN, retrieval_constants  # noqa: E402
from ptychonnx.train.tensorflow import layers as tensorflow_layers  # noqa: E402
from ptychonnx.train.tensorflow import physics as tensorflow_physics  # noqa: E402
from ptychonnx.train.torch import blocks as torch_blocks  # noqa: E402
from ptychonnx.train.torch import physics as torch_physics  # noqa: E402
from ptychonnx.train.torch.retrieval import Refined, Retrieval  # noqa: E402


def complex_noise(rng: np.random.Generator, *shape: int) -> NDArray[np.complex64]:
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("modes", [1, 3])
def test_forward_models_agree(size: int, modes: int) -> None:
    rng = np.random.default_rng(size + modes)
    patches, probe = complex_noise(rng, 2, 4, size, size), complex_noise(rng, modes, size, size)
    truth = forward(patches.astype(np.complex128), probe.astype(np.complex128))

    by_torch = (
        torch_physics.forward_intensity(torch.from_numpy(patches), torch.from_numpy(probe)).sqrt().numpy()
    )
    by_tensorflow = np.sqrt(
        tensorflow_physics.forward_intensity(tf.constant(patches), tf.constant(probe)).numpy()
    )
    by_numpy = forward(patches, probe)

    for name, amplitude in (("numpy", by_numpy), ("torch", by_torch), ("tensorflow", by_tensorflow)):
        assert np.abs(amplitude - truth).max() / truth.max() < 1e-5, name


@pytest.mark.parametrize("loss", ["mae", "poisson"])
def test_losses_agree_and_vanish_only_at_the_truth(loss: str) -> None:
    rng = np.random.default_rng(0)
    patches, probe = complex_noise(rng, 2, 3, 16, 16), 30 * complex_noise(rng, 1, 16, 16)
    amplitude = forward(patches, probe).astype(np.float32)
    offsets = np.zeros((2, 3, 2), dtype=np.int64)
    mask = rng.random((16, 16)) < 0.8
    weight = np.ones((16, 16), dtype=np.float32)
    wrong = patches * np.float32(1.1)

    def both(candidate: NDArray[np.complex64]) -> tuple[float, float]:
        # Groups of one: nothing is merged.
        shape = (-1, 1, 16, 16)
        arrays = (candidate.reshape(shape), amplitude.reshape(shape), offsets.reshape(-1, 1, 2))
        constants = {"probe": probe, "weight": weight, "mask": mask}
        return (
            torch_physics.physics_loss(
                *map(torch.from_numpy, arrays),
                **{name: torch.from_numpy(value) for name, value in constants.items()},
                scale=0.02,
                loss=loss,
            ).item(),
            tensorflow_physics.physics_loss(
                *map(tf.constant, arrays),
                **{name: tf.constant(value) for name, value in constants.items()},
                scale=0.02,
                loss=loss,
            )
            .numpy()
            .item(),
        )

    assert both(patches) == pytest.approx((0, 0), abs=1e-5)
    by_torch, by_tensorflow = both(wrong)
    assert by_torch == pytest.approx(by_tensorflow, rel=1e-5)

    trusted = np.broadcast_to(mask, amplitude.shape)
    if loss == "mae":
        expected = 0.02 * np.mean(0.1 * amplitude[trusted])
    else:
        counts = amplitude[trusted].astype(np.float64) ** 2
        rate = 1.21 * counts
        expected = 0.02**2 * np.mean(rate - counts + counts * np.log(counts / rate))
    assert by_torch == pytest.approx(expected, rel=1e-3)


def test_masked_pixels_do_not_count() -> None:
    rng = np.random.default_rng(1)
    patches, probe = complex_noise(rng, 1, 1, 16, 16), complex_noise(rng, 1, 16, 16)
    amplitude = forward(patches, probe).astype(np.float32)
    mask = np.ones((16, 16), dtype=bool)
    mask[3, 4] = False
    amplitude[..., 3, 4] = 1e6
    options = {"scale": 1.0, "loss": "mae"}
    offsets = np.zeros((1, 1, 2), dtype=np.int64)
    weight = np.ones((16, 16), dtype=np.float32)
    arrays = (patches, amplitude, offsets)
    constants = {"probe": probe, "weight": weight, "mask": mask}
    by_torch = torch_physics.physics_loss(
        *map(torch.from_numpy, arrays), **{k: torch.from_numpy(v) for k, v in constants.items()}, **options
    )
    by_tensorflow = tensorflow_physics.physics_loss(
        *map(tf.constant, arrays), **{k: tf.constant(v) for k, v in constants.items()}, **options
    )
    assert by_torch.item() < 1e-3
    assert by_tensorflow.numpy() < 1e-3


def test_merged_patches_are_windows_of_the_stitched_object() -> None:
    rng = np.random.default_rng(2)
    patches = complex_noise(rng, 2, 4, 16, 16)
    offsets = rng.integers(0, 9, (2, 4, 2))
    weight = illumination(complex_noise(rng, 1, 16, 16)).astype(np.float32) + 0.1
    by_torch = torch_physics.merge_patches(*map(torch.from_numpy, (patches, offsets, weight))).numpy()
    by_tensorflow = tensorflow_physics.merge_patches(*map(tf.constant, (patches, offsets, weight))).numpy()
    for group in range(2):
        positions = offsets[group].astype(np.float64) + 8
        stitcher = Stitcher(positions, weight)
        stitcher.add(patches[group], positions)
        stitched = stitcher.result()
        expected = cut_windows(stitched.object, positions, 16, stitched.origin)
        assert np.abs(by_torch[group] - expected).max() < 1e-5
        assert np.abs(by_tensorflow[group] - expected).max() < 1e-5


def test_merging_oracle_patches_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    known = complex_noise(rng, 40, 40)
    offsets = rng.integers(0, 9, (1, 6, 2))
    patches = cut_windows(known, offsets[0] + 8.0, 16)[None]
    weight = np.ones((16, 16), dtype=np.float32)
    by_torch = torch_physics.merge_patches(*map(torch.from_numpy, (patches, offsets, weight))).numpy()
    by_tensorflow = tensorflow_physics.merge_patches(*map(tf.constant, (patches, offsets, weight))).numpy()
    assert np.abs(by_torch - patches).max() < 1e-5
    assert np.abs(by_tensorflow - patches).max() < 1e-5


def test_supervised_losses_agree() -> None:
    rng = np.random.default_rng(4)
    patches, labels = complex_noise(rng, 2, 1, 16, 16), complex_noise(rng, 2, 1, 16, 16)
    weight = rng.random((16, 16)).astype(np.float32)
    by_torch = torch_physics.supervised_loss(*map(torch.from_numpy, (patches, labels, weight))).item()
    by_tensorflow = tensorflow_physics.supervised_loss(*map(tf.constant, (patches, labels, weight))).numpy()
    light = np.sqrt(weight)
    assert by_torch == pytest.approx((light * np.abs(patches - labels)).mean() / light.mean(), rel=1e-5)
    assert by_torch == pytest.approx(by_tensorflow, rel=1e-5)


def retrieved(
    start: NDArray[np.complex128],
    amplitude: NDArray[np.float64],
    probe: NDArray[np.complex128],
    mask: NDArray[np.bool_],
    steps: int,
) -> NDArray[np.complex128]:
    """Preconditioned gradient descent with momentum on one pattern, written with the FFT."""
    size = probe.shape[-1]
    density = illumination(probe)
    spread = (density / density.max() + 0.1) ** -0.25
    distance = np.arange(size)[:, None] - np.arange(size)
    covariance = np.exp(-(distance**2) / 8)

    def preconditioned(gradient: NDArray) -> NDArray:
        return spread * (covariance @ (spread * gradient) @ covariance)

    vector = np.ones((size, size))
    for _ in range(300):
        vector = preconditioned(density * vector)
        curvature = np.linalg.norm(vector)
        vector /= curvature
    ahead = last = start
    for _ in range(steps):
        waves = np.fft.fftshift(np.fft.fft2(probe * ahead, norm="ortho"), axes=(-2, -1))
        modelled = np.sqrt(np.sum(np.abs(waves) ** 2, axis=0) + 1e-5)
        wanted = np.where(mask, waves * amplitude / modelled, waves)
        change = np.fft.ifft2(np.fft.ifftshift(wanted - waves, axes=(-2, -1)), norm="ortho")
        now = ahead + preconditioned(np.sum(probe.conj() * change, axis=0)) * 4 / 3 / curvature
        ahead, last = now + 0.9 * (now - last), now
    return last


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("modes", [1, 2])
def test_first_guesses_agree_with_their_formula(size: int, modes: int) -> None:
    rng = np.random.default_rng(size)
    probe = 50 * complex_noise(rng, modes, size, size)
    amplitude = forward(complex_noise(rng, 3, size, size), probe).astype(np.float32)
    mask = rng.random((size, size)) < 0.9
    scale = 0.013
    guess = retrieval_constants(probe, scale, mask, steps=5, final_steps=1)
    by_torch = (
        torch_blocks.Features(guess)(torch.from_numpy(amplitude[:, None])).numpy().transpose(0, 2, 3, 1)
    )
    by_tensorflow = tensorflow_layers.Features(guess)(amplitude[:, None]).numpy()
    again = tensorflow_layers.Features(guess)(amplitude[:, None]).numpy()

    scaled, empty = scale * probe.astype(np.complex128), np.ones((size, size), np.complex128)
    expected = [retrieved(empty, scale * pattern, scaled, mask, 5) for pattern in amplitude]
    for features in (by_torch, by_tensorflow, again):
        found = 1 + (features[..., 0] + 1j * features[..., 1]) / CONTRAST_GAIN
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
        assert np.abs(features - by_torch).max() < 1e-3


def test_the_last_steps_agree_with_their_formula() -> None:
    rng = np.random.default_rng(6)
    probe, parts = complex_noise(rng, 1, 16, 16), rng.normal(size=(1, 16, 16, 2, 2)).astype(np.float32)
    amplitude = forward(complex_noise(rng, 2, 16, 16), probe).astype(np.float32)[None]
    guess = retrieval_constants(probe, 1.5, steps=1, final_steps=6)

    class Constant(torch.nn.Module):
        def forward(self, _: object) -> object:
            return torch.from_numpy(parts)

    refined, refinement = Refined(Constant(), guess), tensorflow_layers.Refinement(guess)
    found = {
        (training, steps): (
            refined.train(training)(torch.from_numpy(amplitude)).numpy(),
            refinement(tf.constant(parts), tf.constant(amplitude), training=training).numpy(),
        )
        for training, steps in ((False, 6), (True, 4))
    }
    start = parts.astype(np.float64) @ [1, 1j]
    scaled, everywhere = 1.5 * probe.astype(np.complex128), np.ones((16, 16), dtype=bool)
    for (_, steps), outputs in found.items():
        for channel in range(2):
            pattern = 1.5 * amplitude[0, channel]
            expected = retrieved(start[0, ..., channel], pattern, scaled, everywhere, steps)
            for output in outputs:
                assert np.abs(output[0, ..., channel, :] @ [1, 1j] - expected).max() < 1e-4


def test_the_true_object_is_not_changed() -> None:
    rng = np.random.default_rng(7)
    probe, known = complex_noise(rng, 2, 32, 32), complex_noise(rng, 1, 32, 32)
    amplitude = torch.from_numpy(forward(known, probe).astype(np.float32)[None])
    retrieval = Retrieval(retrieval_constants(probe, 1.0, steps=1, final_steps=1))
    parts = torch.from_numpy(np.stack([known.real, known.imag], axis=2)[None])
    found = retrieval(amplitude, 8, parts=parts)
    assert np.abs((found - parts).numpy()).max() < 1e-3


def test_every_step_explains_the_pattern_better() -> None:
    from ptychonnx.harness.simulate.objects import make_object
    from ptychonnx.harness.simulate.probes import make_probe

    probe = make_probe("zone-plate", 64) * 64
    known = make_object("lines", (64, 64), np.random.default_rng(8))
    amplitude = forward(known[None], probe).astype(np.float32)
    retrieval = Retrieval(retrieval_constants(probe, 1.0, steps=1, final_steps=1))
    errors = []
    for steps in range(13):
        parts = retrieval(torch.from_numpy(amplitude[None]), steps)[0]
        found = (parts[:, :, 0] + 1j * parts[:, :, 1]).numpy()
        errors.append(np.mean(np.abs(forward(found, probe) - amplitude)))
    assert all(after < before for before, after in pairwise(errors))
    assert errors[-1] < errors[0] / 4


def test_the_first_guess_of_an_empty_object_is_empty() -> None:
    probe = (100 * complex_noise(np.random.default_rng(5), 1, 32, 32)).astype(np.complex64)
    amplitude = forward(np.ones((1, 32, 32), np.complex64), probe).astype(np.float32)
    features = torch_blocks.Features(retrieval_constants(probe, 0.01, steps=9, final_steps=1))(
        torch.from_numpy(amplitude[:, None])
    ).numpy()
    assert np.abs(features[:, :2]).max() < 1e-3
