"""A family of scans: every one different, all of them reproducible from the seed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import get_args

import numpy as np
import pytest

from ptychonnx.harness.simulate.beams import BeamFamily, beam_diameter, draw_beam
from ptychonnx.harness.simulate.family import FamilyConfig, build_family, draw_parameters, simulate_member
from ptychonnx.harness.simulate.objects import ObjectKind, make_object
from ptychonnx.harness.simulate.probes import disk_probe
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward

SMALL = FamilyConfig(n=32, scans=3, grid=4, seed=5)


@pytest.mark.parametrize("family", get_args(BeamFamily))
def test_a_beam_has_unit_power_and_stays_inside_its_window(family):
    beam = draw_beam(family, 32, 1, np.random.default_rng(3))
    density = np.abs(beam[0]) ** 2
    assert beam.shape == (1, 32, 32)
    assert beam.dtype == np.complex64
    assert density.sum() == pytest.approx(1, rel=1e-5)
    rim = density.sum() - density[2:-2, 2:-2].sum()
    assert rim < 0.05
    assert np.array_equal(beam, draw_beam(family, 32, 1, np.random.default_rng(3)))
    assert not np.allclose(beam, draw_beam(family, 32, 1, np.random.default_rng(4)), atol=1e-3)


def test_modes_are_orthogonal_and_the_strongest_comes_first():
    modes = draw_beam("aberrated", 32, 3, np.random.default_rng(0)).reshape(3, -1)
    power = np.sum(np.abs(modes) ** 2, axis=1)
    assert np.all(np.diff(power) < 0)
    assert power.sum() == pytest.approx(1, rel=1e-5)
    # Cutting the window leaves them orthogonal up to the little light outside.
    overlap = np.abs(modes.conj() @ modes.T) / np.sqrt(np.outer(power, power))
    assert np.max(overlap - np.eye(3)) < 0.1


def test_the_diameter_of_a_disk_holds_nine_tenths_of_its_area():
    assert beam_diameter(disk_probe(64, radius=16)) == pytest.approx(2 * 16 * np.sqrt(0.9), abs=0.8)


@pytest.mark.parametrize("kind", get_args(ObjectKind))
def test_an_object_has_the_contrast_that_it_was_asked_for(kind):
    image = make_object(kind, (90, 110), np.random.default_rng(2), absorption=0.4, phase_shift=2.0)
    assert image.shape == (90, 110)
    assert image.dtype == np.complex64
    assert 0.6 - 1e-5 <= np.abs(image).min() < 0.85
    assert np.abs(image).max() <= 1 + 1e-5
    assert 1.2 < np.angle(image).max() <= 2.0 + 1e-5
    assert np.angle(image).min() > -1e-5
    assert np.array_equal(
        image, make_object(kind, (90, 110), np.random.default_rng(2), absorption=0.4, phase_shift=2.0)
    )


def test_every_parameter_is_drawn_from_its_range_and_choices_take_turns():
    config = FamilyConfig(n=32, scans=14, grid=4, max_modes=3, seed=1)
    members = [draw_parameters(config, number) for number in range(14)]
    for member in members:
        assert 1e5 <= member.photons <= 1e10
        assert 0.4 <= member.overlap <= 0.8
        assert 1 <= member.modes <= 3
        assert 5 / 30 <= member.phase_shift <= 5
        assert member.step == max(1, round((1 - member.overlap) * member.diameter))
    assert (
        {member.beam for member in members[:7]} == {member.beam for member in members[7:]} == set(config.beam)
    )
    assert len({member.object for member in members[7:]}) == 7
    assert len({member.photons for member in members}) == 14


def test_a_scan_follows_the_forward_model():
    scan = simulate_member(replace(SMALL, min_photons=1e9, max_photons=1e9), 1)
    windows = cut_windows(scan.reference.object, scan.positions, 32)
    expected = forward(windows, scan.probe)
    # Photons are counted, so an amplitude is off by 0.5 on average.
    error = (scan.diffraction - expected)[expected > 10]
    assert np.std(error) == pytest.approx(0.5, rel=0.1)
    assert np.sum(np.abs(scan.probe) ** 2) == pytest.approx(1e9, rel=1e-5)


def test_a_family_is_written_once_and_its_first_scans_are_those_of_a_larger_one(tmp_path):
    dataset = build_family(SMALL, tmp_path / "a")
    assert dataset.rebuilt
    assert [path.name for path in dataset.scans] == [f"scan_000{i}.npz" for i in range(3)]
    manifest = json.loads(dataset.manifest.read_text())
    assert manifest["scans"]["scan_0002.npz"] == asdict(draw_parameters(SMALL, 2))
    written = {path.name: path.read_bytes() for path in dataset.scans}
    assert not build_family(SMALL, tmp_path / "a").rebuilt
    larger = build_family(replace(SMALL, scans=4), tmp_path / "b")
    assert {path.name: path.read_bytes() for path in larger.scans[:3]} == written
    dataset.scans[1].write_bytes(b"damaged")
    assert build_family(SMALL, tmp_path / "a").rebuilt
    assert dataset.scans[1].read_bytes() == written["scan_0001.npz"]
    assert read_scan(dataset.scans[0]).reference is not None
    # A training takes all scans of the folder.
    build_family(replace(SMALL, scans=2), tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "manifest.json",
        "scan_0000.npz",
        "scan_0001.npz",
    ]


def test_unknown_families_are_refused():
    with pytest.raises(InputError, match="beam 'laser' is unknown, expected one of zone-plate"):
        draw_beam("laser", 32, 1, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--min-photons", "1e7", "--max-photons", "1e6"), "min_photons 1e+07 is above max_photons 1e+06"),
        (("--beam", "laser"), "--beam"),
        (("--scans", "0"), "--scans"),
    ],
)
def test_bad_ranges_are_one_line(run, tmp_path, options, line):
    code, _, err = run("simulate", "family", "--out", tmp_path / "family", *options)
    assert code == 2
    assert line in err
    assert len(err.strip().splitlines()) == 1
    assert len(err) < 400
    assert not (tmp_path / "family").exists()
