from __future__ import annotations

import dataclasses
import io
import os
import sys
import warnings
import zipfile

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_reference, read_scan, write_scan
from ptychonnx.runtime.scan import Scan


def edited(path, target, **changes):
    """A copy of an NPZ with keys replaced, or left out if None."""
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    arrays.update(changes)
    np.savez(target, **{key: value for key, value in arrays.items() if value is not None})
    return target


@pytest.fixture
def stored(scan, tmp_path):
    path = tmp_path / "scan.npz"
    write_scan(path, scan)
    return path


def test_everything_in_a_scan_comes_back(scan, stored):
    back = read_scan(stored)
    for field in ("diffraction", "positions", "probe", "mask", "labels"):
        left, right = getattr(back, field), getattr(scan, field)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(back.reference.object, scan.reference.object)
    assert back.reference.origin == scan.reference.origin
    assert (back.pixel_size, back.wavelength) == (scan.pixel_size, scan.wavelength)
    assert back.name == "scan.npz"


def test_a_scan_of_patterns_and_positions_alone_comes_back(scan, tmp_path):
    path = tmp_path / "bare.npz"
    write_scan(path, Scan(scan.diffraction, scan.positions))
    back = read_scan(path)
    assert back.probe is back.mask is back.reference is back.labels is back.pixel_size is None


def test_equal_scans_give_equal_bytes(scan, stored, tmp_path):
    again = tmp_path / "elsewhere" / "again.npz"
    write_scan(again, dataclasses.replace(scan, name="other name"))
    assert again.read_bytes() == stored.read_bytes()


def test_a_name_that_numpy_would_change_is_refused(scan, tmp_path):
    with pytest.raises(InputError, match=r"ends in \.npz"):
        write_scan(tmp_path / "scan.dat", scan)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": np.array("ptychonnx-scan-9")}, "ptychonnx-scan-9.*expected 'ptychonnx-scan-1'"),
        ({"reference_origin": None}, "'reference_origin'"),
        ({"reference_origin": np.zeros(3)}, r"'reference_origin' has shape \(3,\)"),
        ({"mask": np.ones((16, 16))}, "'mask' is float64, expected bool"),
        ({"mask": np.zeros((16, 16), dtype=bool)}, "mask has no valid pixel"),
        ({"diffraction": np.ones((20, 16, 16))}, "float64, expected float32"),
        ({"diffraction": np.array(["x"])}, "'diffraction' is <U1"),
        ({"diffraction": np.zeros((0, 16, 16), np.float32)}, "empty"),
        ({"positions": np.zeros((19, 2))}, r"positions have shape \(19, 2\), expected \(20, 2\)"),
        ({"probe": np.ones((1, 8, 8), np.complex64)}, r"probe has shape \(1, 8, 8\)"),
        ({"pixel_size": np.array(-1.0)}, "'pixel_size' is -1.0, expected one positive length in metres"),
        ({"wavelength": np.array([1.0, 2.0])}, "'wavelength'"),
        ({"probe": np.array([{"a": 1}], dtype=object)}, "'probe' is a pickled object, which is never loaded"),
    ],
)
def test_broken_content_is_refused_in_one_line(stored, tmp_path, changes, message):
    path = edited(stored, tmp_path / "broken.npz", **changes)
    with pytest.raises(InputError, match=message) as error:
        read_scan(path)
    assert "broken.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused(stored, tmp_path):
    content = stored.read_bytes()
    for share in (0.3, 0.9, 0.999):
        path = tmp_path / "cut.npz"
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(InputError, match=r"cut\.npz: truncated"):
            read_scan(path)


def test_a_flipped_byte_in_an_array_is_noticed(stored, tmp_path):
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path = tmp_path / "flipped.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"flipped\.npz.*damaged"):
        read_scan(path)


def test_what_is_no_scan_is_refused_with_the_known_formats(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.save(tmp_path / "single.npy", np.zeros(3))
    for name in ("text.npz", "other.npz", "single.npy"):
        with pytest.raises(
            InputError, match=rf"{name}.*ptychonnx.*PtychoPINN.*tike.*data, scan.*CXI.*entry_1"
        ):
            read_scan(tmp_path / name)
    for path, reason in ((tmp_path / "absent.npz", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(InputError, match=reason):
            read_scan(path)


def test_the_name_of_a_file_does_not_matter(stored, tmp_path):
    stored.rename(tmp_path / "scan.cxi")
    assert len(read_scan(tmp_path / "scan.cxi")) == 20


def test_a_probe_from_another_file_replaces_the_first(stored, tmp_path):
    other = np.full((16, 16), 2 + 1j, np.complex64)
    np.savez(tmp_path / "probe.npz", probe=other)
    scan = read_scan(stored, probe=tmp_path / "probe.npz")
    assert np.sum(np.abs(scan.probe) ** 2) == pytest.approx(scan.flux, rel=1e-5)
    np.testing.assert_allclose(scan.probe / scan.probe[0, 0, 0], np.ones((1, 16, 16)), rtol=1e-6)
    assert np.angle(scan.probe[0, 0, 0]) == pytest.approx(np.angle(2 + 1j))
    with pytest.raises(InputError, match="no NPZ file"):
        read_scan(stored, probe=tmp_path / "absent.npz")


def test_a_reference_is_placed_by_its_window_corners(scan, stored, truth, tmp_path):
    # A margin of 3 rows and 5 columns around the truth, corners counted in the larger image.
    corners = scan.positions - 8 + [3, 5]
    np.savez(tmp_path / "r.npz", object=np.pad(truth, ((3, 3), (5, 5))), topleft_px=corners.astype(np.int32))
    assert read_scan(stored, reference=tmp_path / "r.npz").reference.origin == (-3.0, -5.0)


def test_a_reference_of_another_scan_is_refused(scan, truth, tmp_path):
    path = tmp_path / "r.npz"
    corners = scan.positions - 8
    corners[4] += [0, 2]
    np.savez(path, object=truth, topleft_px=corners)
    with pytest.raises(InputError, match=r"positions differ from those of known by up to 2\.0 pixels"):
        read_reference(path, scan)
    np.savez(path, object=truth, topleft_px=corners[:-1])
    with pytest.raises(InputError, match="'topleft_px' has shape"):
        read_reference(path, scan)
    np.savez(path, object=truth)
    with pytest.raises(InputError, match="no key 'origin'"):
        read_reference(path, scan)
    np.savez(path, object=np.full((4, 4), np.nan), origin=np.zeros(2))
    with pytest.raises(InputError, match="NaN"):
        read_reference(path, scan)
    path.write_text("x")
    with pytest.raises(InputError, match="neither NPZ nor HDF5"):
        read_reference(path, scan)


def test_a_reconstruction_serves_as_reference(scan, truth, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "object.h5", "w") as file:
        file["object"] = truth
        file["origin_px"] = [2.0, -7.0]
    reference = read_reference(tmp_path / "object.h5", scan)
    np.testing.assert_array_equal(reference.object, truth)
    assert reference.origin == (2.0, -7.0)
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(InputError, match="no dataset 'object'"):
        read_reference(tmp_path / "empty.h5", scan)


def test_an_archive_that_holds_an_array_twice_is_refused(scan, stored):
    content = io.BytesIO()
    np.save(content, scan.positions + 1)
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(stored, "a") as archive:
        archive.writestr("positions.npy", content.getvalue())
    with pytest.raises(InputError, match="holds positions more than once, expected each array once"):
        read_scan(stored)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_utf8_is_made_readable(scan, tmp_path):
    path = tmp_path / os.fsdecode(b"\x80 a.npz")
    write_scan(path, scan)
    assert read_scan(path).name == "\ufffd a.npz"
