"""Units and geometries that no experiment has are refused in one line, with the number and the option."""

from __future__ import annotations

import re

import h5py
import numpy as np
import pytest
from scipy import constants

from ptychonnx.runtime.errors import InputError, UnsupportedError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from tests.runtime import test_formats_cxi, test_formats_nexus, test_formats_ptyd
from tests.runtime.test_formats_cxi import DETECTOR, SOURCE, TRANSLATION
from tests.runtime.test_formats_nexus import PIXEL

BEAM = "instrument_1/beam_1"


@pytest.mark.parametrize("name", ["incident_beam_energy", "energy"])
@pytest.mark.parametrize(("value", "unit"), [(8000.0, "eV"), (8.0, "keV"), (8000 * constants.eV, "J")])
def test_an_energy_without_units_is_in_the_unit_of_a_photon(scan, explains, tmp_path, name, value, unit):
    changes = [(f"{BEAM}/incident_beam_energy", None, {}), (f"{BEAM}/{name}", value, {})]
    lines = []
    back = read_scan(test_formats_nexus.write(tmp_path / "s.nxs", scan, changes=changes), log=lines.append)
    explains(back)
    assert back.pixel_size == pytest.approx(PIXEL, rel=1e-6)
    note = f"energy: {value:g} taken as {unit}, since it has no units"
    assert (note in lines) == (unit != "J")


@pytest.mark.parametrize(("value", "unit"), [(8265.6128, "eV"), (8.2656128, "keV"), (1.3242972e-15, "J")])
def test_cxi_takes_energies_without_units_alike(scan, explains, tmp_path, value, unit):
    changes = {f"{SOURCE}/wavelength": None, f"{SOURCE}/energy": value}
    lines = []
    back = read_scan(test_formats_cxi.write(tmp_path / "s.cxi", scan, **changes), log=lines.append)
    explains(back, tolerance=5e-3)
    assert back.wavelength == pytest.approx(1.5e-10, rel=1e-6)
    assert (f"energy: {value:g} taken as {unit}, since it has no units" in lines) == (unit != "J")


@pytest.mark.parametrize("value", [92.0, 1e-3, 1e7])
def test_an_energy_that_could_be_several_is_refused_unless_the_wavelength_is_stated(scan, tmp_path, value):
    changes = {f"{SOURCE}/wavelength": None, f"{SOURCE}/energy": value}
    path = test_formats_cxi.write(tmp_path / "s.cxi", scan, **changes)
    with pytest.raises(InputError, match=r"without units, .* attribute units: --wavelength"):
        read_scan(path)
    back = read_scan(path, options=ReadOptions(wavelength=1.5e-10))
    assert back.pixel_size == pytest.approx(test_formats_cxi.PIXEL, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "unit"),
    [
        (f"{SOURCE}/energy", 8265.6128, "eV"),
        (f"{SOURCE}/energy", 8.2656128, "keV"),
        (f"{SOURCE}/wavelength", 1.5, "Angstroms"),
        (f"{DETECTOR}/distance", 2000.0, "Millimetres"),
        (f"{DETECTOR}/x_pixel_size", 75.0, "um"),
        (TRANSLATION, None, "um"),
        (TRANSLATION, None, "micrometer"),
    ],
)
def test_cxi_quantities_are_read_by_their_units(scan, explains, tmp_path, name, value, unit):
    import h5py

    changes = {f"{SOURCE}/wavelength": None} if "energy" in name else {}
    path = test_formats_cxi.write(tmp_path / "s.cxi", scan, **changes, **({name: value} if value else {}))
    with h5py.File(path, "a") as file:
        if value is None:
            file[name][...] *= 1e6
        file[name].attrs["units"] = unit
    back = read_scan(path)
    explains(back, tolerance=5e-3)
    assert back.pixel_size == pytest.approx(test_formats_cxi.PIXEL, rel=1e-6)


@pytest.mark.parametrize("value", ["False", b"false", "0", 0, False, np.array([0])])
def test_a_flag_may_be_text(scan, explains, tmp_path, value):
    explains(read_scan(flagged(tmp_path, scan, value)), tolerance=5e-3)


@pytest.mark.parametrize("value", ["maybe", np.array([0, 1]), 7])
def test_an_unclear_flag_is_refused(scan, tmp_path, value):
    with pytest.raises(InputError, match=r"is_fft_shifted is .*, expected true or false"):
        read_scan(flagged(tmp_path, scan, value))


def flagged(tmp_path, scan, value):
    import h5py

    path = test_formats_cxi.write(tmp_path / "s.cxi", scan)
    with h5py.File(path, "a") as file:
        file[f"{DETECTOR}/data"].attrs["is_fft_shifted"] = value
    return path


def mapped(tmp_path, scan, positions, **values):
    np.savez(tmp_path / "s.npz", d=scan.diffraction**2, p=positions)
    return read_scan(
        tmp_path / "s.npz", options=ReadOptions(mapping={"patterns": "d", "positions": "p"}, **values)
    )


def test_a_scan_in_a_fraction_of_a_pixel_is_in_another_unit(scan, tmp_path):
    with pytest.raises(InputError, match=r"p spans 0\.\d+ pixels of the object.*--positions-unit"):
        mapped(tmp_path, scan, scan.positions * 0.02)
    assert len(mapped(tmp_path, scan, scan.positions * 0.02, positions_unit="um", pixel_size=2e-8)) == 20


def test_an_outlier_is_named(scan, tmp_path):
    positions = scan.positions * 2e-8
    positions[9] += 3e-3
    with pytest.raises(InputError, match=r"p\[9\] is 1\.5e\+05 pixels away from the others.*outlier"):
        mapped(tmp_path, scan, positions, pixel_size=2e-8)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda positions: positions * 3,
            "neighbours are 24.* pixels apart, so that windows of 16 do not overlap",
        ),
        (
            lambda positions: positions + 60 * (np.arange(20) == 9)[:, None],
            "that of pattern 9 is .* an outlier",
        ),
        (
            lambda positions: positions * (np.arange(20) < 14)[:, None],
            "20 patterns have 14 different ones: were all of them recorded",
        ),
        (
            lambda positions: positions / 20,
            "neighbours are 0.4 pixels apart, and all within 1.6: are they in another",
        ),
        (lambda positions: positions, ""),
    ],
)
def test_doubtful_positions_are_named(scan, tmp_path, change, line):
    lines = []
    regular = np.stack(np.meshgrid(np.arange(4) * 8.0, np.arange(5) * 8.0, indexing="ij"), axis=-1)
    np.savez(tmp_path / "s.npz", d=scan.diffraction**2, p=change(regular.reshape(-1, 2)))
    options = ReadOptions(mapping={"patterns": "d", "positions": "p"})
    read_scan(tmp_path / "s.npz", options=options, log=lines.append)
    doubts = [text for text in lines if text.startswith("positions:")]
    assert len(doubts) == bool(line)
    assert all(re.match(f"positions: {line}", text) for text in doubts)


def test_a_pixel_or_a_wavelength_that_nobody_has_is_refused(scan, tmp_path):
    changes = [("instrument_1/detector_1/distance", 2e9, {"units": "m"})]
    with pytest.raises(InputError, match=r"object pixel size comes out as .* m, expected .*--pixel-size"):
        read_scan(test_formats_nexus.write(tmp_path / "s.nxs", scan, changes=changes))
    with pytest.raises(InputError, match=r"wavelength comes out as 1\.5 m"):
        mapped(tmp_path, scan, scan.positions, wavelength=1.5)
    # 8,265 eV read as keV.
    with pytest.raises(InputError, match=r"wavelength comes out as 1\.5e-13 m"):
        mapped(tmp_path, scan, scan.positions, wavelength=1.5e-13)


def near_field(tmp_path, scan):
    """Steps of 20 um, 5 cm before a detector of 0.65 um pixels: the far-field window would be 12 um."""
    moved = np.column_stack([scan.positions[:, ::-1] / 8 * 20e-6, np.zeros(20)])
    return test_formats_cxi.write(
        tmp_path / "s.cxi",
        scan,
        **{
            TRANSLATION: moved,
            f"{DETECTOR}/distance": 0.05,
            f"{DETECTOR}/x_pixel_size": 0.65e-6,
            f"{DETECTOR}/y_pixel_size": 0.65e-6,
        },
    )


@pytest.mark.parametrize("factor", [1e6, 1e9])
def test_positions_beyond_any_stage_are_refused(scan, tmp_path, factor):
    path = test_formats_cxi.write(tmp_path / "s.cxi", scan)
    with h5py.File(path, "a") as file:
        file[TRANSLATION][...] *= factor
    with pytest.raises(
        InputError, match=r"translation spans \S+ m, expected at most 0.1 m.*--positions-unit"
    ):
        read_scan(path)


def test_near_field_scans_are_recognised_by_their_fresnel_number(scan, tmp_path):
    with pytest.raises(UnsupportedError, match=r"Fresnel number of \d+.*near-field scans are not supported"):
        read_scan(near_field(tmp_path, scan))


def rotated(tmp_path, scan, angle, *, ordered=True, mount="angle", length=1.0):
    """x and y stages of which x is carried by a rotation about the vertical, whose vector has a length."""
    row, column = scan.positions.T * PIXEL
    chain = {"sx": mount, "angle": "sy", "sy": "."} if ordered else {}
    axes = {
        "sx": (column, [1.0, 0, 0], {}),
        "sy": (row, [0, 1.0, 0], {}),
        "angle": (angle, [0, length, 0], {"transformation_type": "rotation", "units": "deg"}),
    }
    changes = [
        (
            f"sample_1/transformations/{name}",
            values,
            {"vector": vector, **more, **({"depends_on": chain[name]} if ordered else {})},
        )
        for name, (values, vector, more) in axes.items()
    ]
    return test_formats_nexus.write(tmp_path / f"{angle:g}.nxs", scan, changes=changes)


def test_a_rotated_stage_moves_the_sample_by_its_projection(scan, tmp_path):
    back = read_scan(rotated(tmp_path, scan, 60.0))
    np.testing.assert_allclose(np.ptp(back.positions, axis=0), np.ptp(scan.positions, axis=0) * [1, 0.5])
    np.testing.assert_allclose(
        np.ptp(read_scan(rotated(tmp_path, scan, 0.0)).positions, axis=0), np.ptp(scan.positions, axis=0)
    )


@pytest.mark.parametrize("whole", [True, False])
def test_a_stage_whose_carrier_is_missing_is_refused(scan, tmp_path, whole):
    path = rotated(tmp_path, scan, 60.0)
    with h5py.File(path, "a") as file:
        (axis,) = [f"{entry}/sample_1/transformations/angle" for entry in file]
        if whole:
            del file[axis]
        else:
            del file[axis].attrs["vector"]
    with pytest.raises(
        InputError, match=r"sx depends_on 'angle', expected an axis in .*transformations with a v"
    ):
        read_scan(path)


def test_an_axis_is_a_direction_whatever_its_length(scan, tmp_path):
    back = read_scan(rotated(tmp_path, scan, 60.0, length=2.0))
    np.testing.assert_allclose(np.ptp(back.positions, axis=0), np.ptp(scan.positions, axis=0) * [1, 0.5])
    with pytest.raises(InputError, match=r"angle has shape \(\) and vector \[0\.0, 0\.0, 0\.0\], expected"):
        read_scan(rotated(tmp_path, scan, 61.0, length=0.0))


@pytest.mark.parametrize(
    ("angle", "unit"), [(np.pi / 3, "radians"), (1e3 * np.pi / 3, "mrad"), (60, "Degrees")]
)
def test_angles_are_in_the_unit_that_the_file_states(scan, tmp_path, angle, unit):
    path = rotated(tmp_path, scan, angle)
    with h5py.File(path, "a") as file:
        (axis,) = [f"{entry}/sample_1/transformations/angle" for entry in file]
        file[axis].attrs["units"] = unit
    np.testing.assert_allclose(
        np.ptp(read_scan(path).positions, axis=0), np.ptp(scan.positions, axis=0) * [1, 0.5]
    )
    with h5py.File(path, "a") as file:
        file[axis].attrs["units"] = "gon"
    with pytest.raises(InputError, match="angle is in 'gon', expected one of deg, degree"):
        read_scan(path)


def whole_numbers(path, scan):
    """Counts where PtychoPINN's files have amplitudes."""
    counts = np.rint(np.square(scan.diffraction, dtype=np.float64)).astype(np.float32)
    rows, columns = scan.positions.T
    np.savez(path, diffraction=counts, xcoords=columns, ycoords=rows, probeGuess=scan.probe[0])
    return path


def test_amplitudes_that_are_whole_numbers_are_named(scan, explains, tmp_path):
    lines = []
    path = whole_numbers(tmp_path / "s.npz", scan)
    read_scan(path, log=lines.append)
    assert any("holds whole numbers up to" in line and "--quantity counts?" in line for line in lines)
    lines.clear()
    explains(read_scan(path, options=ReadOptions(quantity="counts"), log=lines.append), tolerance=5e-3)
    assert not any("whole numbers" in line for line in lines)


def test_a_rotated_stage_of_unknown_order_is_refused(scan, tmp_path):
    with pytest.raises(InputError, match=r"angle rotates the sample by 60 degrees, expected depends_on"):
        read_scan(rotated(tmp_path, scan, 60.0, ordered=False))


@pytest.mark.parametrize(("bits", "name"), [(16, "uint16"), (32, "uint32"), (64, "uint64")])
def test_positions_that_wrapped_below_zero_are_refused(scan, tmp_path, bits, name):
    positions = scan.positions.astype(int) - 12
    assert (positions < 0).any()
    stored = positions.astype(np.int64).astype(name)
    with pytest.raises(
        InputError, match=rf"p\[\d+\] is \d+ where .*: was a number below zero stored in {bits}"
    ):
        mapped(tmp_path, scan, stored)
    # The same numbers with a sign are positions, and so are large ones.
    assert len(mapped(tmp_path, scan, positions)) == len(mapped(tmp_path, scan, positions + 2.0**31)) == 20


@pytest.mark.parametrize("distance", [-2.0, 2.0])
def test_a_distance_may_be_counted_against_the_beam(scan, tmp_path, distance):
    paths = [
        test_formats_cxi.write(tmp_path / "s.cxi", scan, **{f"{DETECTOR}/distance": distance}),
        test_formats_ptyd.write(tmp_path / "s.ptyd", scan, **{"meta/distance": distance}),
        test_formats_nexus.write(
            tmp_path / "s.nxs", scan, changes=[("instrument_1/detector_1/distance", distance, {"units": "m"})]
        ),
    ]
    for path in paths:
        assert read_scan(path).distance == 2.0
