"""Each condition differs from the nominal one as described, and each score is stored under its condition."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ptychonnx.harness.simulate.conditions import AXES, NOMINAL, defocused, simulate_conditions
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.harness.simulate.objects import make_object
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward


@pytest.fixture(scope="module")
def base():
    return simulate_scan(LinesConfig(n=32), 6, np.random.SeedSequence(3), "base")


@pytest.fixture(scope="module")
def made(base):
    return {condition.scan.name: condition for condition in simulate_conditions(base)}


def explained(scan, beam=1.0):
    """Patterns that the reference and the known probe predict."""
    windows = cut_windows(scan.reference.object, scan.positions, scan.size, scan.reference.origin)
    return forward(windows, np.sqrt(beam) * scan.probe)


def distance(scan, beam=1.0):
    """Relative difference between the patterns and those predicted."""
    expected = explained(scan, beam)
    return float(np.linalg.norm(scan.diffraction - expected) / np.linalg.norm(expected))


def test_only_the_nominal_scan_and_other_objects_are_explained_by_what_is_known(made, base):
    noise = distance(made[NOMINAL].scan)
    assert noise < 0.01
    for name in ("object cells", "object star", "photons 1e9"):
        assert distance(made[name].scan) < 1.5 * noise, name
    assert distance(made["brightness 2"].scan) > 0.2
    assert distance(made["brightness 2"].scan, 2.0) < noise
    for condition in made.values():
        assert np.array_equal(condition.scan.positions, base.positions)
        assert np.array_equal(condition.scan.probe, base.probe)


@pytest.mark.parametrize("axis", ["defocus", "noise", "positions"])
def test_an_error_grows_with_its_level(made, axis):
    errors = [distance(condition.scan) for condition in made.values() if condition.axis in (NOMINAL, axis)]
    assert errors == sorted(errors)
    assert errors[-1] > 5 * errors[0]


def test_fewer_photons_are_noise_and_nothing_else(made):
    for name, level in (("photons 1e4", 1e4), ("photons 1e6", 1e6)):
        scan = made[name].scan
        power = float(np.sum(np.abs(scan.probe) ** 2))
        counts = scan.diffraction.astype(np.float64) ** 2 * level / power
        assert np.allclose(counts, np.rint(counts), atol=1e-3)
        expected = explained(scan) ** 2 * level / power
        bright = expected > 20
        noise = (counts - expected)[bright] / np.sqrt(expected[bright])
        assert np.std(noise) == pytest.approx(1, abs=0.05)
        assert scan.flux == pytest.approx(made[NOMINAL].scan.flux, rel=0.02)


def test_a_beam_comes_back_from_where_it_went(base):
    lengths = (base.pixel_size, base.wavelength)
    there = defocused(base.probe, 2e-5, *lengths)
    assert np.linalg.norm(there) == pytest.approx(np.linalg.norm(base.probe), rel=1e-6)
    back = defocused(there, -2e-5, *lengths)
    assert np.abs(back - base.probe).max() < 1e-5 * np.abs(base.probe).max()


@pytest.mark.parametrize("kind", ["lines", "cells", "star"])
def test_objects_have_the_same_contrast_and_come_from_their_seed(kind):
    image = make_object(kind, (150, 160), np.random.default_rng(1))
    assert image.shape == (150, 160)
    assert np.array_equal(image, make_object(kind, (150, 160), np.random.default_rng(1)))
    assert np.abs(image).min() == pytest.approx(0.5, abs=0.02)
    assert np.abs(image).max() == pytest.approx(1, abs=0.02)
    assert np.angle(image).max() == pytest.approx(1.2, abs=0.02)
    assert np.angle(image).min() == pytest.approx(0, abs=0.02)


def test_an_unknown_object_is_refused():
    with pytest.raises(InputError, match="object 'cat' is unknown, expected one of lines, cells, star"):
        make_object("cat", (8, 8), np.random.default_rng(0))


def test_a_scan_without_a_pixel_size_is_refused(base):
    with pytest.raises(InputError, match="has no pixel size"):
        simulate_conditions(replace(base, pixel_size=None))


def test_every_network_is_judged_under_every_condition(run, made, base, oracle, tmp_path, monkeypatch):
    # Two levels of two axes: what is drawn and written does not depend on how many there are.
    axes = [replace(axis, levels=axis.levels[-1:]) for axis in AXES if axis.name in ("photons", "positions")]
    for module in ("ptychonnx.harness.study.robustness", "ptychonnx.harness.simulate.conditions"):
        monkeypatch.setattr(f"{module}.AXES", axes)
    network = oracle(tmp_path / "pinn_fno.onnx", made[NOMINAL].scan, "pinn_fno")
    scan = tmp_path / "scan.npz"
    write_scan(scan, base)
    out = tmp_path / "out"
    code, _, err = run("study", "robustness", network, "--scan", scan, "--out", out)
    assert code == 0, err
    found = json.loads((out / "robustness.json").read_text())
    assert [(each["axis"], each["level"]) for each in found["conditions"]] == [
        (NOMINAL, None),
        ("photons", 1e4),
        ("positions", 4.0),
    ]
    scores = found["networks"]["pinn_fno"]
    assert list(scores) == ["nominal", "photons 1e4", "positions 4"]
    for name, folder in (("nominal", NOMINAL), ("positions 4", "positions")):
        rows = json.loads((out / folder / "metrics.json").read_text())["rows"]
        assert scores[name]["phase_ssim"] == rows["pinn_fno"]["phase"]["ssim"]
    table = (out / "robustness.md").read_text()
    assert "| network | nominal | 4 |" in table
    assert f"{scores['positions 4']['amplitude_ssim']:.2f} /" in table
    assert (out / "robustness.png").read_bytes().startswith(b"\x89PNG")
