"""Files laid out by the NeXus definition NXcxi_ptycho, by this test."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.scan import Scan

DISTANCE, DETECTOR_PIXEL, ENERGY = 2.0, 75e-6, 8000.0  # m, m, eV
WAVELENGTH = 1.2398419843e-6 / ENERGY
PIXEL = WAVELENGTH * DISTANCE / (16 * DETECTOR_PIXEL)
DETECTOR = "{e}/instrument_1/detector_1"


def write(path, scan, *, entry="entry_1", definition="NXptycho", raster=None, names=True, changes=None):
    """`changes`: (dataset, value, attributes); value None drops. Groups get other names unless `names`."""
    row, column = scan.positions.T
    x, y = column * PIXEL, row * PIXEL
    counts = scan.diffraction.astype(np.float64) ** 2
    if raster:
        counts, x, y = counts.reshape(*raster, 16, 16), x.reshape(raster), y.reshape(raster)
    instrument, detector, beam, sample = (
        ("instrument_1", "detector_1", "beam_1", "sample_1") if names else ("i", "eiger", "b", "s")
    )
    content = {
        "definition": (definition, {}),
        f"{instrument}/{detector}/data": (counts, {}),
        f"{instrument}/{detector}/distance": (1e3 * DISTANCE, {"units": "mm"}),
        f"{instrument}/{detector}/x_pixel_size": (1e6 * DETECTOR_PIXEL, {"units": "um"}),
        f"{instrument}/{detector}/y_pixel_size": (DETECTOR_PIXEL, {"units": "m"}),
        f"{instrument}/{beam}/incident_beam_energy": (ENERGY / 1e3, {"units": "keV"}),
        # The horizontal stage is wired against x, and says so.
        f"{sample}/transformations/sx": (-1e6 * x, {"units": "um", "vector": [-1.0, 0, 0]}),
        f"{sample}/transformations/sy": (1e3 * y, {"units": "mm", "vector": [0, 1.0, 0]}),
        f"{sample}/transformations/angle": (0.0, {"vector": [0, 1.0, 0], "transformation_type": "rotation"}),
    }
    for name, value, attributes in changes or []:
        content[name] = (value, attributes)
    with h5py.File(path, "w") as file:
        for name, (value, attributes) in content.items():
            if value is None:
                continue
            file[f"{entry}/{name}"] = value
            file[f"{entry}/{name}"].attrs.update(attributes)
        classes = {instrument: "NXinstrument", f"{instrument}/{detector}": "NXdetector"}
        classes |= {f"{instrument}/{beam}": "NXbeam", sample: "NXsample"}
        for name, kind in classes.items():
            if f"{entry}/{name}" in file:
                file[f"{entry}/{name}"].attrs["NX_class"] = kind
    return path


@pytest.mark.parametrize("definition", ["NXptycho", "NXcxi_ptycho"])
@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("raster", [None, (4, 5)])
def test_patterns_and_positions_agree_with_the_object(scan, explains, tmp_path, definition, names, raster):
    entry = "entry_1" if names else "entry"
    path = write(tmp_path / "s.nxs", scan, entry=entry, definition=definition, names=names, raster=raster)
    back = read_scan(path)
    explains(back)
    assert back.pixel_size == pytest.approx(PIXEL, rel=1e-6)
    assert back.wavelength == pytest.approx(WAVELENGTH, rel=1e-6)


@pytest.mark.parametrize("name", ["data_1", "instrument_1/detector_1", "sample_1/geometry_1"])
def test_translations_are_read_with_their_unit(scan, explains, tmp_path, name):
    row, column = scan.positions.T * PIXEL * 1e9
    moved = np.stack([column, row, 0 * row], axis=1)
    lines = []
    path = write(tmp_path / "s.nxs", scan, changes=[(f"{name}/translation", moved, {"units": "nm"})])
    explains(read_scan(path, log=lines.append))
    assert "unit: m (from the units nm of the file)" in lines


@pytest.mark.parametrize("raster", [None, (4, 5)])
def test_translations_may_keep_the_axes_of_a_raster(scan, explains, tmp_path, raster):
    row, column = scan.positions.T * PIXEL
    moved = np.stack([column, row], axis=1).reshape(4, 5, 2)
    changes = [("data_1/translation", moved, {"units": "m"})]
    explains(read_scan(write(tmp_path / "s.nxs", scan, raster=raster, changes=changes)))


def test_a_raster_is_read_block_by_block(scan, explains, tmp_path, monkeypatch):
    monkeypatch.setattr("ptychonnx.runtime.formats.conversion.frames._BLOCK_BYTES", 3 * 16 * 16 * 8)
    explains(read_scan(write(tmp_path / "s.nxs", scan, raster=(4, 5))))


def test_the_mask_and_the_wavelength_are_read(scan, tmp_path):
    bad = np.zeros((16, 16), np.uint32)
    bad[2, 3] = 2
    changes = [
        ("instrument_1/detector_1/pixel_mask", bad, {}),
        ("instrument_1/beam_1/incident_wavelength", 1.5, {"units": "angstrom"}),
    ]
    back = read_scan(write(tmp_path / "s.nxs", scan, changes=changes))
    assert np.argwhere(~back.mask).tolist() == [[2, 3]]
    assert back.wavelength == pytest.approx(1.5e-10)


def test_a_stage_wired_the_other_way_is_turned_by_an_option(scan, explains, tmp_path):
    mirrored = Scan(scan.diffraction, scan.positions * [-1, 1])
    path = write(tmp_path / "s.nxs", mirrored)
    with pytest.raises((AssertionError, InputError)):
        explains(read_scan(path))
    explains(read_scan(path, options=ReadOptions(positions_sign="flip-row")))


DATA = "instrument_1/detector_1/data"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([(DATA, None, {})], "no dataset entry_1/instrument_1/detector_1/data"),
        ([(DATA, np.ones((20, 16, 15)), {})], r"\(20, 16, 15\), expected square"),
        ([(DATA, np.ones((16, 16)), {})], r"shape \(16, 16\), expected square"),
        ([("data_1/translation", np.zeros((19, 3)), {})], r"shape \(19, 3\), expected \(20, 3\)"),
        ([("data_1/translation", np.zeros((20, 3)), {"units": "furlong"})], "in 'furlong', expected one of"),
        ([("data_1/translation", np.full((20, 3), np.nan), {})], r"positions\[0\] is NaN"),
        ([("sample_1/transformations/sx", np.zeros(19), {"vector": [1.0, 0, 0]})], "expected 20 values"),
        ([("instrument_1/detector_1/distance", None, {})], "no pixel size"),
        ([("instrument_1/detector_1/distance", np.nan, {"units": "m"})], "one length other than 0"),
        ([("instrument_1/detector_1/y_pixel_size", 1e-3, {})], "expected square ones"),
        ([("instrument_1/detector_1/mask", np.zeros((8, 8), int), {})], "0 = good"),
        ([("instrument_1/beam_1/incident_beam_energy", 8.0, {"units": "V"})], "in 'V'"),
    ],
)
def test_broken_content_is_refused(scan, tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as error:
        read_scan(write(tmp_path / "broken.nxs", scan, changes=changes))
    assert "broken.nxs" in str(error.value)


def test_a_definition_may_be_in_a_part_of_an_entry_and_others_are_named(scan, explains, tmp_path):
    path = write(tmp_path / "s.nxs", scan)
    with h5py.File(path, "a") as file:
        file.move("entry_1", "content")
        file["entry/title"] = "a scan"
        file.move("content", "entry/ptycho")
        file["entry/ptycho"].attrs["NX_class"] = "NXsubentry"
    explains(read_scan(path))
    with h5py.File(path, "a") as file:
        file.copy("entry/ptycho", "entry_2")
    lines = []
    explains(read_scan(path, log=lines.append))
    assert "entry: entry/ptycho, not entry_2" in lines


def test_axes_of_a_raster_that_is_stored_the_other_way_round_are_refused(scan, tmp_path):
    path = write(tmp_path / "s.nxs", scan, raster=(4, 5))
    with h5py.File(path, "a") as file:
        axes = file["entry_1/sample_1/transformations"]
        for name in ("sx", "sy"):
            values, attributes = axes[name][()].T, dict(axes[name].attrs)
            del axes[name]
            axes[name] = values
            axes[name].attrs.update(attributes)
    with pytest.raises(InputError, match=r"transformations/s[xy] has shape \(5, 4\), expected \(4, 5\)"):
        read_scan(path)


def test_a_single_picture_of_a_camera_is_no_scan(scan, explains, tmp_path):
    path = write(tmp_path / "s.nxs", scan)
    with h5py.File(path, "a") as file:
        camera = file.create_group("entry_1/instrument_1/camera")
        camera.attrs["NX_class"] = "NXdetector"
        camera["data"] = np.ones((1, 64, 64))
    lines = []
    explains(read_scan(path, log=lines.append))
    assert any(line.startswith("detector: detector_1 of ") for line in lines)


@pytest.mark.parametrize("frames", [1, 20])
def test_a_mask_may_have_an_axis_of_one(scan, tmp_path, frames):
    mask = np.zeros((frames, 16, 16), np.uint32)
    mask[:, 2, 3] = 1
    path = write(tmp_path / "s.nxs", scan, changes=[("instrument_1/detector_1/pixel_mask", mask, {})])
    if frames == 1:
        assert np.argwhere(~read_scan(path).mask).tolist() == [[2, 3]]
    else:
        with pytest.raises(InputError, match=r"pixel_mask is uint32 of shape \(20, 16, 16\)"):
            read_scan(path)
