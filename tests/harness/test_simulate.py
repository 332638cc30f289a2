"""The lines dataset: physics, seeds and cache."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ptychonnx.harness.simulate import manifest
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, build_lines, simulate_scan
from ptychonnx.harness.simulate.objects import make_object
from ptychonnx.harness.simulate.probes import disk_probe, zone_plate_probe
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward
from ptychonnx.runtime.validation import checked

SMALL = {"n": 32, "step": 5, "train_grid": 4, "test_grid": 3}


def test_patterns_are_those_of_the_reference_within_poisson_noise():
    config = LinesConfig(**SMALL, photons=1e6)
    scan = simulate_scan(config, 4, np.random.SeedSequence(1), "lines")
    windows = cut_windows(scan.reference.object, scan.positions, 32, scan.reference.origin)
    expected = forward(windows, scan.probe) ** 2
    counts = scan.diffraction.astype(np.float64) ** 2
    assert np.allclose(counts, np.rint(counts), atol=1e-2)
    bright = expected > 20
    assert np.std((counts - expected)[bright] / np.sqrt(expected[bright])) == pytest.approx(1, abs=0.05)


def test_photons_are_those_of_an_empty_object():
    config = LinesConfig(**SMALL, photons=1e5, absorption=0, phase_shift=0)
    assert simulate_scan(config, 4, np.random.SeedSequence(1), "empty").flux == pytest.approx(1e5, rel=0.01)


def test_neighbours_overlap_by_the_step_and_jitter_stays_within_bounds():
    config = LinesConfig(**SMALL, jitter=2)
    positions = simulate_scan(config, 4, np.random.SeedSequence(1), "lines").positions
    raster = 16 + 2 + 5 * np.stack(np.meshgrid(range(4), range(4), indexing="ij"), -1).reshape(-1, 2)
    assert 0 < np.abs(positions - raster).max() <= 2


def test_amplitude_and_phase_are_not_functions_of_each_other():
    image = make_object("lines", (200, 200), np.random.default_rng(0))
    assert np.abs(image).max() <= 1 + 1e-6
    assert np.abs(image).min() == pytest.approx(0.5, abs=0.01)
    assert np.angle(image).max() == pytest.approx(1.2, abs=0.01)
    assert abs(np.corrcoef(np.abs(image).ravel(), np.angle(image).ravel())[0, 1]) < 0.1


def test_the_zone_plate_probe_has_the_aperture_of_its_outermost_zone():
    """Far field: light between the central stop and the numerical aperture, and next to none elsewhere."""
    size, pixel = 256, 10e-9
    probe = zone_plate_probe(size, outermost_zone=50e-9, central_stop=0.4, pixel_size=pixel)
    far_field = np.abs(np.fft.fft2(probe[0])) ** 2
    k = np.fft.fftfreq(size, pixel)
    radius = np.hypot(k[:, None], k[None, :]) / (1 / (2 * 50e-9))
    ring = (radius > 0.35) & (radius < 1.05)
    assert far_field[ring].sum() / far_field.sum() > 0.97
    assert np.sum(np.abs(probe) ** 2) == pytest.approx(1, rel=1e-5)


def test_defocus_spreads_the_probe_by_geometry():
    """The cone of light has the half angle of the numerical aperture: twice as far, twice as wide."""
    axis = np.arange(512) - 256
    radius = np.hypot(axis[:, None], axis[None, :]).ravel()

    def half_power_radius(defocus: float) -> float:
        density = (np.abs(zone_plate_probe(512, defocus=defocus)[0]) ** 2).ravel()
        order = np.argsort(radius)
        return float(radius[order][np.searchsorted(np.cumsum(density[order]), 0.5 * density.sum())])

    far = half_power_radius(400e-6)
    assert far / half_power_radius(200e-6) == pytest.approx(2, rel=0.1)
    # The middle of the annulus, between stop (1/3) and edge (1) by area, at the angle of the edge:
    edge = 400e-6 * 1.24e-10 / (2 * 30e-9) / 10e-9
    assert far == pytest.approx(edge * np.sqrt((1 + 1 / 9) / 2), rel=0.1)


def test_probes_are_centred_and_symmetric():
    for probe in (zone_plate_probe(64)[0], disk_probe(64)[0]):
        inner = probe[1:, 1:]  # symmetric about pixel 32
        assert np.allclose(inner, inner[::-1, ::-1], atol=1e-6)


def test_the_dataset_is_built_once_and_rebuilt_when_anything_differs(tmp_path):
    config = LinesConfig(**SMALL)
    first = build_lines(config, tmp_path)
    assert first.rebuilt
    bytes_before = first.train.read_bytes()
    assert not build_lines(config, tmp_path).rebuilt
    assert build_lines(LinesConfig(**SMALL, seed=1), tmp_path).rebuilt
    assert first.train.read_bytes() != bytes_before
    assert build_lines(config, tmp_path).rebuilt
    assert first.train.read_bytes() == bytes_before
    first.test.write_bytes(first.test.read_bytes()[:-1])
    assert build_lines(config, tmp_path).rebuilt
    manifest = json.loads(first.manifest.read_text())
    assert manifest["parameters"]["n"] == 32
    assert set(manifest["sha256"]) == {"train.npz", "test.npz"}


def test_a_scan_that_is_not_simulated_is_not_replaced(tmp_path):
    (tmp_path / "test.npz").write_bytes(b"measured")
    with pytest.raises(InputError, match=r"test.npz: is not listed in a manifest.json"):
        build_lines(LinesConfig(**SMALL), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["test.npz"]


def test_a_manifest_of_another_program_does_not_make_files_ours(tmp_path):
    theirs = {"sha256": {"test.npz": "0", "notes.txt": "0"}}
    (tmp_path / "manifest.json").write_text(json.dumps(theirs))
    for name in theirs["sha256"]:
        (tmp_path / name).write_bytes(b"measured")
    with pytest.raises(InputError, match=r"test.npz: is not listed"):
        build_lines(LinesConfig(**SMALL), tmp_path)
    (tmp_path / "test.npz").unlink()
    build_lines(LinesConfig(**SMALL), tmp_path)
    assert (tmp_path / "notes.txt").read_bytes() == b"measured"


@pytest.mark.parametrize("written", [0, 1])
def test_a_simulation_that_was_interrupted_is_repeated(written, tmp_path, monkeypatch):
    config, write, calls = LinesConfig(**SMALL), manifest.write_scan, []

    def interrupted(*arguments: object) -> None:
        if len(calls) == written:
            raise KeyboardInterrupt
        calls.append(write(*arguments))

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_scan", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_lines(config, tmp_path)
    left = ["manifest.json", "train.npz"] if written else []
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    assert build_lines(config, tmp_path).rebuilt
    assert not build_lines(config, tmp_path).rebuilt


def test_the_test_object_is_not_the_training_object(tmp_path):
    dataset = build_lines(LinesConfig(**{**SMALL, "test_grid": 4}), tmp_path)
    train, test = read_scan(dataset.train), read_scan(dataset.test)
    assert train.reference.object.shape == test.reference.object.shape
    known = [np.abs(scan.reference.object).ravel() for scan in (train, test)]
    assert abs(np.corrcoef(*known)[0, 1]) < 0.3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n": 8}, "setting n = 8"),
        ({"photons": 0}, "photons"),
        ({"photons": float("inf")}, "setting photons = inf: expected a value less than"),
        ({"photons": 1e300}, "photons"),
        ({"step": 10**8}, "step"),
        ({"probe": "laser"}, "setting probe = 'laser'"),
    ],
)
def test_bad_parameters_are_named(values, message):
    with pytest.raises(InputError, match=message):
        checked(LinesConfig, values)
