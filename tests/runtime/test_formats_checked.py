"""Files in our own conventions pass the checks of all others: dark patterns, direct beam, positions, checksums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_scan, write_scan
from ptychonnx.runtime.scan import Reference
from ptychonnx.runtime.scan.amplitudes import LazyAmplitudes


def read(path):
    lines: list[str] = []
    return read_scan(path, log=lines.append), lines


def stored(path, scan, **changes):
    """The scan without compression, whose patterns stay in the file."""
    row, column = scan.positions.T
    arrays = {"format": "ptychonnx-scan-1", "diffraction": scan.diffraction, "positions": scan.positions}
    np.savez(path, **arrays | {"xcoords": column, "ycoords": row} | changes)
    return path


def test_dark_patterns_of_our_own_files_are_left_out_aloud(tmp_path, scan):
    write_scan(tmp_path / "whole.npz", scan)
    assert read(tmp_path / "whole.npz")[1] == []
    scan.diffraction[[2, 11]] = 0
    write_scan(tmp_path / "s.npz", scan)
    result, lines = read(tmp_path / "s.npz")
    assert lines == [
        f"patterns: 2 of {len(scan)} left out, without photons (numbers 2, 11)",
    ]
    keep = np.delete(np.arange(len(scan)), [2, 11])
    np.testing.assert_array_equal(result.diffraction, scan.diffraction[keep])
    np.testing.assert_array_equal(result.positions, scan.positions[keep])
    scan.diffraction[:] = 0
    write_scan(tmp_path / "s.npz", scan)
    with pytest.raises(InputError, match="patterns are without photons"):
        read_scan(tmp_path / "s.npz")


def test_a_dark_pattern_that_stays_in_its_file_is_refused_when_it_is_read(tmp_path, scan):
    scan.diffraction[11] = 0
    result = read_scan(stored(tmp_path / "s.npz", scan))
    assert isinstance(result.diffraction, LazyAmplitudes)
    np.testing.assert_array_equal(result.diffraction[:11], scan.diffraction[:11])
    with pytest.raises(InputError, match=r"diffraction\[11\] holds no photons"):
        np.asarray(result.diffraction)


def test_a_direct_beam_in_the_corner_of_our_own_files_is_named(tmp_path, scan):
    corner = replace(scan, diffraction=np.fft.ifftshift(scan.diffraction, axes=(1, 2)))
    write_scan(tmp_path / "s.npz", corner)
    (line,) = read(tmp_path / "s.npz")[1]
    assert line.startswith("direct beam: taken at")
    assert line.endswith("is it --dc corner?")


@pytest.mark.parametrize(
    "arrays",
    [
        {"pixel_size": 3.0},
        {"wavelength": 1.0},
        {"positions": "outlier"},
        {"positions": "metres"},
    ],
)
def test_numbers_that_no_experiment_has_are_refused_in_our_own_files(tmp_path, scan, arrays):
    if "positions" in arrays:
        positions = scan.positions.copy()
        positions[3] += 1e6 * (arrays["positions"] == "outlier")
        arrays = {"positions": positions * (1e-8 if arrays["positions"] == "metres" else 1)}
    path = stored(tmp_path / "s.npz", scan, **arrays)
    with pytest.raises(InputError, match=r"object pixel size|wavelength|outlier|another unit"):
        read_scan(path)


def test_a_reference_beside_the_positions_is_left_out_aloud(tmp_path, scan, truth):
    write_scan(tmp_path / "s.npz", replace(scan, reference=Reference(truth, (1000.0, 0.0))))
    result, lines = read(tmp_path / "s.npz")
    assert result.reference is None
    assert lines == [
        f"known object: left out, since positions leave its {truth.shape[0]} x {truth.shape[1]} pixels"
    ]


def test_a_flipped_bit_of_uncompressed_patterns_is_refused(tmp_path, scan):
    path = stored(tmp_path / "s.npz", scan)
    content = bytearray(path.read_bytes())
    content[content.index(scan.diffraction.tobytes()) + 4002] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"s\.npz: 'diffraction' is damaged: its checksum is"):
        read_scan(path)


@pytest.mark.parametrize("key", ["probe", "reference_object", "labels"])
def test_numbers_beyond_single_precision_are_refused(tmp_path, scan, truth, key):
    arrays = {"probe": scan.probe, "reference_object": truth, "labels": scan.labels}
    changes = {key: arrays[key].astype(complex) * 1e300, "reference_origin": np.zeros(2)}
    if key != "reference_object":
        del changes["reference_origin"]
    with pytest.raises(
        InputError, match=rf"{key}.* holds values up to .*e\+30[0-9], expected at most 3\.4e\+38"
    ):
        read_scan(stored(tmp_path / "s.npz", scan, **changes))
