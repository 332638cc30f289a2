"""The beam of a scan: its arrays, its distance from another, whether an object explains the patterns."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ptychonnx import simulate_lines
from ptychonnx.harness.simulate.conditions import defocused
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.harness.simulate.probes import PIXEL_SIZE, WAVELENGTH, disk_probe, zone_plate_probe
from ptychonnx.runtime.contract import BeamInputs, Contract, TrainedBeams
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.reconstruction import Reconstruction, reconstruct
from ptychonnx.runtime.reconstruction.misfit import (
    GOOD,
    SCATTERED_DOUBTFUL,
    SCATTERED_GOOD,
    Misfit,
    forward_misfit,
)
from ptychonnx.runtime.reconstruction.neighbour_agreement import (
    NeighbourAgreement,
    neighbour_agreement,
    neighbour_pairs,
)
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.reconstruction.stitching import Stitched, Stitcher
from ptychonnx.runtime.reconstruction.trust import beam_warnings
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.beam_arrays import beam_arrays
from ptychonnx.runtime.scan.forward_model import cut_windows, illumination
from ptychonnx.runtime.scan.probe_distance import FAR, probe_distance, probe_of_thumbnail, thumbnail
from ptychonnx.runtime.scan.probe_geometry import IN_FOCUS, defocus, fresnel_number, probe_diameter
from tests.export.small_network import contract_of
from tests.hostile.subjects import known_scan
from tests.runtime.test_session import contract as identity_contract
from tests.runtime.test_session import write_identity

N = 32


@pytest.fixture(scope="module")
def scan() -> Scan:
    config = LinesConfig(n=N, step=4, train_grid=8, photons=1e6)
    return simulate_scan(config, config.train_grid, np.random.SeedSequence(7), "tiny")


def contract(**changes: object) -> Contract:
    return contract_of("net", n=N, **changes)


def test_the_distance_is_blind_to_phase_position_conjugation_and_power():
    probe = zone_plate_probe(64)
    noise = np.random.default_rng(0).normal(size=(2, 1, 64, 64)) * np.abs(probe).max() * 0.01
    same = [
        probe * 7 * np.exp(1.3j),
        np.roll(probe, (3, -5), axis=(1, 2)),
        probe.conj(),
        np.roll(probe[:, ::-1, ::-1], 1, axis=(1, 2)).conj(),
        probe + noise[0] + 1j * noise[1],
        np.concatenate([0.1 * np.roll(probe, 9, axis=1), probe]),
    ]
    for other in same:
        assert probe_distance(probe, other) < 0.15
    for other in (disk_probe(64), zone_plate_probe(64, defocus=20e-6), zone_plate_probe(64, central_stop=0)):
        assert probe_distance(probe, other) > FAR
    assert probe_distance(probe, zone_plate_probe(32)) > FAR


def test_a_thumbnail_is_the_probe():
    probe = zone_plate_probe(64)
    text = thumbnail(probe)
    assert len(text) < 6000
    assert probe_distance(probe, probe_of_thumbnail(text)) < 0.01
    assert probe_distance(disk_probe(64), probe_of_thumbnail(text)) > FAR
    for damaged in ("no base64", text[:-8]):
        with pytest.raises(InputError, match="thumbnail"):
            probe_of_thumbnail(damaged)


def test_arrays_hold_the_beam_of_the_scan(scan):
    arrays = beam_arrays(scan, 2)
    assert np.array_equal(arrays["probe"][0, ..., 0] + 1j * arrays["probe"][0, ..., 1], scan.probe[0])
    assert not arrays["probe"][1].any()
    assert arrays["mask"].all()
    assert arrays["scale"].shape == ()
    assert float(arrays["scale"]) == pytest.approx(N / scan.flux**0.5)
    assert {values.dtype for values in arrays.values()} == {np.dtype(np.float32)}


def test_of_too_many_modes_the_strongest_stay_and_the_loss_is_stated(scan, caplog):
    probe = np.concatenate([0.3 * scan.probe, scan.probe, 0.4 * scan.probe])
    arrays = beam_arrays(replace(scan, probe=probe), 2)
    assert np.allclose(arrays["probe"][0, ..., 0], scan.probe[0].real)
    assert np.allclose(arrays["probe"][1, ..., 0], 0.4 * scan.probe[0].real)
    assert "3 modes, the network takes 2" in caplog.text
    assert "7.2 %" in caplog.text  # 0.09 / 1.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scan: {"probe": None}, "no probe"),
        (lambda scan: {"mask": np.hypot(*np.indices((N, N)) - N // 2) > 8}, "% of the counts"),
        (lambda scan: {"diffraction": np.zeros_like(scan.diffraction)}, "no photons"),
    ],
)
def test_a_beam_that_cannot_be_used_is_refused_in_one_line(scan, change, message):
    with pytest.raises(InputError, match=message) as caught:
        beam_arrays(replace(scan, **change(scan)), 1)
    assert "\n" not in str(caught.value)


def stitched_truth(scan: Scan) -> Stitched:
    image = scan.reference.object
    return Stitched(image, np.ones(image.shape), scan.reference.origin)


def test_the_true_object_has_no_misfit_and_others_have(scan):
    truth = stitched_truth(scan)
    misfit = forward_misfit(scan, truth)
    assert misfit.value < 0.02
    assert misfit.verdict == "good"
    assert len(misfit.per_pattern) == len(scan)
    vacuum = forward_misfit(scan, replace(truth, object=np.ones_like(truth.object)))
    assert vacuum.verdict == "wrong"
    assert vacuum.value > 10 * misfit.value
    assert forward_misfit(replace(scan, probe=None), truth) is None


def test_counting_noise_is_no_misfit():
    config = LinesConfig(n=N, step=4, train_grid=8, photons=3e3)
    faint = simulate_scan(config, 8, np.random.SeedSequence(7), "faint")
    misfit = forward_misfit(faint, stitched_truth(faint))
    # A variance of 1/4 in the square root of every count, or of the mean where that is less, would leave 0.08.
    assert misfit.value < 0.03
    assert misfit.scattered < 0.1
    # Nobody could have found this object in the patterns.
    assert misfit.verdict == "doubtful"
    assert f"the noise of so few photons is {misfit.noise.share:.2f} times its contrast: count longer" in str(
        misfit
    )
    assert "iterate" not in str(misfit)


@pytest.mark.parametrize("n", [64, 128, 256])
def test_a_blurred_object_is_not_called_good_whatever_the_size_of_the_patterns(n):
    scan = simulate_lines(grid=2, n=n, step=6 * n // 64)
    truth = stitched_truth(scan)
    misfit = forward_misfit(scan, truth)
    assert misfit.scattered < 0.05
    assert misfit.verdict == "good"
    blurred = gaussian_filter(truth.object.real, 1.6) + 1j * gaussian_filter(truth.object.imag, 1.6)
    misfit = forward_misfit(scan, replace(truth, object=blurred.astype(np.complex64)))
    # The direct beam hides the error from the misfit of all the light, the more so the larger the patterns are.
    assert misfit.value < GOOD
    assert SCATTERED_GOOD < misfit.scattered < SCATTERED_DOUBTFUL
    assert misfit.verdict == "doubtful"
    assert f"of the scattered light alone {misfit.scattered:.3f}: doubtful" in str(misfit)
    assert forward_misfit(scan, replace(truth, object=truth.object[::-1])).verdict == "wrong"


def test_a_network_of_another_beam_is_wrong():
    scan = simulate_lines(grid=4, probe="disk")
    assert reconstruct(Session("zoo:pinn_hybrid", "cpu"), scan).misfit.verdict == "wrong"


def test_a_misfit_of_a_few_patterns_is_seen_on_the_map(scan):
    diffraction = scan.diffraction.copy()
    diffraction[5] = diffraction[40]
    misfit = forward_misfit(replace(scan, diffraction=diffraction), stitched_truth(scan))
    assert misfit.patterns[misfit.per_pattern.argmax()] == 5


def test_positions_between_pixels_are_interpolated(scan):
    moved = replace(scan, positions=scan.positions + 0.5)
    truth = stitched_truth(scan)
    shifted = replace(truth, origin=(truth.origin[0] + 0.5, truth.origin[1] + 0.5))
    assert forward_misfit(moved, shifted).value == pytest.approx(forward_misfit(scan, truth).value)


def misfit_of(scan: Scan, patches: np.ndarray) -> Misfit:
    """Of the object that is stitched from the patches at the positions of the scan."""
    stitcher = Stitcher(scan.positions, illumination(scan.probe))
    stitcher.add(patches, scan.positions)
    return forward_misfit(scan, stitcher.result())


@pytest.mark.parametrize(
    ("scale", "swapped"), [((-1, 1), False), ((1, -1), False), ((-1, -1), False), ((1, 1), True)]
)
def test_positions_with_a_wrong_sign_or_order_of_axes_have_a_misfit(scale, swapped):
    scan = simulate_lines(grid=6)
    patches = cut_windows(scan.reference.object, scan.positions, scan.size, scan.reference.origin)
    assert misfit_of(scan, patches).value < 1e-3
    positions = scan.positions[:, ::-1].copy() if swapped else scan.positions * scale
    assert misfit_of(replace(scan, positions=positions), patches).verdict in {"doubtful", "wrong"}


@pytest.mark.parametrize("change", [lambda p: p.swapaxes(-1, -2), lambda p: p[:, ::-1], np.conj])
def test_a_transposed_mirrored_or_conjugated_probe_has_a_misfit(change):
    scan = known_scan()
    assert misfit_of(scan, scan.labels).value < 1e-3
    other = replace(scan, probe=np.ascontiguousarray(change(scan.probe)))
    assert misfit_of(other, scan.labels).verdict == "wrong"


def test_another_beam_than_the_artifact_holds_is_named(scan):
    own = {"sha256": "0" * 64, "modes": 1, "flux": scan.flux, "thumbnail": thumbnail(scan.probe)}
    assert beam_warnings(scan, contract(probe=own)) == []
    (line,) = beam_warnings(
        scan, contract(probe=own | {"thumbnail": thumbnail(disk_probe(N))}, specialised_from="1" * 64)
    )
    assert "was specialised for" in line
    (line,) = beam_warnings(scan, contract(probe=own | {"thumbnail": None}))
    assert "no copy to measure" in line
    (line,) = beam_warnings(scan, contract(probe=own | {"flux": scan.flux / 4}))
    assert "fixed scale" in line


def test_patterns_reach_the_brightness_of_a_fixed_scale(tmp_path):
    scan = known_scan()

    def reconstruction(photons: float, framework: str = "torch") -> Reconstruction:
        base = identity_contract(probe={"sha256": None, "modes": 1, "flux": photons})
        provenance = base.provenance.model_copy(update={"framework": framework})
        path = write_identity(tmp_path / "i.onnx", base.model_copy(update={"provenance": provenance}))
        return reconstruct(Session(path, "cpu"), scan, batch=7)

    trained_alike = reconstruction(scan.flux)
    assert not any(line.startswith("photons") for line in trained_alike.warnings)
    brighter = reconstruction(9 * scan.flux)
    assert np.allclose(brighter.object, 3 * trained_alike.object)
    (line,) = (line for line in brighter.warnings if line.startswith("photons"))
    assert line.endswith("patterns are multiplied by 3 for it")
    # Nobody verified for how many photons a foreign network was trained.
    foreign = reconstruction(9 * scan.flux, "foreign")
    assert np.array_equal(foreign.object, trained_alike.object)
    (line,) = (line for line in foreign.warnings if line.startswith("photons"))
    assert line.endswith("amplitudes are off")


def test_a_general_artifact_warns_of_what_it_was_not_trained_for(scan):
    def warnings(**known: object) -> list[str]:
        trained = TrainedBeams.model_validate(known)
        return beam_warnings(scan, contract(beam=BeamInputs(modes=1), trained_for=trained))

    assert warnings() == []
    assert warnings(photons=(1e5, 1e7), overlap=(0.3, 0.9), oversampling=(1, 8)) == []
    assert "more than the network was trained for" in warnings(photons=(1e2, 1e4))[0]
    assert "fewer than the network was trained for" in warnings(photons=(1e8, 1e9))[0]
    assert warnings(overlap=(0.95, 0.99))[0].startswith("overlap")
    assert warnings(oversampling=(10, 20))[0].startswith("oversampling")
    # The zone plate of the simulation is 70 micrometres out of focus, three Fresnel zones of its beam.
    assert warnings(fresnel_number=(1, 4)) == []
    (line,) = warnings(fresnel_number=(20, 100))
    assert line.startswith("defocus: the beam is out of focus with a Fresnel number of")
    assert re.search(r"\([67]\d(\.\d)? µm\)", line)
    flat = replace(scan, probe=np.abs(scan.probe).astype(np.complex64))
    in_focus = contract(beam=BeamInputs(modes=1), trained_for=TrainedBeams(fresnel_number=(1, 4)))
    assert "in focus" in beam_warnings(flat, in_focus)[0]


def test_the_defocus_of_a_probe_is_the_distance_from_focus_or_aperture():
    square = PIXEL_SIZE**2 / WAVELENGTH
    for distance in (20e-6, 70e-6, -70e-6):
        for stop in (0.0, 1 / 3):
            plate = zone_plate_probe(64, defocus=distance, central_stop=stop)
            shifted = 3j * np.roll(plate, (4, -3), axis=(1, 2))
            assert defocus(shifted) * square == pytest.approx(distance, rel=0.1)
            assert defocus(plate.conj()) == pytest.approx(-defocus(plate))
    aperture = disk_probe(64)
    assert fresnel_number(aperture) == IN_FOCUS
    behind = defocused(aperture, 50e-6, PIXEL_SIZE, WAVELENGTH)
    assert defocus(behind) * square == pytest.approx(50e-6, rel=0.1)
    assert fresnel_number(behind) == pytest.approx((probe_diameter(behind) / 2) ** 2 / 62, rel=0.1)


def agreement_of(scan: Scan, matrix: np.ndarray) -> NeighbourAgreement:
    """Of the windows of the true object, at changed positions."""
    patches = cut_windows(scan.reference.object, scan.positions, scan.size, scan.reference.origin)
    moved = replace(scan, positions=scan.positions @ matrix.T, reference=None)
    return neighbour_agreement(moved, neighbour_pairs(moved), dict(enumerate(patches)))


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (np.diag([-1, 1]), "rows reversed"),
        (np.diag([1, -1]), "columns reversed"),
        (np.diag([-1, -1]), "rows and columns reversed"),
        (np.array([[0, 1], [1, 0]]), "rows and columns exchanged"),
        (0.8 * np.eye(2), "steps 1.25 times as long"),
        (1.25 * np.eye(2), "steps 0.8 times as long"),
    ],
)
def test_neighbouring_patches_tell_wrong_positions_and_what_mends_them(change, remedy):
    scan = simulate_lines(grid=6)
    right = agreement_of(scan, np.eye(2))
    assert right.better is None
    assert right.tells
    assert right.reason == ""
    wrong = agreement_of(scan, change)
    assert wrong.better == remedy
    assert f"agree better with {remedy}" in wrong.reason


def test_patches_without_a_common_place_are_not_called_good(scan):
    misfit = forward_misfit(scan, stitched_truth(scan))
    far = agreement_of(scan, 12 * np.eye(2))
    assert far.reason == "neighbouring patches overlap too little"
    far_misfit = replace(misfit, agreement=far)
    assert far_misfit.verdict == "unknown"
    assert "unknown, cannot be judged: neighbouring patches overlap too little (an empty" in str(far_misfit)
    near = agreement_of(scan, np.eye(2))
    assert replace(misfit, agreement=near).verdict == "good"
    reversed_ = replace(misfit, agreement=agreement_of(scan, -np.eye(2)))
    assert reversed_.verdict == "wrong"
    assert "wrong, do not use the object: neighbouring patches agree better with rows and columns" in str(
        reversed_
    )


def test_a_reconstruction_at_reversed_positions_is_wrong_however_good_its_misfit():
    scan = simulate_lines(grid=7)
    session = Session("zoo:pinn_hybrid", "cpu")
    assert reconstruct(session, scan).misfit.verdict == "good"
    positions = np.ascontiguousarray(scan.positions[:, ::-1])
    misfit = reconstruct(session, replace(scan, positions=positions, reference=None)).misfit
    assert misfit.verdict == "wrong"
    assert misfit.agreement.better == "rows and columns exchanged"


def test_without_a_probe_neighbouring_patches_tell_wrong_positions_and_another_direct_beam():
    scan = replace(simulate_lines(grid=7), probe=None, reference=None)
    session = Session("zoo:pinn_hybrid", "cpu")
    options = ReconstructOptions(weighting="window")
    right = reconstruct(session, scan, options)
    assert right.misfit is None
    assert right.position_doubt == ""
    exchanged = np.ascontiguousarray(scan.positions[:, ::-1])
    wrong = reconstruct(session, replace(scan, positions=exchanged), options)
    assert "agree better with rows and columns exchanged" in wrong.position_doubt
    beside = replace(scan, diffraction=np.roll(scan.diffraction, 3, axis=1))
    assert "do not agree" in reconstruct(session, beside, options).position_doubt
