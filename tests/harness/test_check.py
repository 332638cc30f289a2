"""`ptychonnx check` finds what is wrong with a scan, and nothing in a good one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ptychonnx.harness.check.geometry_findings import geometry_findings
from ptychonnx.harness.check.orientation_test import orientation_errors, orientation_finding
from ptychonnx.harness.check.pattern_findings import pattern_findings
from ptychonnx.harness.check.pattern_statistics import pattern_statistics
from ptychonnx.harness.check.scan_check import check_scan
from ptychonnx.harness.check.step_test import step_finding
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward
from ptychonnx.runtime.scan.orientation import ORIENTATIONS, orient_pattern

SIZE, GRID, STEP = 32, 6, 4
SIDE = SIZE + STEP * GRID
INVERSE = {name: name for name in ORIENTATIONS} | {"rot90": "rot270", "rot270": "rot90"}


def defocused(width=6.0, curvature=0.06):
    row, column = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    radius = row**2 + column**2
    return (np.exp(-radius / width**2 + 1j * curvature * radius)).astype(np.complex64)[None]


def lines(random):
    row, column = np.mgrid[:SIDE, :SIDE]
    density = np.zeros((SIDE, SIDE))
    for _ in range(14):
        angle, offset = random.uniform(0, np.pi), random.uniform(0, SIDE)
        distance = np.cos(angle) * (row - SIDE / 2) + np.sin(angle) * (column - SIDE / 2) + offset - SIDE / 2
        density += np.exp(-((distance / 1.5) ** 2))
    return density / density.max()


def grains(random):
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(random.normal(size=(SIDE, SIDE)), 1.5)
    return (field > 0).astype(float)


def clouds(random):
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(random.normal(size=(SIDE, SIDE)), 3)
    return (field - field.min()) / np.ptp(field)


def simulated(density, probe, photons=1e5, seed=1):
    random = np.random.default_rng(seed)
    values = density(random)
    truth = ((1 - 0.5 * values) * np.exp(1.2j * values)).astype(np.complex64)
    places = np.array([(row, column) for row in range(GRID) for column in range(GRID)]) * float(STEP)
    positions = places + random.integers(-1, 2, places.shape) + SIZE // 2 + 1
    probe = probe * np.float32(np.sqrt(photons / np.sum(np.abs(probe) ** 2)))
    expected = forward(cut_windows(truth, positions, SIZE), probe) ** 2
    counts = random.poisson(expected)
    return Scan(
        np.sqrt(counts).astype(np.float32),
        positions,
        probe,
        pixel_size=1e-8,
        wavelength=1e-10,
        distance=2.0,
        name="simulated",
    )


GOOD = simulated(lines, defocused())


def finding(scan, subject):
    """One of the findings that need no iterations."""
    statistics = pattern_statistics(scan)
    findings = [*pattern_findings(scan, statistics, []), *geometry_findings(scan, statistics)]
    return {found.subject: found for found in findings}[subject]


def test_a_good_scan_is_good_in_every_respect():
    result = check_scan(GOOD)
    assert {found.subject: found.verdict for found in result.findings} == dict.fromkeys(
        [
            *("units", "photons", "saturation", "direct beam", "bad pixels", "intensity", "frames"),
            *("positions", "overlap", "sampling", "far field", "probe", "orientation", "steps"),
        ],
        "good",
    )
    assert result.verdict == "good"


def test_the_noise_of_the_object_does_not_depend_on_the_unit_of_the_probe():
    noise, other = (
        finding(scan, "photons").values["object_noise"]
        for scan in (GOOD, replace(GOOD, probe=np.complex64(1e-3) * GOOD.probe))
    )
    assert noise == pytest.approx(other)
    # Every photon is on a pixel of the object: the least noise is that of an even dose.
    rows, columns = np.ptp(GOOD.positions, axis=0) + SIZE
    assert noise > np.sqrt(rows * columns / (1e5 * len(GOOD))) / 2
    assert noise < 0.2
    assert f"noise of {noise:.2g} or more in a pixel" in finding(GOOD, "photons").text
    assert finding(replace(GOOD, probe=None), "photons").values["object_noise"] is None


@pytest.mark.parametrize("density", [lines, grains, clouds])
def test_every_orientation_is_recognised(density):
    scan = simulated(density, defocused(), photons=3e4, seed=5)
    for wrong in ORIENTATIONS:
        diffraction = np.ascontiguousarray(orient_pattern(scan.diffraction, INVERSE[wrong]))
        found = orientation_finding(replace(scan, diffraction=diffraction))
        assert found.values["best"] == wrong
        assert found.values["odds"] > 100
        assert found.verdict == ("good" if wrong == "identity" else "wrong")
        assert wrong == "identity" or f"--orientation {wrong} " in found.text


CHANGES = {
    "rows reversed": np.diag([-1, 1]),
    "columns reversed": np.diag([1, -1]),
    "rows reversed, columns reversed": np.diag([-1, -1]),
    "rows and columns exchanged": np.array([[0, 1], [1, 0]]),
    "rows and columns exchanged, rows reversed": np.array([[0, -1], [1, 0]]),
    "rows and columns exchanged, columns reversed": np.array([[0, 1], [-1, 0]]),
    "rows and columns exchanged, rows reversed, columns reversed": np.array([[0, -1], [-1, 0]]),
}


def test_changed_positions_are_told_from_changed_patterns_by_the_probe():
    row, column = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    probe = np.exp(-((row + 3) ** 2) / 30 - column**2 / 12 + 1j * (0.08 * row**2 + 0.03 * (column - 4) ** 2))
    scan = simulated(grains, probe.astype(np.complex64)[None], photons=3e4)
    for change, remedy in CHANGES.items():
        # The remedy takes the wrong positions back to the right ones.
        wrong = scan.positions @ np.linalg.inv(remedy).T
        found = orientation_finding(replace(scan, positions=wrong))
        assert found.values["best"] == f"positions: {change}"
        assert found.verdict == "wrong"


def test_a_probe_without_phase_cannot_tell_an_object_from_its_twin():
    scan = simulated(lines, defocused(curvature=0.0))
    found = orientation_finding(scan)
    assert found.verdict == "doubtful"
    assert "ambiguous" in found.text
    assert "rot180" in found.text
    errors = orientation_errors(scan)
    assert errors.odds("identity", "rot180") < 20
    assert errors.odds("identity", "transpose") > 100


@pytest.mark.parametrize(
    ("factors", "remedy"),
    [
        ([0.8, 0.8], "1.25 times as long"),
        ([1.25, 1.25], "0.8 times as long"),
        ([1, 1.25], "0.8 times as long along rows"),
        ([0.8, 1], "1.25 times as long along columns"),
        ([1, 1], "as they are"),
    ],
)
def test_steps_of_another_length_are_recognised(factors, remedy):
    scan = simulated(grains, defocused(), photons=3e4, seed=5)
    found = step_finding(replace(scan, positions=scan.positions * np.array(factors)))
    assert found.values["best"] == remedy
    assert found.verdict in ({"good"} if remedy == "as they are" else {"doubtful", "wrong"})
    assert remedy == "as they are" or f"steps {remedy} explain the patterns better" in found.text


def test_steps_are_tried_in_the_right_orientation_only():
    flipped = replace(GOOD, diffraction=orient_pattern(GOOD.diffraction, "flip-rows").copy())
    (found,) = (found for found in check_scan(flipped).findings if found.subject == "steps")
    assert found.verdict == "unknown"


def test_without_a_probe_much_is_unknown_and_nothing_wrong():
    result = check_scan(replace(GOOD, probe=None))
    unknown = {found.subject for found in result.findings if found.verdict == "unknown"}
    assert unknown == {"overlap", "sampling", "far field", "probe", "orientation", "steps"}
    assert result.verdict == "good"


def changed(change):
    counts = np.square(np.asarray(GOOD.diffraction, dtype=np.float64))
    return replace(GOOD, diffraction=np.sqrt(change(counts)).astype(np.float32))


def with_pixel(row, column, value):
    def change(counts):
        counts[:, row, column] = value
        return counts

    return change


def repeated_frame(counts):
    counts[7] = counts[6]
    return counts


def lost_beam(counts):
    counts[20:26] = np.minimum(counts[20:26], 1) * (np.arange(SIZE) < 9)
    return counts


@pytest.mark.parametrize(
    ("scan", "subject", "verdict", "words"),
    [
        (replace(GOOD, diffraction=np.square(GOOD.diffraction)), "units", "wrong", "--quantity counts"),
        (replace(GOOD, diffraction=np.sqrt(GOOD.diffraction)), "units", "wrong", "--quantity amplitude"),
        (simulated(lines, defocused(), photons=50), "photons", "wrong", "expose longer"),
        (simulated(lines, defocused(), photons=1000), "photons", "doubtful", "expose longer"),
        (changed(lambda counts: np.minimum(counts, 500)), "saturation", "wrong", "the same 500 counts"),
        (
            changed(lambda counts: np.fft.ifftshift(counts, axes=(1, 2))),
            "direct beam",
            "wrong",
            "--dc corner",
        ),
        (changed(lambda counts: np.roll(counts, 3, axis=1)), "direct beam", "doubtful", "phase ramp"),
        (
            changed(with_pixel(3, 28, 4000)),
            "bad pixels",
            "wrong",
            "1 hot and 0 dead outside the mask ([3, 28])",
        ),
        (changed(with_pixel(17, 14, 0)), "bad pixels", "wrong", "0 hot and 1 dead"),
        (changed(repeated_frame), "frames", "wrong", "first 7"),
        (changed(lost_beam), "intensity", "wrong", "first 20"),
        (replace(GOOD, positions=3e-3 * GOOD.positions), "overlap", "doubtful", "another unit"),
        (replace(GOOD, positions=4 * GOOD.positions), "overlap", "wrong", "another unit"),
        (replace(GOOD, positions=GOOD.positions * [1, 0]), "positions", "wrong", "is an axis missing"),
        (replace(GOOD, distance=1e-5), "far field", "wrong", "Fresnel number"),
        (replace(GOOD, probe=3 * GOOD.probe), "probe", "good", "1 mode"),
        (replace(GOOD, probe=GOOD.probe / 3), "probe", "wrong", "in another unit"),
        (replace(GOOD, probe=GOOD.probe * 0 + 1), "sampling", "wrong", "expected 1.5"),
    ],
)
def test_what_is_wrong_is_named(scan, subject, verdict, words):
    found = finding(scan, subject)
    assert found.verdict == verdict
    assert words in found.text


def test_outlying_and_repeated_positions_are_numbered():
    positions = GOOD.positions.copy()
    positions[5] += 200
    found = finding(replace(GOOD, positions=positions), "positions")
    assert found.verdict == "doubtful"
    assert found.values["isolated"] == [5]
    positions = GOOD.positions.copy()
    positions[1::2] = positions[::2]
    assert len(finding(replace(GOOD, positions=positions), "positions").values["twice"]) == len(positions)


def test_the_command_line_ends_with_the_verdict(tmp_path, run):
    write_scan(tmp_path / "good.npz", GOOD)
    code, out, _ = run("check", tmp_path / "good.npz")
    assert code == 0
    assert "The scan is good." in out
    flipped = replace(GOOD, diffraction=orient_pattern(GOOD.diffraction, "flip-rows").copy())
    write_scan(tmp_path / "bad.npz", flipped)
    code, out, err = run("check", tmp_path / "bad.npz", "--json")
    assert code == 1
    assert "bad.npz: orientation is wrong" in err
    found = json.loads(out)
    assert found["verdict"] == "wrong"
    assert found["findings"]["orientation"]["values"]["best"] == "flip-rows"
    code, out, _ = run("check", tmp_path / "bad.npz", "--orientation", "flip-rows")
    assert code == 0
    assert run("check", tmp_path / "absent.npz")[0] == 2


def test_patterns_too_far_apart_to_be_tried_are_named():
    scan = simulated(lines, defocused())
    # As a stage that is 1 mm away from zero, where the last positions were not recorded.
    scattered = scan.positions + 50000
    scattered[-5:] = 16
    tests = (orientation_finding, step_finding)
    result = [test(replace(scan, positions=scattered)) for test in tests]
    assert {one.verdict for one in result} == {"unknown"}
    assert all("neighbouring patterns lie on 50" in one.text for one in result)
