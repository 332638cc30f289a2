"""Variations that facilities write: each gives the same scan, is named, or is refused with what helps."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan, write_scan
from ptychonnx.runtime.formats.readers.probe import read_probe
from tests.runtime import test_formats_cxi, test_formats_mapped, test_formats_nexus, test_formats_ptyd
from tests.runtime.test_formats_cxi import TRANSLATION

ROTATION = {"vector": [0, 0, 1.0], "transformation_type": "Rotation", "units": "deg"}
X = {"vector": [1.0, 0, 0], "units": "um"}


def read(path, **options):
    lines = []
    return read_scan(path, options=ReadOptions(**options), log=lines.append), lines


def nexus(path, scan, changes=None, attributes=None, **more):
    test_formats_nexus.write(path, scan, changes=changes, **more)
    with h5py.File(path, "a") as file:
        for name, values in (attributes or {}).items():
            file[f"entry_1/{name}"].attrs.update(values)
    return path


@pytest.mark.parametrize("part", ["modules", "turns"])
@pytest.mark.parametrize("short", [0, 1])
@pytest.mark.parametrize("kind", ["not written", "slice", "all"])
def test_sources_that_hold_a_part_of_each_frame_or_every_other_frame(scan, tmp_path, part, short, kind):
    counts = np.rint(scan.diffraction**2).astype(np.uint32)
    places = [np.s_[:, :8], np.s_[:, 8:]] if part == "modules" else [np.s_[::2], np.s_[1::2]]
    layout = h5py.VirtualLayout(counts.shape, counts.dtype)
    for number, place in enumerate(places):
        values = counts[place]
        written = len(values) - 3 * (number == short)
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            shape = values.shape if kind == "not written" else (written, *values.shape[1:])
            file.create_dataset("d", shape, values.dtype, chunks=(1, *values.shape[1:]))[:written] = values[
                :written
            ]
        source = h5py.VirtualSource(f"{number}.h5", "d", values.shape)
        # A slice of all is stored as a selection, which HDF5 does not compare with the source.
        layout[place] = source[: len(values)] if kind == "slice" else source
    path = test_formats_cxi.write(tmp_path / "s.cxi", scan)
    with h5py.File(path, "a") as file:
        del file["entry_1/instrument_1/detector_1/data"]
        file["entry_1/instrument_1/detector_1"].create_virtual_dataset("data", layout, fillvalue=0)
    lost = [17, 18, 19] if part == "modules" else [14 + short, 16 + short, 18 + short]
    if kind != "not written":
        with pytest.raises(
            InputError, match=r"source .\.h5:d has shape .*, which is too small, .*: was the scan ended early"
        ):
            read(path)
        return
    back, lines = read(path)
    assert f"patterns: 3 of 20 left out, never written (numbers {', '.join(map(str, lost))})" in lines
    np.testing.assert_allclose(np.asarray(back.diffraction) ** 2, np.delete(counts, lost, axis=0), rtol=1e-5)


@pytest.mark.parametrize("text", ["NXptycho ", "NXptycho\n", "\ufeffNXptycho"])
def test_padded_definitions_are_known(scan, explains, tmp_path, text):
    explains(read_scan(nexus(tmp_path / "s.nxs", scan, definition=text)))


def test_the_area_detector_is_found_among_others(scan, explains, tmp_path):
    changes = [
        ("instrument_1/a_diode/data", np.arange(20), {}),
        ("instrument_1/b_fluorescence/data", np.ones((20, 4, 128)), {}),
    ]
    classes = {"instrument_1/a_diode": {"NX_class": "NXdetector"}}
    classes["instrument_1/b_fluorescence"] = {"NX_class": "NXdetector"}
    back, lines = read(nexus(tmp_path / "s.nxs", scan, changes, classes))
    explains(back)
    assert "detector: detector_1 of b_fluorescence, detector_1, by the size of its frames" in lines


@pytest.mark.parametrize("shape", [(3,), (1, 3)])
def test_the_place_of_a_detector_is_no_position(scan, explains, tmp_path, shape):
    changes = [("instrument_1/detector_1/translation", np.zeros(shape), {})]
    explains(read_scan(nexus(tmp_path / "s.nxs", scan, changes)))


def test_a_sample_that_turns_during_the_scan_is_refused(scan, tmp_path):
    turning = ("sample_1/transformations/r", np.linspace(0, 90, 20), ROTATION)
    with pytest.raises(InputError, match=r"/r turns the sample by 90 degrees between patterns"):
        read_scan(nexus(tmp_path / "s.nxs", scan, [turning]))


def test_a_motor_that_is_there_twice_counts_once_or_is_refused(scan, explains, tmp_path):
    again = ("sample_1/transformations/sx_set", np.arange(20.0), X)
    with pytest.raises(
        InputError, match=r"sx and .*sx_set move the sample along the same line, .*depends_on"
    ):
        read_scan(nexus(tmp_path / "s.nxs", scan, [again]))
    start = ("sample_1/depends_on", "transformations/sx", {})
    chain = {
        "sample_1/transformations/sx": {"depends_on": "sy"},
        "sample_1/transformations/sy": {"depends_on": "."},
    }
    explains(read_scan(nexus(tmp_path / "t.nxs", scan, [again, start], chain)))


def test_a_coarse_motor_that_stands_still_counts_nothing(scan, explains, tmp_path):
    coarse = ("sample_1/transformations/coarse", np.full(20, 7.0), X)
    explains(read_scan(nexus(tmp_path / "s.nxs", scan, [coarse])))


def test_extra_positions_are_dropped_or_averaged_in_every_format(scan, tmp_path):
    path = test_formats_cxi.write(tmp_path / "s.cxi", scan)
    with h5py.File(path) as file:
        stored = file[TRANSLATION][()]
    known = read_scan(path).positions
    for values, option in ((np.r_[stored, stored[:1]], "ignore"), (np.repeat(stored, 2, axis=0), "average")):
        path = test_formats_cxi.write(tmp_path / f"{option}.cxi", scan, **{TRANSLATION: values})
        with pytest.raises(InputError, match=rf"expected \(20, 2\), one for each pattern: --{option}"):
            read_scan(path)
        name = {"ignore": "ignore_extra_positions", "average": "average_positions"}[option]
        back, lines = read(path, **{name: True})
        np.testing.assert_allclose(back.positions, known)
        assert any(line.startswith("positions:") and line.endswith("(given)") for line in lines)


def test_a_position_that_is_repeated_is_named(scan, tmp_path):
    positions = scan.positions.repeat(2, axis=0) + np.tile([[0.0, 0], [1, 1]], (20, 1))
    positions[[4, 9, 30]] = 0
    many = replace(
        scan,
        labels=None,
        diffraction=scan.diffraction.repeat(2, axis=0),
        positions=positions + 8,
        reference=None,
    )
    write_scan(tmp_path / "s.npz", many)
    _, lines = read(tmp_path / "s.npz")
    assert "positions: 3 patterns have the same one (numbers 4, 9, ...): were all of them recorded?" in lines


def test_an_inverted_mask_of_our_own_is_named(scan, tmp_path):
    write_scan(tmp_path / "s.npz", replace(scan, mask=~scan.mask | (np.arange(16) == 8)))
    assert "mask: 239 of 256 pixels are bad: does it mark the good ones?" in read(tmp_path / "s.npz")[1]


def test_a_chunk_of_ptypy_that_is_missing_is_named(scan, tmp_path):
    path = test_formats_ptyd.write(tmp_path / "s.ptyd", scan)
    with h5py.File(path, "a") as file:
        del file["chunks/1"]
    assert "patterns: 1 of 3 chunks are missing (first chunks/1)" in read(path)[1]


@pytest.mark.parametrize("comment", ["%", "//", "# ", "% "])
def test_comments_of_other_languages_name_columns(scan, explains, tmp_path, comment):
    rows = "\n".join(f"{column} {row}" for row, column in scan.positions)
    (tmp_path / "p.TXT").write_text(f"{comment}x y\n{rows}\n")
    mapping = {"patterns": "entry/data", "positions": "p.TXT"}
    explains(read(test_formats_mapped.write(tmp_path / "s.h5", scan), mapping=mapping)[0])


@pytest.mark.parametrize("names", ["horizontal,vertical", "hor_px,ver_px", "h,v", "fast,slow"])
def test_names_of_columns_tell_their_order(scan, explains, tmp_path, names):
    rows = "\n".join(f"{column},{row}" for row, column in scan.positions)
    (tmp_path / "p.csv").write_text(f"{names}\n{rows}\n")
    mapping = {"patterns": "entry/data", "positions": "p.csv"}
    explains(read(test_formats_mapped.write(tmp_path / "s.h5", scan), mapping=mapping)[0])


def test_names_that_are_not_one_for_each_column_are_refused(scan, tmp_path):
    rows = "\n".join(f"{row} {column}" for row, column in scan.positions)
    (tmp_path / "p.txt").write_text(f"y x [um]\n{rows}\n")
    mapping = {"patterns": "entry/data", "positions": "p.txt"}
    with pytest.raises(InputError, match=r"line 1 has 3 names .*expected 2, one for each column"):
        read(test_formats_mapped.write(tmp_path / "s.h5", scan), mapping=mapping)


def test_a_filter_that_is_not_installed_is_named(scan, tmp_path):
    path = test_formats_cxi.write(tmp_path / "s.cxi", scan)
    with h5py.File(path, "a") as file:
        counts = file["entry_1/data_1/data"][()]
        del file["entry_1/instrument_1/detector_1/data"]
        file.create_dataset(
            "entry_1/instrument_1/detector_1/data", data=counts, chunks=(1, 16, 16), compression="gzip"
        )
    content = path.read_bytes()
    place = content.index(b"deflate") - 8
    path.write_bytes(content[:place] + (31999).to_bytes(2, "little") + content[place + 2 :])
    with pytest.raises(InputError, match=r"data is compressed with the HDF5 filter 31999 .*not installed"):
        read_scan(path)


def test_a_file_of_matlab_begins_with_a_text(tmp_path):
    path = tmp_path / "s.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["something"] = 1
    with pytest.raises(InputError, match="an HDF5 file of something, expected one of"):
        read_scan(path)


def test_names_that_are_no_text_do_not_disturb(scan, explains, tmp_path):
    path = test_formats_mapped.write(tmp_path / "s.h5", scan)
    with h5py.File(path, "a") as file:
        for group in (file, file["entry"]):
            h5py.h5g.create(group.id, b"\xff\xfe")
    with pytest.raises(InputError, match="an HDF5 file of entry, expected one of"):
        read_scan(path)
    explains(read(path, mapping={"patterns": "entry/da*", "positions": "entry/pos"})[0])


def test_two_parts_or_two_storages_are_no_modes(probe, tmp_path):
    np.savez(tmp_path / "p.npz", probe=np.stack([probe[0].real, probe[0].imag]))
    with pytest.raises(InputError, match=r"real numbers \[2, N, N\]: real and imaginary part"):
        read_probe(tmp_path / "p.npz")
    with h5py.File(tmp_path / "p.ptyr", "w") as file:
        file["content/probe/S0/data"] = file["content/probe/S1/data"] = probe
    with pytest.raises(InputError, match=r"has 2 probes \(S0, S1\), expected one"):
        read_probe(tmp_path / "p.ptyr")


def test_a_raster_that_is_not_used_is_named(scan, tmp_path):
    path = test_formats_cxi.write(tmp_path / "s.cxi", scan)
    assert "raster: left out, since the file has positions" in read(path, raster=(4, 5), raster_step=1e-7)[1]
