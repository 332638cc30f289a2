"""Uncertainty of a reconstruction from the symmetries of the far field."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest

from ptychonnx.harness.metrics.alignment import fit_factor
from ptychonnx.harness.metrics.reference_placement import reference_on_canvas
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.harness.uncertainty.calibration import calibration_for, installed
from ptychonnx.harness.uncertainty.spread import spread_of, symmetries_of
from ptychonnx.harness.uncertainty.symmetry import SYMMETRIES, Symmetry
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_reference, read_scan, write_scan
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.reconstruction.stitching import Stitched
from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward

SIZE = 16
INVERSE = {"rot90": "rot270", "rot270": "rot90"}


@pytest.fixture
def lopsided() -> Scan:
    """A scan whose probe and object look different in every orientation."""
    random = np.random.default_rng(0)
    row, column = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    probe = np.exp(-((row - 1) ** 2) / 9 - column**2 / 16 + 0.1j * (row + 1) ** 2 + 0.2j * column)
    # The first row and column have no mirror image in a window of even size.
    probe[0] = probe[:, 0] = 0
    image = np.exp(random.normal(0, 0.3, (40, 36)) + 1j * random.normal(0, 0.5, (40, 36)))
    positions = random.integers(SIZE // 2 + 1, 40 - SIZE // 2 - 5, (12, 2)).astype(np.float64) + (-5, 7)
    reference = Reference(image.astype(np.complex64), (-5.0, 7.0))
    probe = 30 * probe.astype(np.complex64)[None]
    patches = cut_windows(reference.object, positions, SIZE, reference.origin)
    mask = random.uniform(size=(SIZE, SIZE)) > 0.1
    return Scan(forward(patches, probe).astype(np.float32), positions, probe, mask, reference)


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=str)
def test_the_turned_object_explains_the_turned_patterns(lopsided, symmetry):
    reference = lopsided.reference
    there = Symmetry(INVERSE.get(symmetry.orientation, symmetry.orientation), symmetry.conjugate)
    stitched = Stitched(reference.object, np.ones(reference.object.shape), reference.origin)
    turned, scan = there.back(stitched), symmetry.scan(lopsided)
    patches = cut_windows(turned.object, scan.positions, SIZE, turned.origin)
    np.testing.assert_allclose(forward(patches, scan.probe), scan.diffraction[:], atol=1e-3)
    assert scan.mask.sum() == lopsided.mask.sum()
    returned = symmetry.back(Stitched(turned.object, np.ones(turned.object.shape), turned.origin))
    np.testing.assert_array_equal(returned.object, reference.object)
    assert returned.origin == reference.origin


def test_the_spread_is_that_of_the_members_after_one_phase_each():
    scan = simulate_scan(LinesConfig(step=12), 3, np.random.SeedSequence(1), "lines")
    image = scan.reference.object.astype(np.complex128)
    stitched = Stitched(image.astype(np.complex64), np.ones(image.shape), scan.reference.origin)
    first = Reconstruction(stitched, "probe", len(scan), 0.0, 0.0)
    # Amplitudes change by a tenth in either direction, phases by 0.2, both with mean zero over the pixels.
    random = np.random.default_rng(0)
    signs = random.choice((-1, 1), (2, *image.shape))
    changed = [image * (1 + 0.1 * sign * signs[0]) * np.exp(0.2j * sign * signs[1]) for sign in (-1, 1)]
    spread = spread_of([1j * part.astype(np.complex64) for part in changed], scan, first)
    inside = spread.region
    np.testing.assert_allclose(
        np.median((spread.amplitude / np.abs(image))[inside]), 0.1 * np.sqrt(2), rtol=0.03
    )
    np.testing.assert_allclose(np.median(spread.phase[inside]), 0.2 * np.sqrt(2), rtol=0.03)


def test_a_network_of_one_beam_allows_the_symmetries_of_this_beam(lopsided):
    general, special = (Session(f"zoo:{name}", provider="cpu") for name in ("any_64", "pinn_fno"))
    scan = simulate_scan(LinesConfig(), 3, np.random.SeedSequence(1), "lines")
    assert symmetries_of(general, scan) == SYMMETRIES[:4]
    assert len(set(SYMMETRIES)) == 16
    # The zone plate is symmetric and out of focus: its complex conjugate is another beam.
    allowed = symmetries_of(special, scan)
    assert len(allowed) == 4
    assert not any(symmetry.conjugate for symmetry in allowed)
    with pytest.raises(InputError, match="expected a general network"):
        symmetries_of(special, lopsided)
    with pytest.raises(InputError, match="expected --probe FILE"):
        symmetries_of(general, replace(scan, probe=None))


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory):
    scan = simulate_scan(LinesConfig(step=12), 4, np.random.SeedSequence(3), "lines")
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    write_scan(path, scan)
    return path


def test_the_command_maps_intervals_that_hold_the_errors(scan_file, tmp_path, run):
    out, picture = tmp_path / "object.h5", tmp_path / "object.png"
    arguments = ("reconstruct", "zoo:any_64", scan_file, "--out", out)
    code, printed, _ = run(*arguments, "--uncertainty", "--picture", picture)
    assert code == 0
    assert "uncertainty from 4 symmetries: standard deviation of the amplitude 0." in printed
    assert picture.stat().st_size > 10_000
    scan = read_scan(scan_file)
    image = read_reference(out, scan)
    truth, known, _ = reference_on_canvas(scan.reference, image.object.shape, image.origin)
    with h5py.File(out) as file:
        maps = {name: file["entry/uncertainty"][name] for name in ("amplitude", "phase")}
        assert all(group.attrs["signal"] == name for name, group in maps.items())
        narrow = {name: group[name][:] for name, group in maps.items()}
        wide = {name: group["half_width_95"][:] for name, group in maps.items()}
        np.testing.assert_array_equal(maps["phase"]["x"], file["entry/phase/x"])
    inside = np.isfinite(narrow["phase"])
    assert known[inside].all()
    assert 0.2 < inside.mean() < 0.9
    fixed = image.object * fit_factor(image.object, truth, inside)
    errors = {"amplitude": np.abs(fixed) - np.abs(truth), "phase": np.angle(fixed * truth.conj())}
    for name, error in errors.items():
        assert (wide[name][inside] >= narrow[name][inside]).all()
        # One scan is one of many: its coverage differs from the mean over scans.
        assert 0.4 < np.mean(np.abs(error)[inside] < narrow[name][inside]) < 0.95
        assert np.mean(np.abs(error)[inside] < wide[name][inside]) > 0.85


def test_a_calibration_is_that_of_one_network_at_one_size():
    for name, calibration in installed().items():
        contract = Session(f"zoo:{name}", provider="cpu").contract
        assert calibration_for(contract) == (calibration, True)
        for change in (
            # The same weights have calibrations of their own at other sizes of the zoo.
            {"n": 3 * contract.n},
            {"beam": None},
            {"weights": None},
            {"weights": contract.weights.model_copy(update={"checkpoint_sha256": "0"})},
        ):
            assert calibration_for(contract.model_copy(update=change)) == (installed()["any_64"], False)


def test_a_network_that_was_not_calibrated_claims_no_coverage(scan_file, tmp_path, run):
    command = ("reconstruct", "zoo:pinn_fno", scan_file, "--out", tmp_path / "o.npz", "--uncertainty")
    code, printed, err = run(*command)
    assert code == 0
    said = " ".join(err.split())
    assert "and not for pinn_fno.onnx: what share of the errors they hold is unknown" in said
    assert "uncertainty from 4 symmetries, not calibrated for this network: " in printed
    with np.load(tmp_path / "o.npz") as file:
        assert file["uncertainty_phase"].shape == file["object"].shape


def test_contradictions_are_one_line(scan_file, tmp_path, run):
    command = ("reconstruct", "zoo:any_64", scan_file, "--out", tmp_path / "o.h5", "--uncertainty")
    for more, message in (
        (("--refine", "3"), "--uncertainty: is that of the object of the network, expected no --refine"),
        (("--shard", "1/2"), "--uncertainty: is for a scan that one process reconstructs"),
    ):
        code, _, err = run(*command, *more)
        assert code == 2
        assert message in err
