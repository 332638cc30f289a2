from __future__ import annotations

import bz2

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward


@pytest.fixture(scope="module")
def star(measured) -> Scan:
    reference = measured / "siemens_reference.npz"
    return read_scan(measured / "siemens-star-small.npz.bz2", reference=reference)


def test_the_measured_star_has_the_documented_size_and_counts(star):
    assert star.diffraction.shape == (516, 128, 128)
    assert star.flux == pytest.approx(4.6e5, rel=0.02)
    assert np.sum(np.abs(star.probe) ** 2) == pytest.approx(star.flux, rel=1e-5)
    assert star.probe.shape == (1, 128, 128)


def test_the_direct_beam_is_at_the_centre(star):
    row, column = np.unravel_index(np.argmax(np.mean(star.diffraction, axis=0)), (128, 128))
    assert abs(row - 64) < 24
    assert abs(column - 64) < 24


def test_the_reference_gives_the_measured_amplitudes(star, measured):
    with np.load(measured / "siemens_reference.npz") as file:
        probe = file["probe"]
    some = np.arange(0, 516, 37)
    patches = cut_windows(star.reference.object, star.positions[some], star.size, star.reference.origin)
    modelled = forward(patches, probe).ravel()
    measured_amplitudes = star.diffraction[some].ravel()
    assert np.corrcoef(modelled, measured_amplitudes)[0, 1] > 0.97
    # The windows matter: those of other positions do worse.
    swapped = cut_windows(star.reference.object, star.positions[some[::-1]], star.size, star.reference.origin)
    assert np.corrcoef(forward(swapped, probe).ravel(), measured_amplitudes)[0, 1] < 0.97


def arrays(scan):
    counts = np.fft.ifftshift(scan.diffraction.astype(np.float64) ** 2, axes=(1, 2))
    return {
        "data": counts[None].astype(np.float32),
        "scan": (scan.positions - 8)[None].astype(np.float32),
        "probe": scan.probe[None, None, None] * 3,
    }


def test_a_known_scan_comes_back(scan, tmp_path):
    np.savez(tmp_path / "plain.npz", **arrays(scan))
    packed = tmp_path / "packed"
    packed.write_bytes(bz2.compress((tmp_path / "plain.npz").read_bytes()))
    for path in (tmp_path / "plain.npz", packed):
        back = read_scan(path)
        np.testing.assert_allclose(back.diffraction, scan.diffraction, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(back.positions, scan.positions)
        np.testing.assert_allclose(np.angle(back.probe), np.angle(scan.probe), atol=1e-5)


def test_odd_patterns_are_centred_too(tmp_path):
    data = np.zeros((1, 2, 5, 5), np.float32)
    data[..., 0, 0] = 9
    np.savez(tmp_path / "odd.npz", data=data, scan=np.zeros((1, 2, 2)))
    back = read_scan(tmp_path / "odd.npz")
    assert back.diffraction[0, 2, 2] == 3
    assert back.positions.tolist() == [[2, 2], [2, 2]]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data", np.zeros((2, 20, 16, 16)), "'data' has shape"),
        ("data", np.zeros((20, 16, 15)), "square"),
        (
            "data",
            np.full((20, 16, 16), np.nan),
            r"'data'\[0\] holds no valid photons, 256 of its pixels are negative, NaN",
        ),
        ("data", np.zeros((0, 16, 16)), r"'scan' has shape \(20, 2\), expected \(0, 2\)"),
        ("scan", np.zeros((1, 19, 2)), r"'scan' has shape \(19, 2\), expected \(20, 2\)"),
        ("scan", np.full((20, 2), np.inf), r"positions\[0\] is NaN"),
        ("probe", np.ones((2, 1, 16, 16), np.complex64), "leading axes of length 1"),
        ("probe", np.ones((1, 8, 8), np.complex64), "the probe has 8 x 8 pixels, the patterns have"),
        ("probe", np.zeros((1, 16, 16), np.complex64), "zero everywhere"),
    ],
)
def test_broken_content_is_refused(scan, tmp_path, key, value, message):
    np.savez(tmp_path / "tike.npz", **(arrays(scan) | {key: value}))
    with pytest.raises(InputError, match=message) as error:
        np.asarray(read_scan(tmp_path / "tike.npz").diffraction)
    assert "tike.npz" in str(error.value)


def test_a_truncated_bzip2_stream_is_refused(scan, tmp_path):
    np.savez(tmp_path / "plain.npz", **arrays(scan))
    packed = bz2.compress((tmp_path / "plain.npz").read_bytes())
    (tmp_path / "cut.npz.bz2").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match=r"cut\.npz\.bz2: truncated"):
        read_scan(tmp_path / "cut.npz.bz2")
