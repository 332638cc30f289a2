from __future__ import annotations

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.formats.conversion import frames
from ptychonnx.runtime.scan.forward_model import cut_windows, forward

DETECTOR = "entry_1/instrument_1/detector_1"
SOURCE = "entry_1/instrument_1/source_1"
TRANSLATION = "entry_1/sample_1/geometry_1/translation"
DISTANCE, DETECTOR_PIXEL, WAVELENGTH = 2.0, 75e-6, 1.5e-10
PIXEL = WAVELENGTH * DISTANCE / (16 * DETECTOR_PIXEL)


def write(path, scan, **changes):
    """A CXI file as a beamline writes it; `changes` replace datasets, or drop them if None."""
    row, column = scan.positions.T
    # The sample moves up (+y) and to the left (+x) for the beam to meet what lies below and to the right.
    sample = np.stack([column * PIXEL, row * PIXEL, np.full(len(row), 0.01)], axis=1) + [3e-3, -2e-3, 0]
    content = {
        f"{DETECTOR}/data": np.rint(scan.diffraction.astype(np.float64) ** 2).astype(np.uint32),
        f"{DETECTOR}/distance": DISTANCE,
        f"{DETECTOR}/x_pixel_size": DETECTOR_PIXEL,
        f"{DETECTOR}/y_pixel_size": DETECTOR_PIXEL,
        f"{SOURCE}/wavelength": WAVELENGTH,
        TRANSLATION: sample,
    } | changes
    # A scan that was read before may still have the file open.
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        for name, value in content.items():
            if value is not None:
                file[name] = value
        if "entry_1/data_1/data" not in file:
            file["entry_1/data_1/data"] = h5py.SoftLink(f"/{DETECTOR}/data")
            file["entry_1/data_1/translation"] = h5py.SoftLink(f"/{TRANSLATION}")
    return path


def differences(positions):
    return positions - positions[0]


def test_patterns_positions_and_pixel_size_come_back(scan, tmp_path):
    back = read_scan(write(tmp_path / "s.cxi", scan))
    counts = np.rint(scan.diffraction.astype(np.float64) ** 2)
    np.testing.assert_allclose(back.diffraction, np.sqrt(counts), rtol=1e-6)
    np.testing.assert_allclose(differences(back.positions), differences(scan.positions), atol=1e-6)
    assert back.positions.min(axis=0) == pytest.approx([8, 8])
    assert back.pixel_size == pytest.approx(PIXEL)
    assert back.wavelength == WAVELENGTH
    assert back.probe is None
    assert back.mask is None


def test_positions_and_patterns_of_the_file_agree_with_the_object(scan, truth, probe, tmp_path):
    back = read_scan(write(tmp_path / "s.cxi", scan))
    origin = tuple(np.median(back.positions - scan.positions, axis=0))
    patches = cut_windows(truth, back.positions, back.size, origin)
    np.testing.assert_allclose(forward(patches, probe), back.diffraction, atol=1.0)
    mirrored = cut_windows(truth[::-1], back.positions, back.size, origin)
    assert np.abs(forward(mirrored, probe) - back.diffraction).max() > 5


@pytest.mark.parametrize("transposed", [False, True])
def test_the_basis_of_the_detector_turns_the_positions(scan, tmp_path, transposed):
    # Rows run up and columns to the left: both signs against the default.
    basis = np.array([[0, DETECTOR_PIXEL, 0], [DETECTOR_PIXEL, 0, 0]])
    change = {f"{DETECTOR}/basis_vectors": basis.T if transposed else basis}
    back = read_scan(write(tmp_path / "s.cxi", scan, **change))
    np.testing.assert_allclose(differences(back.positions), -differences(scan.positions), atol=1e-6)


def test_basis_vectors_may_be_as_long_as_the_pixels(scan, tmp_path):
    basis = DETECTOR_PIXEL * np.array([[0, -1.0, 0], [-1.0, 0, 0]])
    sizes = {f"{DETECTOR}/{axis}_pixel_size": None for axis in "xy"}
    back = read_scan(write(tmp_path / "s.cxi", scan, **{f"{DETECTOR}/basis_vectors": basis}, **sizes))
    assert back.pixel_size == pytest.approx(PIXEL)
    np.testing.assert_allclose(differences(back.positions), differences(scan.positions), atol=1e-6)
    with pytest.raises(InputError, match=r"pixels are 7\.5e-05 m, but its basis vectors 0\.00015 m long"):
        read_scan(write(tmp_path / "s.cxi", scan, **{f"{DETECTOR}/basis_vectors": 2 * basis}))


@pytest.mark.parametrize("bad", [16 * 9, 16 * 7])
def test_a_mask_of_mostly_bad_pixels_is_named(scan, tmp_path, bad):
    mask = (np.arange(256) < bad).reshape(16, 16).astype(np.uint8)
    lines = []
    read_scan(write(tmp_path / "s.cxi", scan, **{f"{DETECTOR}/mask": mask}), log=lines.append)
    named = [
        line
        for line in lines
        if line.startswith("mask: 144 of 256 pixels are bad: does it mark the good ones?")
    ]
    assert len(named) == (bad > 128)


def test_positions_of_two_columns_and_in_other_places_are_read(scan, tmp_path):
    row, column = scan.positions.T * PIXEL
    for name in (f"{DETECTOR}/translation", "entry_1/data_1/translation", TRANSLATION):
        changes = {TRANSLATION: None, name: np.stack([column, row], axis=1)}
        if name.startswith("entry_1/data_1"):
            changes["entry_1/data_1/data"] = scan.diffraction**2
        back = read_scan(write(tmp_path / "s.cxi", scan, **changes))
        np.testing.assert_allclose(differences(back.positions), differences(scan.positions), atol=1e-6)


def test_pynx_writes_a_row_for_each_axis_and_the_dark_frame(scan, tmp_path):
    row, column = scan.positions.T * PIXEL
    xyz = np.stack([column, row, 0 * row]).astype(np.float32)
    lines = []
    path = write(tmp_path / "s.cxi", scan, **{TRANSLATION: xyz, f"{DETECTOR}/dark": np.full((16, 16), 7.0)})
    back = read_scan(path, log=lines.append)
    np.testing.assert_allclose(differences(back.positions), differences(scan.positions), atol=1e-4)
    assert f"background: {DETECTOR}/dark is left out: subtract it from the patterns if they hold it" in lines


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32])
def test_counts_of_any_width_are_read(scan, tmp_path, dtype):
    counts = np.minimum(scan.diffraction**2, 100).astype(dtype)
    back = read_scan(write(tmp_path / "s.cxi", scan, **{f"{DETECTOR}/data": counts}))
    np.testing.assert_allclose(back.diffraction, np.sqrt(counts.astype(float)), rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "sentinel"), [(np.uint32, 2**32 - 1), (np.int32, -1), (np.float32, np.nan), (np.uint16, 65535)]
)
def test_masked_pixels_may_hold_anything_and_unmasked_ones_not(scan, tmp_path, dtype, sentinel):
    counts = np.minimum(scan.diffraction**2, 6e4).astype(dtype)
    counts[:, 2, 3] = sentinel
    mask = np.zeros((16, 16), np.uint32)
    mask[2, 3] = 0x4
    mask[7, 7] = 0x1000  # signal above background: still good
    changes = {f"{DETECTOR}/data": counts, f"{DETECTOR}/mask": mask}
    back = read_scan(write(tmp_path / "s.cxi", scan, **changes))
    assert not back.mask[2, 3]
    assert back.mask.sum() == 255
    assert (back.diffraction[:, 2, 3] == 0).all()
    assert back.diffraction[:, 7, 7].max() > 0
    changes[f"{DETECTOR}/mask"] = None
    unmasked = read_scan(write(tmp_path / "s.cxi", scan, **changes))
    message = r"data\[3\] has 1 pixels that are negative, NaN or saturated and not masked.*mask"
    with pytest.raises(InputError, match=message):
        unmasked.diffraction[3]


def test_a_shifted_dataset_is_shifted_back_with_its_mask(scan, tmp_path):
    mask = np.zeros((16, 16), np.uint8)
    mask[1, 2] = 1
    shifted = np.fft.ifftshift(scan.diffraction**2, axes=(1, 2))
    path = write(tmp_path / "s.cxi", scan, **{f"{DETECTOR}/data": shifted, f"{DETECTOR}/mask": mask})
    with h5py.File(path, "a") as file:
        file[f"{DETECTOR}/data"].attrs["is_fft_shifted"] = True
    back = read_scan(path)
    expected = scan.diffraction.copy()
    expected[:, 9, 10] = 0
    np.testing.assert_allclose(back.diffraction, expected, rtol=1e-5)
    assert np.argwhere(~back.mask).tolist() == [[9, 10]]


def test_the_energy_stands_in_for_the_wavelength(scan, tmp_path):
    joules = 1.98644586e-25 / WAVELENGTH
    for name in (f"{SOURCE}/energy", "entry_1/instrument_1/beam_1/incident_energy"):
        back = read_scan(write(tmp_path / "s.cxi", scan, **{f"{SOURCE}/wavelength": None, name: joules}))
        assert back.wavelength == pytest.approx(WAVELENGTH)


@pytest.mark.parametrize("name", ["illumination", "probe"])
def test_the_probe_is_scaled_to_the_counts(scan, probe, tmp_path, name):
    back = read_scan(write(tmp_path / "s.cxi", scan, **{f"{SOURCE}/{name}": probe[0] * 1e-3}))
    assert np.sum(np.abs(back.probe) ** 2) == pytest.approx(back.flux, rel=1e-5)
    np.testing.assert_allclose(np.angle(back.probe), np.angle(probe), atol=1e-5)


def test_positions_and_probe_may_be_in_a_second_file(scan, probe, explains, tmp_path):
    path = write(tmp_path / "diffraction.cxi", scan, **{TRANSLATION: None})
    row, column = scan.positions.T * PIXEL
    with h5py.File(tmp_path / "product.cxi", "w") as file:
        file[TRANSLATION] = np.stack([column, row, 0 * row], axis=1)
        file[f"{SOURCE}/illumination"] = probe[None]
    back = read_scan(path)
    explains(back, tolerance=5e-3)  # half a photon
    assert back.probe.shape == (1, 16, 16)
    (tmp_path / "product.cxi").rename(tmp_path / "p.cxi")
    with pytest.raises(InputError, match="no dataset entry_1/data_1/translation"):
        read_scan(path)
    explains(read_scan(path, options=ReadOptions(companion=tmp_path / "p.cxi")), tolerance=5e-3)


def test_compressed_data_are_read_block_by_block(scan, tmp_path, monkeypatch):
    import hdf5plugin

    counts = np.rint(scan.diffraction**2).astype(np.uint32)
    path = write(tmp_path / "s.cxi", scan)
    with h5py.File(path, "a") as file:
        del file[f"{DETECTOR}/data"]
        file.create_dataset(f"{DETECTOR}/data", data=counts, chunks=(1, 16, 16), **hdf5plugin.Bitshuffle())
    monkeypatch.setattr(frames, "_BLOCK_BYTES", 7 * 16 * 16 * 8)
    np.testing.assert_allclose(read_scan(path).diffraction, np.sqrt(counts), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({TRANSLATION: None}, "no dataset entry_1/data_1/translation or"),
        ({TRANSLATION: np.zeros((19, 3))}, r"shape \(19, 3\), expected \(20, 3\)"),
        ({TRANSLATION: np.zeros((4, 20))}, r"shape \(4, 20\)"),
        ({TRANSLATION: np.full((20, 3), np.nan)}, r"positions\[0\] is NaN"),
        ({f"{DETECTOR}/data": np.zeros((20, 16, 15))}, r"\(20, 16, 15\), expected square"),
        ({f"{DETECTOR}/data": np.zeros((0, 16, 16)), TRANSLATION: np.zeros((0, 3))}, "empty"),
        ({f"{DETECTOR}/data": np.zeros((20, 16, 16), complex)}, "complex128, expected photon counts"),
        ({f"{DETECTOR}/data": None}, "entry_1/data_1/data is a link that leads nowhere"),
        ({f"{DETECTOR}/mask": np.zeros((8, 8), int)}, r"shape \(16, 16\), 0 = good"),
        ({f"{DETECTOR}/mask": np.ones((16, 16), int)}, "mask has no valid pixel"),
        ({f"{DETECTOR}/distance": None}, "detector_1/distance, expected metres"),
        ({f"{DETECTOR}/distance": 0.0}, "distance is 0.0, expected one length other than 0"),
        (
            {f"{DETECTOR}/x_pixel_size": None, f"{DETECTOR}/y_pixel_size": None},
            "x_pixel_size or y_pixel_size",
        ),
        ({f"{DETECTOR}/x_pixel_size": 1e-4}, "expected square ones"),
        ({f"{DETECTOR}/basis_vectors": np.zeros((2, 3))}, "expected two vectors"),
        ({f"{SOURCE}/wavelength": None}, "incident_wavelength or .*metres or joules"),
        ({f"{SOURCE}/wavelength": 1.5}, "metres and joules?"),
        ({f"{SOURCE}/wavelength": None, f"{SOURCE}/energy": b"8.3 keV"}, "expected one positive energy"),
        ({f"{SOURCE}/probe": np.ones((16, 16))}, "expected complex"),
        ({f"{SOURCE}/probe": np.ones((8, 8), complex)}, "the probe has 8 x 8 pixels, the patterns have"),
    ],
)
def test_broken_content_is_refused(scan, tmp_path, changes, message):
    path = write(tmp_path / "broken.cxi", scan, **changes)
    with pytest.raises(InputError, match=message) as error:
        read_scan(path)
    assert "broken.cxi" in str(error.value)


def test_a_truncated_file_is_refused(scan, tmp_path):
    path = write(tmp_path / "cut.cxi", scan)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match=r"cut\.cxi: damaged or unreadable"):
        read_scan(path)


def test_other_entries_with_patterns_are_named(scan, tmp_path):
    path, lines = write(tmp_path / "s.cxi", scan), []
    with h5py.File(path, "a") as file:
        file["entry_2/data_1/data"] = np.ones((3, 16, 16))
        file["entry_3/title"] = "a result"
    read_scan(path, log=lines.append)
    assert "entry: entry_1, not entry_2" in lines


def test_a_raster_may_keep_its_two_axes(scan, tmp_path):
    row, column = scan.positions.T * PIXEL
    changes = {
        f"{DETECTOR}/data": (scan.diffraction**2).reshape(4, 5, 16, 16),
        TRANSLATION: np.stack([column, row, 0 * row], axis=1).reshape(4, 5, 3),
    }
    back = read_scan(write(tmp_path / "s.cxi", scan, **changes))
    np.testing.assert_allclose(differences(back.positions), differences(scan.positions), atol=1e-6)
    np.testing.assert_allclose(back.diffraction, scan.diffraction, rtol=1e-5)
    changes[TRANSLATION] = changes[TRANSLATION].reshape(5, 4, 3)
    with pytest.raises(InputError, match=r"translation has shape \(5, 4, 3\)"):
        read_scan(write(tmp_path / "s.cxi", scan, **changes))
