"""With few photons the total variation of the object is lowered, as much as predicts other patterns best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from skimage.restoration import denoise_tv_chambolle

import ptychonnx
from ptychonnx.harness.iterative.algorithm import Algorithm
from ptychonnx.harness.iterative.held_out import run_trial
from ptychonnx.harness.iterative.iterations import iterate
from ptychonnx.harness.iterative.refinement import refine
from ptychonnx.harness.iterative.total_variation import TotalVariation
from ptychonnx.harness.simulate.family import FamilyConfig, simulate_member
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.scan import Scan


def noisy_image(seed: int = 3) -> np.ndarray:
    random = np.random.default_rng(seed)
    image = np.ones((24, 31), dtype=np.complex64)
    image[6:16, 8:20] = 0.6 * np.exp(0.8j)
    return (image + 0.2 * (random.normal(size=image.shape) + 1j * random.normal(size=image.shape))).astype(
        np.complex64
    )


def smoothed(image: np.ndarray, weight: float, times: int = 60) -> np.ndarray:
    variation = TotalVariation(image.shape, weight)
    for _ in range(times):
        result = image.copy()
        variation.smooth(result)
    return result


def cost(result: np.ndarray, image: np.ndarray, weight: float) -> float:
    """What the proximal step minimises, written out."""
    down, right = np.zeros_like(result), np.zeros_like(result)
    down[:-1], right[:, :-1] = np.diff(result, axis=0), np.diff(result, axis=1)
    variation = np.sqrt(np.abs(down) ** 2 + np.abs(right) ** 2).sum()
    return float(0.5 * np.sum(np.abs(result - image) ** 2) + weight * variation)


def test_a_real_image_becomes_that_of_scikit_image():
    image = noisy_image().real.astype(np.float64)
    expected = denoise_tv_chambolle(image, weight=0.3, eps=1e-12, max_num_iter=20_000)
    result = smoothed(image.astype(np.complex64), 0.3, 400)
    np.testing.assert_allclose(result, expected, atol=0.01)
    assert cost(result, image, 0.3) < 1.001 * cost(expected, image, 0.3)


def test_nothing_near_the_result_costs_less():
    image = noisy_image()
    result = smoothed(image, 0.3)
    least = cost(result, image, 0.3)
    assert least < 0.8 * cost(image, image, 0.3)
    random = np.random.default_rng(0)
    for size in (1e-3, 1e-2):
        for _ in range(20):
            noise = random.normal(size=(2, *image.shape))
            assert cost(result + size * (noise[0] + 1j * noise[1]), image, 0.3) > least
    for share in (0.01, 0.1):
        assert cost(result + share * (image - result), image, 0.3) > least
        assert cost(result + share * (result.mean() - result), image, 0.3) > least


def test_the_global_phase_does_not_matter():
    image, turn = noisy_image(), np.exp(1.1j).astype(np.complex64)
    np.testing.assert_allclose(smoothed(turn * image, 0.3, 3), turn * smoothed(image, 0.3, 3), atol=1e-5)


def test_nothing_is_smoothed_where_nothing_varies():
    flat = np.full((5, 7), 0.3 - 0.4j, dtype=np.complex64)
    np.testing.assert_allclose(smoothed(flat, 0.5), flat, atol=1e-6)


def cells(photons: float) -> Scan:
    beam = {"min_photons": photons, "max_photons": photons, "min_overlap": 0.6, "max_overlap": 0.6}
    return simulate_member(FamilyConfig(n=32, scans=1, grid=8, object=("cells",), seed=3, **beam), 0)


@pytest.fixture(scope="module")
def noisy() -> Scan:
    return cells(3e4)


def true_error(scan: Scan, found: np.ndarray, origin: tuple[float, float]) -> float:
    known = scan.reference.object
    first = np.rint(np.asarray(origin) - scan.reference.origin).astype(int)
    rows, columns = (slice(12, length - 12) for length in found.shape)
    found, known = found[rows, columns], known[first[0] :, first[1] :][rows, columns]
    turn = np.vdot(found, known)
    return float(np.sqrt(np.mean(np.abs(found * turn / abs(turn) - known) ** 2)))


def test_the_weight_that_predicts_other_patterns_is_that_of_the_least_true_error(noisy):
    errors = {}
    for weight in (0.0, 0.0625, 0.125, 0.25, 0.5, 1.0):
        stitched = iterate(noisy, 30, algorithm=Algorithm(smoothing=weight)).stitched
        errors[weight] = true_error(noisy, stitched.object, stitched.origin)
    trial = run_trial(noisy, None, Algorithm())
    chosen = trial.algorithm.smoothing
    assert chosen > 0
    assert errors[chosen] < 0.7 * errors[0.0]
    assert errors[chosen] < 1.15 * min(errors.values())
    # The trial of the chosen weight, and not of another, tells the misfit.
    alone = run_trial(noisy, None, Algorithm(smoothing=chosen))
    np.testing.assert_array_equal(trial.held_out.misfit.per_pattern, alone.held_out.misfit.per_pattern)


def test_what_is_reconstructed_says_how_it_was_smoothed(noisy):
    made = refine(noisy, None, "auto")
    chosen = run_trial(noisy, None, Algorithm()).algorithm.smoothing
    assert f"smoothing {chosen:g}, probe held" in made.refinement
    plain = refine(noisy, None, "auto", Algorithm(smoothing=0))
    assert "smoothing" not in plain.refinement
    origin = made.stitched.origin
    assert true_error(noisy, made.object, origin) < 0.7 * true_error(noisy, plain.object, origin)


def test_many_photons_need_no_trials():
    scan = cells(1e9)
    assert run_trial(scan, None, Algorithm()).algorithm == Algorithm()
    assert "smoothing" not in refine(scan, None, 3).refinement


def test_an_object_that_leaves_noise_alone_is_smoothed_if_photons_are_few(noisy):
    """A network is judged by patterns that hold as much noise as it left."""
    start = refine(noisy, None, 60, Algorithm(smoothing=0))
    assert start.misfit.value == start.misfit.scattered == 0
    assert "smoothing" in refine(noisy, start, "auto").refinement
    assert refine(noisy, start, "auto", Algorithm(smoothing=0)).refinement.startswith("0 epochs")


def test_a_trial_takes_the_part_of_a_large_object_that_its_patterns_reach(noisy):
    """The same object, with a wide margin around it."""
    start = iterate(noisy, 2).stitched
    wide = replace(
        start,
        object=np.pad(start.object, 50),
        weight=np.pad(start.weight, 50),
        origin=(start.origin[0] - 50, start.origin[1] - 50),
    )
    near, far = (run_trial(noisy, each, Algorithm(smoothing=0.5)) for each in (start, wide))
    assert far.held_out.misfit.value == pytest.approx(near.held_out.misfit.value, rel=0.01)


@pytest.mark.parametrize("smoothing", [-0.1, 101.0, float("nan")])
def test_weights_out_of_range_are_refused(smoothing: float):
    with pytest.raises(InputError, match=f"smoothing is {smoothing:g}, expected a value from 0 to 100"):
        Algorithm(smoothing=smoothing)


def test_the_command_line_smooths_or_leaves_it(run, noisy, tmp_path):
    scan, out = tmp_path / "scan.npz", tmp_path / "object.npz"
    write_scan(scan, noisy)
    code, text, err = run("reconstruct", scan, "--iterations", 5, "--smoothing", 0.3, "--out", out)
    assert code == 0, err
    assert "smoothing 0.3" in text + err
    code, _, err = run("reconstruct", scan, "--iterations", 5, "--smoothing", -1, "--out", tmp_path / "p.npz")
    assert code == 2
    assert "--smoothing" in err
    assert not (tmp_path / "p.npz").exists()
    report = ptychonnx.evaluate([], [scan], None, iterations=5, smoothing=0.3)
    assert report.rows
