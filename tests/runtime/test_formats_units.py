"""Units and numbers as facilities spell them: each gives the same scan, or is named."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from tests.runtime import test_formats_cxi, test_formats_mapped, test_formats_nexus
from tests.runtime.test_formats_cxi import DETECTOR, DISTANCE, PIXEL, SOURCE, TRANSLATION, WAVELENGTH

ENERGY = 1.9864458571489286e-25 / WAVELENGTH  # joules


def read(path, **options):
    lines = []
    return read_scan(path, options=ReadOptions(**options), log=lines.append), lines


def stated(path, name, **attributes):
    with h5py.File(path, "a") as file:
        file[name].attrs.update(attributes)
    return path


def test_each_column_of_the_positions_may_have_its_unit(scan, explains, tmp_path):
    translation = np.stack([*(scan.positions.T[::-1] * PIXEL), np.zeros(len(scan))], axis=1) * [1e6, 1e3, 1]
    path = test_formats_cxi.write(tmp_path / "s.cxi", scan, **{TRANSLATION: translation})
    explains(read_scan(stated(path, TRANSLATION, units=[b"um", b"mm", b"m"])), 0.01)
    with pytest.raises(InputError, match=r"the units um, mm, expected one unit or one for each column"):
        read_scan(stated(path, TRANSLATION, units=["um", "mm"]))
    changes = [
        ("instrument_1/detector_1/translation", translation, {"units": np.array(["um", "mm", "m"], "O")})
    ]
    nexus = test_formats_nexus.write(tmp_path / "s.nxs", scan, changes=changes)
    back, lines = read(nexus, wavelength=WAVELENGTH)
    np.testing.assert_allclose(np.diff(back.positions, axis=0), np.diff(scan.positions, axis=0), atol=1e-5)
    assert "unit: m (from the units um, mm, m of the file)" in lines


@pytest.mark.parametrize(
    ("unit", "scale"),
    [("\u212b", 1e10), ("\u00c5", 1e10), ("Ang", 1e10), ("nm ", 1e9), ("\u00b5m", 1e6), (["pm"], 1e12)],
)
def test_wavelengths_in_any_spelling(scan, tmp_path, unit, scale):
    path = test_formats_cxi.write(tmp_path / "s.cxi", scan, **{f"{SOURCE}/wavelength": WAVELENGTH * scale})
    back = read_scan(stated(path, f"{SOURCE}/wavelength", units=unit))
    assert back.wavelength == pytest.approx(WAVELENGTH)


def test_numbers_for_each_pattern_count_once_if_they_are_one(scan, explains, tmp_path):
    change = {f"{SOURCE}/wavelength": np.full(20, WAVELENGTH), f"{DETECTOR}/distance": np.full(20, DISTANCE)}
    explains(read_scan(test_formats_cxi.write(tmp_path / "s.cxi", scan, **change)), 0.01)
    change = {f"{SOURCE}/wavelength": np.linspace(1, 1.1, 20) * WAVELENGTH}
    with pytest.raises(InputError, match=r"wavelength varies from 1\.5e-10 to 1\.65e-10, expected one"):
        read_scan(test_formats_cxi.write(tmp_path / "s.cxi", scan, **change))


def test_a_wavelength_that_contradicts_the_energy_is_named(scan, tmp_path):
    change = {f"{SOURCE}/energy": 2 * ENERGY}
    _, lines = read(test_formats_cxi.write(tmp_path / "s.cxi", scan, **change))
    doubt = (
        "wavelength: 1.5e-10 m, but the energy in the file is that of 7.5e-11 m: is it --wavelength 7.5e-11?"
    )
    assert doubt in lines
    # The same photon, or an energy that is none of a photon, such as that of a pulse.
    for energy in (ENERGY, 1e-3):
        path = test_formats_cxi.write(tmp_path / "s.cxi", scan, **{f"{SOURCE}/energy": energy})
        assert not any(line.startswith(("wavelength", "energy")) for line in read(path)[1])


def test_a_given_pixel_size_needs_no_geometry(scan, explains, tmp_path):
    for name in (f"{SOURCE}/wavelength", f"{DETECTOR}/distance"):
        path = test_formats_cxi.write(tmp_path / "s.cxi", scan, **{name: None})
        with pytest.raises(InputError, match="--pixel-size"):
            read_scan(path)
        explains(read(path, pixel_size=PIXEL)[0], 0.01)


@pytest.mark.parametrize("unit", ["Micrometers", " um", "MICRON", b"um "])
def test_mapped_positions_in_any_spelling(scan, explains, tmp_path, unit):
    path = test_formats_mapped.write(tmp_path / "s.h5", scan, **{"entry/pos": scan.positions * PIXEL * 1e6})
    mapping = {"patterns": "entry/data", "positions": "entry/pos"}
    explains(read(stated(path, "entry/pos", units=unit), mapping=mapping, pixel_size=PIXEL)[0])


def test_an_axis_without_a_unit_is_named(scan, tmp_path):
    row, column = scan.positions.T * PIXEL
    path = test_formats_mapped.write(tmp_path / "s.h5", scan, x=column * 1e6, y=row)
    mapping = {"patterns": "entry/data", "x": "x", "y": "y"}
    _, lines = read(stated(path, "x", units="um"), mapping=mapping, pixel_size=PIXEL)
    assert "positions: x or y states no unit, um taken for both" in lines
    path = test_formats_mapped.write(tmp_path / "t.h5", scan, x=column * 1e6, y=row * 1e6)
    stated(path, "x", units="um")
    _, lines = read(stated(path, "y", units="um"), mapping=mapping, pixel_size=PIXEL)
    assert not any("taken for both" in line for line in lines)
