"""Iterations find a known object, stay at it, and converge sooner from an object that is nearly right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychonnx.harness.iterative.algorithm import Algorithm
from ptychonnx.harness.iterative.coarse_phase import CoarsePhase
from ptychonnx.harness.iterative.iterations import MOST_EPOCHS, has_settled, iterate, vacuum
from ptychonnx.harness.iterative.probe_estimate import with_estimated_probe
from ptychonnx.harness.iterative.window_updates import WindowUpdates
from ptychonnx.harness.simulate.family import FamilyConfig, simulate_member
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.reconstruction.stitching import Stitched
from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward, window_corners
from ptychonnx.runtime.scan.probe_distance import FAR, probe_distance

SIZE = 16


def known_scan(fraction: float = 0.0, modes: int = 1, photons: float = 1e6) -> Scan:
    """Noise-free patterns of an object without any symmetry, at 5 x 6 places that are no grid."""
    rng = np.random.default_rng(5)
    rows, columns = 30, 38
    spectrum = np.fft.fft2(rng.normal(size=(rows, columns)) + 1j * rng.normal(size=(rows, columns)))
    low = (np.abs(np.fft.fftfreq(rows)) < 0.2)[:, None] & (np.abs(np.fft.fftfreq(columns)) < 0.2)
    noise = np.fft.ifft2(spectrum * low)
    amplitude = 1 - 0.4 * noise.real**2 / np.max(noise.real**2)
    truth = (amplitude * np.exp(0.8j * noise.imag / np.abs(noise.imag).max())).astype(np.complex64)
    row, column = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    envelope = np.exp(-((row - 1) ** 2 + column**2 / 2) / (SIZE / 5) ** 2)
    first = envelope * np.exp(1j * (0.03 * row**2 - 0.02 * column**2 + 0.1 * row))
    probe = np.stack([first, 0.4 * column / SIZE * first][:modes])
    probe = (probe * np.sqrt(photons / np.sum(np.abs(probe) ** 2))).astype(np.complex64)
    places = np.stack(np.meshgrid(np.arange(9, 22, 3), np.arange(9, 30, 4), indexing="ij"), axis=-1)
    positions = (places.reshape(-1, 2) + rng.integers(-1, 2, (places.size // 2, 2))).astype(np.float64)
    # The canvas begins elsewhere, and the object too.
    origin = (7.0, -11.0)
    if fraction:
        # Far from the borders the probe is 0, so that it may be shifted instead of the object.
        ramp = np.exp(-2j * np.pi * fraction * (np.fft.fftfreq(SIZE)[:, None] + 2 * np.fft.fftfreq(SIZE)))
        lit = np.fft.ifft2(np.fft.fft2(probe) * ramp)
    else:
        lit = probe
    patches = cut_windows(truth, positions, SIZE)
    return Scan(
        diffraction=forward(patches, lit).astype(np.float32),
        positions=positions + np.array(origin) + np.array([fraction, 2 * fraction]),
        probe=probe,
        reference=Reference(truth, origin),
        name="known",
    )


def on_canvas(scan: Scan, image: np.ndarray | None = None) -> Stitched:
    """The reference (or an image of its shape) on the canvas of the scan, 1 outside."""
    start = vacuum(scan)
    assert scan.reference is not None
    known = scan.reference.object if image is None else image
    at = np.rint(np.subtract(start.origin, scan.reference.origin)).astype(int)
    rows, columns = start.object.shape
    canvas = np.ones_like(start.object)
    cut = known[at[0] : at[0] + rows, at[1] : at[1] + columns]
    canvas[: cut.shape[0], : cut.shape[1]] = cut
    return replace(start, object=canvas)


def noisy_scan(photons: float) -> Scan:
    """The known scan with counting noise."""
    scan = known_scan(photons=photons)
    counts = np.random.default_rng(1).poisson(np.square(scan.diffraction.astype(np.float64)))
    return replace(scan, diffraction=np.sqrt(counts).astype(np.float32))


def error(found: Stitched, scan: Scan) -> float:
    """Complex root mean square error over that of the reference, after one global phase, where light fell."""
    truth = on_canvas(scan).object
    lit = found.weight > 0.3 * found.weight.max()
    image, known = found.object[lit], truth[lit]
    turn = np.vdot(image, known)
    return float(np.linalg.norm(image * turn / abs(turn) - known) / np.linalg.norm(known))


def test_the_known_object_comes_back_from_vacuum():
    scan = known_scan()
    done = iterate(scan, 25)
    assert error(vacuum(scan), scan) > 0.2
    assert error(done.stitched, scan) < 0.03
    assert done.misfit[-1] < 0.1 * done.misfit[0]


def test_no_mirror_image_and_no_other_place_of_the_direct_beam_explains_the_patterns():
    scan = known_scan()
    right = iterate(scan, 15, algorithm=Algorithm(alpha=1)).misfit[-1]
    turned = replace(scan, positions=scan.positions[:, ::-1].copy())
    mirrored = replace(scan, diffraction=scan.diffraction[:, ::-1].copy())
    cornered = replace(scan, diffraction=np.fft.fftshift(scan.diffraction, axes=(1, 2)))
    for wrong in (turned, mirrored, cornered):
        assert iterate(wrong, 15, algorithm=Algorithm(alpha=1)).misfit[-1] > 3 * right


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_at_the_known_object_they_stay(fraction: float, modes: int):
    scan = known_scan(fraction, modes)
    done = iterate(scan, 2, on_canvas(scan))
    # The shifted probe is cut off at the borders, a little differently here and there.
    assert done.misfit[0] < (3e-3 if fraction else 1e-5)
    assert error(done.stitched, scan) < (2e-3 if fraction else 1e-5)


def test_fractions_of_a_pixel_count():
    scan = known_scan(0.3)
    whole = replace(scan, positions=np.floor(scan.positions))
    assert iterate(whole, 1, on_canvas(whole)).misfit[0] > 10 * iterate(scan, 1, on_canvas(scan)).misfit[0]


def test_from_an_object_that_is_nearly_right_they_need_fewer_epochs():
    scan = known_scan()
    rng = np.random.default_rng(0)
    assert scan.reference is not None
    shape = scan.reference.object.shape
    noise = 0.05 * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
    near = on_canvas(scan, (scan.reference.object + noise).astype(np.complex64))
    for epochs in (1, 3):
        assert error(iterate(scan, epochs, near).stitched, scan) < 0.6 * error(
            iterate(scan, epochs).stitched, scan
        )


def test_pixels_outside_the_mask_do_not_pull():
    scan = known_scan()
    spoilt, mask = scan.diffraction.copy(), np.ones((SIZE, SIZE), dtype=bool)
    spoilt[:, 9, 8], mask[9, 8] = 3 * spoilt.max(), False
    broken = replace(scan, diffraction=spoilt)
    assert error(iterate(broken, 10).stitched, scan) > 0.15
    assert error(iterate(replace(broken, mask=mask), 10).stitched, scan) < 0.1


def test_what_lies_under_the_mask_is_never_read():
    scan = known_scan()
    assert scan.probe is not None
    amplitudes = np.fft.ifftshift(scan.diffraction, axes=(1, 2)).copy()
    valid = np.ones((SIZE, SIZE), dtype=bool)
    amplitudes[:, 3, 4], valid[3, 4] = np.nan, False
    start = vacuum(scan)
    corners = window_corners(scan.positions, SIZE) - start.origin
    updates = WindowUpdates(start.object, scan.probe, amplitudes, valid, corners)
    assert np.isfinite(updates.visit(0, 0.3))
    assert np.isfinite(updates.object).all()


def test_a_probe_that_is_wrong_is_refined_only_if_that_is_asked_for():
    scan = known_scan()
    assert scan.probe is not None
    row, column = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    wrong = replace(scan, probe=(scan.probe * np.exp(0.02j * (row**2 - column**2))).astype(np.complex64))
    held, refined = iterate(wrong, 10), iterate(wrong, 10, algorithm=Algorithm(refine_probe=True))
    np.testing.assert_allclose(held.probe, wrong.probe, rtol=1e-5)
    assert refined.misfit[-1] < 0.6 * held.misfit[-1]
    patches = cut_windows(refined.stitched.object, wrong.positions, SIZE, refined.stitched.origin)
    misfit = np.linalg.norm(forward(patches, refined.probe) - wrong.diffraction)
    assert misfit < 1.2 * refined.misfit[-1] * np.linalg.norm(wrong.diffraction)
    assert "refined" in refined.text
    assert "held" in held.text


@pytest.mark.parametrize("fraction", [0.0, 0.3])
@pytest.mark.parametrize("alpha", [1.0, 0.1])
def test_one_epoch_is_rpie_written_out(alpha: float, fraction: float):
    scan = known_scan(fraction, modes=2)
    assert scan.probe is not None
    done = iterate(scan, 1, seed=4, algorithm=Algorithm(step=0.7, alpha=alpha, momentum=0))
    canvas = np.ones(done.stitched.object.shape, dtype=np.complex128)
    # All windows lie the same fraction of a pixel off the grid.
    ramp = np.exp(-2j * np.pi * fraction * (np.fft.fftfreq(SIZE)[:, None] + 2 * np.fft.fftfreq(SIZE)))
    probe = np.fft.ifft2(np.fft.fft2(scan.probe.astype(np.complex128)) * ramp)
    light = np.sum(np.abs(probe) ** 2, axis=0)
    brightest = np.sum(np.abs(scan.probe.astype(np.complex128)) ** 2, axis=0).max()
    corners = np.floor(window_corners(scan.positions, SIZE) - done.stitched.origin + 1e-6).astype(int)
    for index in np.random.default_rng(4).permutation(len(scan)):
        row, column = corners[index]
        window = canvas[row : row + SIZE, column : column + SIZE]
        waves = np.fft.fft2(window * probe, norm="ortho")
        measured = np.fft.ifftshift(scan.diffraction[index])
        modelled = np.sqrt(np.sum(np.abs(waves) ** 2, axis=0))
        corrected = np.fft.ifft2(waves * measured / modelled, norm="ortho")
        change = np.sum(probe.conj() * (corrected - window * probe), axis=0)
        window += 0.7 * change / ((1 - alpha) * light + alpha * brightest)
    np.testing.assert_allclose(done.stitched.object, canvas, atol=1e-3)
    assert np.abs(canvas - 1).max() > 0.1


def test_epie_of_cdtools_finds_the_same_object():
    """An independent implementation, with automatic differentiation, several modes and a mask."""
    pytest.importorskip("cdtools")
    import torch
    from cdtools.datasets import Ptycho2DDataset
    from cdtools.models import FancyPtycho
    from cdtools.reconstructors import SGDReconstructor

    scan = known_scan(0.3, modes=2)
    assert scan.probe is not None
    mask = np.ones((SIZE, SIZE), dtype=bool)
    mask[3, 4] = False
    scan = replace(scan, mask=mask)
    start = vacuum(scan)
    corners = np.zeros((len(scan), 3), dtype=np.float32)
    corners[:, :2] = window_corners(scan.positions, SIZE) - start.origin
    dataset = Ptycho2DDataset(corners, np.square(scan.diffraction))
    axes = np.eye(3, 2, dtype=np.float32)
    model = FancyPtycho(
        1.0,
        {"distance": 1.0, "basis": axes},
        axes,
        scan.probe,
        np.ones(start.object.shape, dtype=np.complex64),
        background=np.zeros((SIZE, SIZE), dtype=np.float32),
        weights=np.ones(len(scan), dtype=np.float32),
        mask=mask,
        plot_level=0,
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name == "obj"
    descent = SGDReconstructor(model, dataset)
    brightest = np.sum(np.abs(scan.probe.astype(np.complex128)) ** 2, axis=0).max()
    descent.adjust_optimizer(lr=0.5 / brightest)
    rng = np.random.default_rng(4)
    for _ in range(2):
        descent.data_loader = [dataset[[int(index)]] for index in rng.permutation(len(scan))]
        descent.run_epoch(calculation_width=1)
    done = iterate(scan, 2, seed=4, algorithm=Algorithm(alpha=1, momentum=0))
    with torch.no_grad():
        np.testing.assert_allclose(done.stitched.object, model.obj.numpy(), atol=1e-3)
    assert np.abs(done.stitched.object - 1).max() > 0.1


def test_momentum_is_mpie_written_out():
    """An epoch of rPIE, three with momentum before each half, and one of ePIE without."""
    scan, alpha, eta = known_scan(), 0.2, 0.6
    assert scan.probe is not None
    done = iterate(scan, 5, seed=4, algorithm=Algorithm(alpha=alpha, momentum=eta, coarse_phase=False))
    canvas = np.ones(done.stitched.object.shape, dtype=np.complex128)
    probe = scan.probe[0].astype(np.complex128)
    light = np.abs(probe) ** 2
    corners = np.rint(window_corners(scan.positions, SIZE) - done.stitched.origin).astype(int)
    rng, before, velocity = np.random.default_rng(4), canvas.copy(), np.zeros_like(canvas)
    for epoch in range(5):
        denominator = light.max() if epoch == 4 else (1 - alpha) * light + alpha * light.max()
        for place, index in enumerate(rng.permutation(len(scan))):
            if place in {0, len(scan) // 2}:
                velocity = eta * velocity + canvas - before
                if 0 < epoch < 4:
                    canvas += eta * velocity
                before = canvas.copy()
            row, column = corners[index]
            window = canvas[row : row + SIZE, column : column + SIZE]
            wave = np.fft.fft2(window * probe, norm="ortho")
            measured = np.fft.ifftshift(scan.diffraction[index])
            corrected = np.fft.ifft2(wave / np.abs(wave) * measured, norm="ortho")
            window += probe.conj() * (corrected - window * probe) / denominator
    np.testing.assert_allclose(done.stitched.object, canvas, atol=2e-3)
    assert error(done.stitched, scan) < 0.7 * error(
        iterate(scan, 5, algorithm=Algorithm(alpha=alpha, momentum=0)).stitched, scan
    )


def test_momentum_halves_the_epochs():
    scan = known_scan()
    with_momentum, without = iterate(scan, 10), iterate(scan, 20, algorithm=Algorithm(momentum=0))
    assert error(with_momentum.stitched, scan) < error(without.stitched, scan)
    assert with_momentum.misfit[-1] < without.misfit[-1]
    assert "10 epochs of mPIE, alpha 0.32, momentum 0.8, coarse phase corrected, step 1" in with_momentum.text
    assert "20 epochs of rPIE, alpha 0.32, step 1" in without.text


def slow_phase(shape: tuple[int, ...]) -> np.ndarray:
    """A phase that varies by a radian over the known object, without a mean."""
    row, column = np.mgrid[: shape[0], : shape[1]]
    return 0.5 * np.sin(np.pi * row / shape[0]) * np.cos(np.pi * column / shape[1])


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_a_slow_phase_is_found_from_what_the_patterns_miss(fraction: float, modes: int):
    """Updates that are next to nothing leave the object, so that what is found is the correction alone."""
    scan = known_scan(fraction, modes)
    assert scan.probe is not None
    right = on_canvas(scan)
    phase = slow_phase(right.object.shape)
    corners = window_corners(scan.positions, SIZE) - right.origin
    mask = np.ones((SIZE, SIZE), dtype=bool)
    mask[3, 4] = False
    image = right.object * np.exp(1j * phase)
    amplitudes = np.fft.ifftshift(scan.diffraction, axes=(1, 2))
    updates = WindowUpdates(image, scan.probe, amplitudes, mask, corners, step=1e-6)
    for index in range(len(scan)):
        updates.visit(index, 1.0)
    information = np.stack([updates.information(index) for index in range(len(scan))])
    coarse = CoarsePhase(image.shape, corners + SIZE // 2, 8.0, information)
    factor = coarse.factor(updates.slopes)
    assert factor is not None
    np.testing.assert_allclose(np.abs(factor), 1, atol=1e-5)
    lit = right.weight > 0.3 * right.weight.max()
    found, wanted = np.angle(factor)[lit], -phase[lit]
    assert np.corrcoef(found, wanted)[0, 1] > 0.9
    # With a ridge as large as the information a correction is cautious.
    assert 0.3 < np.std(found) / np.std(wanted) < 1


@pytest.mark.parametrize("modes", [1, 2])
def test_what_a_pattern_tells_is_how_its_amplitudes_change(modes: int):
    """Compared with differences between an object with small ramps and its patterns."""
    scan = known_scan(modes=modes)
    assert scan.probe is not None
    right = on_canvas(scan)
    mask = np.ones((SIZE, SIZE), dtype=bool)
    mask[:3, :3] = False
    corners = window_corners(scan.positions, SIZE) - right.origin
    amplitudes = np.fft.ifftshift(scan.diffraction, axes=(1, 2))
    updates = WindowUpdates(right.object, scan.probe, amplitudes, mask, corners, step=1e-6)
    window = cut_windows(right.object, scan.positions, SIZE, right.origin)[7]
    slopes = []
    for axis in np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij"):
        up, down = (
            forward(np.stack([window * np.exp(1j * step * axis)]), scan.probe)[0] for step in (1e-3, -1e-3)
        )
        slopes.append(np.fft.ifftshift((up - down) / 2e-3)[mask])
    expected = np.array(slopes, dtype=np.float64) @ np.array(slopes, dtype=np.float64).T
    np.testing.assert_allclose(updates.information(7), expected, rtol=0.02)
    # What the amplitudes lack is then what an object with such a ramp lacks.
    ramp = np.exp(0.01j * np.arange(right.object.shape[0]))[:, None]
    updates = WindowUpdates(right.object * ramp, scan.probe, amplitudes, mask, corners, step=1e-6)
    updates.visit(7, 1.0)
    np.testing.assert_allclose(
        updates.slopes[7], -0.01 * expected[:, 0], rtol=0.1, atol=0.02 * expected[0, 0] * 0.01
    )


def test_slopes_that_noise_explains_are_not_followed():
    rng = np.random.default_rng(3)
    centres = rng.uniform(5, 95, (200, 2))
    root = rng.normal(size=(200, 2, 2))
    information = root @ np.swapaxes(root, 1, 2) + np.eye(2)
    coarse = CoarsePhase((100, 100), centres, 10.0, information)
    # J^T r for amplitudes with the standard deviation of counting noise, one half.
    noise = (0.5 * np.linalg.cholesky(information) @ rng.normal(size=(200, 2, 1)))[:, :, 0]
    assert coarse.factor(noise) is None
    assert coarse.factor(10 * noise) is not None
    assert CoarsePhase((100, 100), centres, 10.0, np.zeros((200, 2, 2))).factor(np.zeros((200, 2))) is None


def test_a_slow_phase_is_corrected_sooner_than_iterations_pass_it_on():
    """A scan with little overlap, twelve windows long."""
    config = FamilyConfig(
        n=16,
        scans=1,
        grid=12,
        beam=("gaussian",),
        object=("cells",),
        max_modes=1,
        min_photons=1e8,
        max_photons=1e8,
        min_overlap=0.3,
        max_overlap=0.3,
        seed=1,
    )
    scan = simulate_member(config, 0)
    right = on_canvas(scan)
    start = replace(
        right, object=right.object * np.exp(1j * slow_phase(right.object.shape)).astype(np.complex64)
    )
    errors = [
        error(iterate(scan, 5, start, Algorithm(coarse_phase=coarse)).stitched, scan)
        for coarse in (None, False)
    ]
    assert error(start, scan) > 0.2
    assert errors[0] < 0.4 * errors[1], errors


def test_few_photons_are_not_followed_into_their_noise():
    scan, noisy = known_scan(photons=1e4), noisy_scan(photons=1e4)
    careful = error(iterate(noisy, 40).stitched, scan)
    assert careful < 0.9 * error(iterate(noisy, 40, algorithm=Algorithm(alpha=0.1)).stitched, scan)
    assert careful < 0.9 * error(iterate(noisy, 40, algorithm=Algorithm(momentum=0)).stitched, scan)


@pytest.mark.parametrize(("photons", "alpha"), [(1e3, "1"), (1e6, "0.32"), (1e9, "0.1")])
def test_alpha_follows_the_photons(photons: float, alpha: str):
    assert f"alpha {alpha}," in iterate(known_scan(photons=photons), 1).text


def test_a_probe_is_refined_without_momentum():
    """With it, object and probe chase each other."""
    scan = replace(known_scan(), probe=0.8 * known_scan().probe)
    refined = iterate(scan, 40, algorithm=Algorithm(refine_probe=True))
    assert "rPIE" in refined.text
    assert "momentum" not in refined.text
    assert refined.misfit[-1] < 0.03
    assert "mPIE" in iterate(scan, 1, algorithm=Algorithm(momentum=0.5, refine_probe=True)).text


def test_once_settled_only_the_last_epochs_follow():
    scan = noisy_scan(photons=1e6)
    done = iterate(scan, "auto")
    epochs = len(done.misfit)
    assert 11 <= epochs < MOST_EPOCHS
    assert has_settled(done.misfit[:-2])
    assert not has_settled(done.misfit[:-3])
    np.testing.assert_array_equal(done.stitched.object, iterate(scan, epochs).stitched.object)
    # Noise settles where rPIE alone would go on.
    without = iterate(noisy_scan(photons=1e4), "auto", algorithm=Algorithm(momentum=0)).misfit
    assert len(without) < MOST_EPOCHS
    assert has_settled(without)
    assert not has_settled(without[:-1])


def test_the_same_seed_gives_the_same_object_and_another_one_another():
    scan = known_scan()
    one, same, other = (iterate(scan, 2, seed=seed).stitched.object for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-4


def test_the_object_can_be_watched():
    scan = known_scan()
    seen = {}
    done = iterate(scan, 3, watch=lambda epoch, image: seen.update({epoch: image().copy()}))
    assert list(seen) == [1, 2, 3]
    np.testing.assert_array_equal(seen[3], done.stitched.object)
    assert np.abs(seen[1] - seen[3]).max() > 1e-3
    assert len(done.seconds) == len(done.misfit) == 3


def test_what_cannot_be_iterated_on_is_refused():
    scan = known_scan()
    with pytest.raises(InputError, match=r"known: iterations need a probe .* --probe"):
        iterate(replace(scan, probe=None), 1)
    with pytest.raises(InputError, match="got 0 epochs"):
        iterate(scan, 0)
    with pytest.raises(InputError, match="step is 2"):
        iterate(scan, 1, algorithm=Algorithm(step=2.0))
    for alpha in (0.0, 1.5):
        with pytest.raises(InputError, match=f"alpha is {alpha:g}, expected more than 0 and at most 1"):
            iterate(scan, 1, algorithm=Algorithm(alpha=alpha))
    for momentum in (-0.1, 1.0):
        with pytest.raises(
            InputError, match=f"momentum is {momentum:g}, expected a value from 0 and less than 1"
        ):
            iterate(scan, 1, algorithm=Algorithm(momentum=momentum))
    small = Stitched(np.ones((20, 20), dtype=np.complex64), np.ones((20, 20)), vacuum(scan).origin)
    with pytest.raises(InputError, match="windows leave the object"):
        iterate(scan, 1, small)


def test_the_probe_of_a_scan_without_one_is_estimated():
    config = FamilyConfig(
        n=32,
        scans=1,
        grid=8,
        beam=("zone-plate-open",),
        object=("cells",),
        max_modes=1,
        min_overlap=0.75,
        seed=3,
    )
    scan = simulate_member(config, 0)
    blind = replace(scan, probe=None)
    estimated, text = with_estimated_probe(blind)
    assert probe_distance(estimated.probe, scan.probe) < FAR / 2
    assert "30 epochs of rPIE on 64 patterns, good: forward misfit 0.0" in text
    with pytest.raises(InputError, match="has a probe"):
        with_estimated_probe(scan)


def test_a_probe_is_not_estimated_from_patterns_that_contradict_each_other():
    scan = replace(known_scan(), probe=None)
    mixed = replace(scan, diffraction=np.random.default_rng(0).permuted(scan.diffraction, axis=1))
    with pytest.raises(VerificationError, match="give a probe with --probe FILE"):
        with_estimated_probe(mixed)
