"""Files of no known format, and what is detected and printed."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan

PIXEL = 2e-8


def options(mapping="patterns=entry/data positions=entry/pos", **values):
    return ReadOptions(mapping=dict(pair.split("=") for pair in mapping.split()), **values)


def write(path, scan, **changes):
    """An HDF5 file with counts, DC at the centre, positions (row, column) in pixels."""
    content = {"entry/data": scan.diffraction.astype(np.float64) ** 2, "entry/pos": scan.positions} | changes
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if value is not None:
                file[name] = value
    return path


def test_mapped_hdf5_agrees_with_the_object(scan, explains, tmp_path):
    lines = []
    back = read_scan(write(tmp_path / "s.h5", scan), options=options(), log=lines.append)
    explains(back)
    np.testing.assert_allclose(back.positions, scan.positions)
    assert lines == [
        "s.h5: as mapped",
        "unit: px (they span 36, too much for metres)",
        "axes: row,column (assumed)",
        "sign: as-is (assumed)",
        "quantity: counts (assumed)",
        "dc: centre (the mean pattern is centred at [8, 8])",
    ]


def test_the_corner_is_seen(scan, explains, tmp_path):
    lines = []
    corner = np.fft.ifftshift(scan.diffraction**2, axes=(1, 2))
    path = write(tmp_path / "s.h5", scan, **{"entry/data": corner})
    explains(read_scan(path, options=options(), log=lines.append))
    assert "dc: corner (the mean pattern is centred at [0, 0])" in lines


def test_metres_are_seen_and_need_a_pixel_size(scan, explains, tmp_path):
    path = write(tmp_path / "s.h5", scan, **{"entry/pos": scan.positions * PIXEL})
    with pytest.raises(InputError, match=r"s\.h5: entry/pos is in m and .* no pixel size.*--pixel-size"):
        read_scan(path, options=options())
    lines = []
    back = read_scan(path, options=options(pixel_size=PIXEL), log=lines.append)
    explains(back)
    assert back.pixel_size == PIXEL
    assert "unit: m (they span 7.2e-07, too little for pixels)" in lines


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1e-3), ("um", 1e-6), ("nm", 1e-9), ("m", 1)])
def test_units_of_the_file_or_given_are_taken(scan, explains, tmp_path, unit, scale):
    path = write(tmp_path / "s.h5", scan, **{"entry/pos": scan.positions * PIXEL / scale})
    explains(read_scan(path, options=options(pixel_size=PIXEL, positions_unit=unit)))
    with h5py.File(path, "a") as file:
        file["entry/pos"].attrs["units"] = unit
    explains(read_scan(path, options=options(pixel_size=PIXEL)))


@pytest.mark.parametrize(("unit", "scale"), [("micron", 1e-6), ("meters", 1), ("µm", 1e-6)])
def test_units_have_many_names(scan, explains, tmp_path, unit, scale):
    path = write(tmp_path / "s.h5", scan, **{"entry/pos": scan.positions * PIXEL / scale})
    with h5py.File(path, "a") as file:
        file["entry/pos"].attrs["units"] = unit
    explains(read_scan(path, options=options(pixel_size=PIXEL)))
    with h5py.File(path, "a") as file:
        file["entry/pos"].attrs["units"] = "steps"
    with pytest.raises(
        InputError, match=r"entry/pos: its units are 'steps', expected m, mm, .*--positions-unit"
    ):
        read_scan(path, options=options(pixel_size=PIXEL))
    known = {1e-6: "um", 1: "m"}[scale]
    explains(read_scan(path, options=options(pixel_size=PIXEL, positions_unit=known)))


@pytest.mark.parametrize("names", ["y [mm],x [mm]", "y (mm);x (mm)", "y/mm,x/mm", "y_mm,x_mm"])
def test_units_in_the_names_of_columns_are_taken(scan, explains, tmp_path, names):
    separator = ";" if ";" in names else ","
    lines = [separator.join(f"{value * PIXEL * 1e3!r}" for value in row) for row in scan.positions.tolist()]
    (tmp_path / "p.csv").write_text("\n".join([names, *lines]))
    np.savez(tmp_path / "s.npz", d=scan.diffraction.astype(np.float64) ** 2)
    mapping = "patterns=d positions=p.csv"
    back = read_scan(tmp_path / "s.npz", options=options(mapping, pixel_size=PIXEL))
    np.testing.assert_allclose(np.diff(back.positions, axis=0), np.diff(scan.positions, axis=0))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("head", ["y [µm],x [µm]", "y,x\nµm,µm", 'y,x,Höhe\n"(µm)","(µm)",'])
def test_tables_of_spreadsheets_are_read(scan, explains, tmp_path, encoding, head):
    rows = [[*row, 7.0] if "Höhe" in head else row for row in (scan.positions * PIXEL * 1e6).tolist()]
    table = "\r\n".join([*head.splitlines(), *(",".join(map(repr, row)) for row in rows)])
    (tmp_path / "p.csv").write_bytes(table.encode(encoding))
    np.savez(tmp_path / "s.npz", d=scan.diffraction.astype(np.float64) ** 2)
    back = read_scan(tmp_path / "s.npz", options=options("patterns=d positions=p.csv", pixel_size=PIXEL))
    np.testing.assert_allclose(np.diff(back.positions, axis=0), np.diff(scan.positions, axis=0), atol=1e-6)


@pytest.mark.parametrize("second", ["steps,steps", "um", ",", "y,x"])
def test_a_second_line_that_is_no_units_is_refused(scan, tmp_path, second):
    (tmp_path / "p.csv").write_text("\n".join(["y,x", second, "1,2"]))
    np.savez(tmp_path / "s.npz", d=scan.diffraction.astype(np.float64) ** 2)
    with pytest.raises(InputError, match="line 1 is no row of numbers"):
        read_scan(tmp_path / "s.npz", options=options("patterns=d positions=p.csv", pixel_size=PIXEL))


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
def test_fields_of_text_may_be_quoted(scan, tmp_path, separator):
    rows = [["y position_mm", "x position_mm"], *(scan.positions * PIXEL * 1e3).tolist()]
    lines = [separator.join(f'"{field}"' for field in row) for row in rows]
    (tmp_path / "p.csv").write_text("\n".join(lines))
    np.savez(tmp_path / "s.npz", d=scan.diffraction.astype(np.float64) ** 2)
    back = read_scan(tmp_path / "s.npz", options=options("patterns=d positions=p.csv", pixel_size=PIXEL))
    np.testing.assert_allclose(np.diff(back.positions, axis=0), np.diff(scan.positions, axis=0))


@pytest.mark.parametrize("line", ["\t1\t2", "1\t2\t", ",1,2", '"1,2', '"1""2",3'])
def test_a_line_with_an_empty_or_a_broken_field_is_refused(scan, tmp_path, line):
    (tmp_path / "p.csv").write_text("\n".join(["1,2" if "," in line else "1\t2", line]))
    np.savez(tmp_path / "s.npz", d=scan.diffraction.astype(np.float64) ** 2)
    with pytest.raises(InputError, match="line 2"):
        read_scan(tmp_path / "s.npz", options=options("patterns=d positions=p.csv", pixel_size=PIXEL))


def test_positions_that_are_all_the_same_are_named(scan, tmp_path):
    lines = []
    path = write(tmp_path / "s.h5", scan, **{"entry/pos": np.ones_like(scan.positions)})
    read_scan(path, options=options(), log=lines.append)
    assert f"positions: all {len(scan)} are the same: expected a scan" in lines


@pytest.mark.parametrize("axes", ["row,column", "column,row"])
@pytest.mark.parametrize(
    ("sign", "signs"),
    [("as-is", (1, 1)), ("flip-row", (-1, 1)), ("flip-column", (1, -1)), ("flip-both", (-1, -1))],
)
def test_every_axis_order_and_sign_can_be_said(scan, explains, tmp_path, axes, sign, signs):
    stored = scan.positions * signs
    if axes == "column,row":
        stored = stored[:, ::-1]
    path = write(tmp_path / "s.h5", scan, **{"entry/pos": stored})
    back = read_scan(path, options=options(positions_axes=axes, positions_sign=sign))
    explains(back)
    np.testing.assert_allclose(back.positions, scan.positions)


def test_x_and_y_apart_and_amplitudes(scan, explains, tmp_path):
    row, column = scan.positions.T
    path = write(tmp_path / "s.h5", scan, **{"entry/data": scan.diffraction, "x": column, "y": row})
    lines = []
    chosen = options("patterns=entry/data x=x y=y", quantity="amplitude")
    explains(read_scan(path, options=chosen, log=lines.append))
    assert "axes: column,row (x and y are mapped)" in lines
    assert "quantity: amplitude (given)" in lines


def test_positions_lie_in_other_files(scan, explains, tmp_path):
    path = write(tmp_path / "s.h5", scan)
    np.save(tmp_path / "p.npy", scan.positions)
    np.savetxt(tmp_path / "p.csv", scan.positions, delimiter=",", fmt="%.17g")
    np.savetxt(tmp_path / "p.txt", scan.positions.T, fmt="%.17g")
    np.savez(tmp_path / "p.npz", where=scan.positions)
    write(tmp_path / "other.h5", scan)
    for target in ("p.npy", "p.csv", "p.txt", "p.npz:where", "other.h5:entry/pos"):
        explains(read_scan(path, options=options(f"patterns=entry/data positions={target}")))


def test_npy_and_npz_with_probe_and_mask(scan, probe, explains, tmp_path):
    counts = np.rint(scan.diffraction.astype(np.float64) ** 2).astype(np.uint32)
    counts[:, 2, 3] = 2**32 - 1
    np.save(tmp_path / "s.npy", counts)
    np.savez(tmp_path / "o.npz", p=scan.positions, probe=probe * 3, bad=~scan.mask, pixel=PIXEL)
    mapping = "positions=o.npz:p probe=o.npz:probe bad=o.npz:bad pixel_size=o.npz:pixel"
    back = read_scan(tmp_path / "s.npy", options=options(mapping))
    explains(back, tolerance=5e-3)  # half a photon
    assert np.argwhere(~back.mask).tolist() == [[2, 3]]
    assert back.pixel_size == PIXEL
    assert np.sum(np.abs(back.probe) ** 2) == pytest.approx(back.flux, rel=1e-5)


def test_a_raster_is_flattened(scan, explains, tmp_path):
    counts = scan.diffraction.reshape(4, 5, 16, 16) ** 2
    path = write(
        tmp_path / "s.h5", scan, **{"entry/data": counts, "entry/pos": scan.positions.reshape(4, 5, 2)}
    )
    explains(read_scan(path, options=options()))


def test_the_measured_star_is_read_by_mapping_as_by_its_own_reader(measured):
    path = measured / "siemens-star-small.npz.bz2"
    own, lines = read_scan(path), []
    mapped = read_scan(path, options=options("patterns=data positions=scan"), log=lines.append)
    np.testing.assert_array_equal(mapped.diffraction, own.diffraction)
    np.testing.assert_allclose(np.diff(mapped.positions, axis=0), np.diff(own.positions, axis=0))
    assert any(line.startswith("dc: corner (the mean pattern") for line in lines)


def test_pickles_are_not_loaded(scan, tmp_path):
    np.save(tmp_path / "s.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"s\.npy: no array of numbers"):
        read_scan(tmp_path / "s.npy", options=options("positions=s.npy"))


@pytest.mark.parametrize(
    ("mapping", "changes", "message"),
    [
        ("patterns=entry/data", {}, "patterns mapped, expected patterns, and positions or x and y"),
        ("data=entry/data", {}, "cannot map data, expected some of patterns"),
        ("patterns=data positions=entry/pos", {}, "no dataset data, expected patterns .*the file has entry"),
        ("patterns=entry/pos positions=entry/pos", {}, r"entry/pos has shape \(20, 2\), expected \[n, rows"),
        ("patterns=entry/data positions=entry/data", {}, r"entry/data has shape .*expected \(20, 2\)"),
        ("patterns=entry/data x=entry/pos y=y", {"y": np.zeros(20)}, r"x has shape \(40,\) and y \(20,\)"),
        (None, {"entry/pos": np.full((20, 2), np.nan)}, r"positions\[0\] is NaN"),
        (None, {"entry/pos": np.full((20, 2), 1j)}, "complex128, expected positions"),
        (None, {"entry/data": np.full((20, 16, 16), 1j)}, "complex128, expected photon counts"),
        (None, {"entry/data": np.ones((20, 16, 15))}, "expected square"),
        (
            None,
            {"entry/data": np.full((20, 16, 16), np.nan)},
            r"data\[0\] holds no valid photons, 256 of its pixels are negative, NaN",
        ),
        ("patterns=entry/data positions=entry/pos probe=p", {"p": np.ones((16, 16))}, "expected complex"),
        (
            "patterns=entry/data positions=entry/pos mask=m",
            {"m": np.ones((8, 8))},
            r"mask has shape \(8, 8\)",
        ),
    ],
)
def test_broken_content_is_refused(scan, tmp_path, mapping, changes, message):
    path = write(tmp_path / "broken.h5", scan, **changes)
    with pytest.raises(InputError, match=message) as error:
        np.asarray(read_scan(path, options=options(mapping) if mapping else options()).diffraction)
    assert "broken.h5" in str(error.value)


def test_frames_of_matlab_are_named(scan, tmp_path):
    with h5py.File(tmp_path / "s.mat", "w") as file:
        file["fmag"] = (scan.diffraction**2).swapaxes(1, 2)
        file["fmag"].attrs["MATLAB_class"] = np.bytes_("double")
        file["positions"] = scan.positions.T
    lines = []
    mapping = {"patterns": "fmag", "positions": "positions"}
    options = ReadOptions(mapping=mapping, positions_unit="px", orientation="transpose")
    back = read_scan(tmp_path / "s.mat", options=options, log=lines.append)
    np.testing.assert_allclose(back.diffraction, scan.diffraction, rtol=1e-6)
    assert any("columns exchanged (--orientation transpose)?" in line for line in lines)


def test_a_mask_that_is_no_number_is_refused(scan, tmp_path):
    path = write(tmp_path / "s.h5", scan, mask=np.full((16, 16), np.nan))
    with pytest.raises(InputError, match="mask holds NaN or infinity"):
        read_scan(path, options=options("patterns=entry/data positions=entry/pos mask=mask"))
