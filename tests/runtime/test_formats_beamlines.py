"""Files as the software of beamlines writes them: area detectors, motors, tables, scans that ended early."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward

PIXEL = 2e-8
DATA = "entry/data/data"
XY = {"patterns": DATA, "x": "x", "y": "y"}


def counts(scan):
    return np.rint(scan.diffraction.astype(np.float64) ** 2).astype(np.uint32)


def write(path, patterns, metres, **content):
    """Patterns in chunks of one, and x and y in metres."""
    with h5py.File(path, "w") as file:
        file.create_dataset(DATA, data=patterns, chunks=(1, *patterns.shape[1:]))
        file["y"], file["x"] = metres.T
        for name, value in content.items():
            file[name.replace("__", "/")] = value
    return path


def options(mapping=XY, **values):
    return ReadOptions(mapping=mapping, **{"pixel_size": PIXEL} | values)


# EPICS' area detectors

NUMBERS = "entry__instrument__NDAttributes__NDArrayUniqueId"


@pytest.mark.parametrize("extra", [0, 3])
def test_frames_that_a_detector_lost_cost_no_other_frame_its_position(scan, tmp_path, extra):
    kept = np.delete(np.arange(20), [7, 13])
    metres = np.concatenate([scan.positions, scan.positions[:extra]]) * PIXEL
    path = write(tmp_path / "s.h5", counts(scan)[kept], metres, **{NUMBERS: kept.astype(np.int32) + 5})
    # The master file of Bluesky leads to that of the detector.
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["images"] = h5py.ExternalLink("s.h5", DATA)
    linked = {"patterns": "images", "x": "s.h5:x", "y": "s.h5:y"}
    for where, mapping in ((path, XY), (tmp_path / "master.h5", linked)):
        lines = []
        back = read_scan(where, options=options(mapping, ignore_extra_positions=extra > 0), log=lines.append)
        np.testing.assert_allclose(np.diff(back.positions, axis=0), np.diff(scan.positions[kept], axis=0))
        assert "positions: paired by NDArrayUniqueId, 2 frames are lost (first number 7)" in lines


def test_frames_in_another_order_are_paired_by_their_numbers(scan, explains, tmp_path):
    order = np.random.default_rng(1).permutation(20)
    path = write(tmp_path / "s.h5", counts(scan)[order], scan.positions * PIXEL, **{NUMBERS: order})
    back = read_scan(path, options=options())
    np.testing.assert_allclose(np.diff(back.positions, axis=0), np.diff(scan.positions[order], axis=0))
    path = write(tmp_path / "t.h5", counts(scan), scan.positions * PIXEL, **{NUMBERS: np.zeros(20, int)})
    explains(read_scan(path, options=options()), tolerance=5e-3)


def test_dark_frames_at_the_start_are_left_out_by_a_slice(scan, explains, tmp_path):
    dark = np.random.default_rng(0).poisson(0.02, (3, 16, 16)).astype(np.uint32)
    path = write(tmp_path / "s.h5", np.concatenate([dark, counts(scan)]), scan.positions * PIXEL)
    with pytest.raises(InputError, match=r"shape \(20, 2\), expected \(23, 2\)"):
        read_scan(path, options=options())
    lines = []
    back = read_scan(path, options=options(XY | {"patterns": f"{DATA}[3:]"}), log=lines.append)
    explains(back, tolerance=5e-3)
    assert "patterns: 20 of 23 (given)" in lines
    with pytest.raises(InputError, match="the scan is empty"):
        read_scan(path, options=options(XY | {"patterns": f"{DATA}[23:]"}))


# Scans that ended early, in files of the planned size


@pytest.mark.parametrize("chunk", [1, 8])
@pytest.mark.parametrize("rest", ["none", "nan"])
def test_planned_frames_that_were_never_measured_are_left_out(scan, explains, tmp_path, chunk, rest):
    metres = scan.positions * PIXEL
    with h5py.File(tmp_path / "s.h5", "w") as file:
        data = file.create_dataset(DATA, (30, 16, 16), "u4", chunks=(chunk, 16, 16))
        data[:20] = counts(scan)
        blank = np.full((10 if rest == "nan" else 0, 2), np.nan)
        file["y"], file["x"] = np.concatenate([metres, blank]).T
    lines = []
    explains(read_scan(tmp_path / "s.h5", options=options(), log=lines.append), tolerance=5e-3)
    assert any(line.startswith("patterns: ") and "left out" in line for line in lines)
    assert any(line.startswith("unit: m (they span 7.2e-07") for line in lines)


def test_measured_frames_without_a_position_are_not_left_out(scan, tmp_path):
    path = write(tmp_path / "s.h5", counts(scan), scan.positions[:18] * PIXEL)
    with pytest.raises(InputError, match=r"shape \(18, 2\), expected \(20, 2\)"):
        read_scan(path, options=options())


def test_a_file_that_a_program_still_writes_is_named_as_such(scan, tmp_path):
    with h5py.File(tmp_path / "s.h5", "w", libver="latest") as file:
        file[DATA] = counts(scan)
        file.swmr_mode = True
        file.flush()
        shutil.copy(tmp_path / "s.h5", tmp_path / "crashed.h5")
    with pytest.raises(
        InputError, match=r"crashed\.h5: open for writing, expected a finished scan: .*h5clear"
    ):
        read_scan(tmp_path / "crashed.h5", options=options())


# Positions


@pytest.mark.parametrize("lines_of", ["y", "x"])
def test_a_raster_may_have_one_value_for_each_line_and_each_point(truth, probe, tmp_path, lines_of):
    axes = {"y": 8 + 6.0 * np.arange(4), "x": 8 + 7.0 * np.arange(5)}
    grid = np.stack(np.meshgrid(axes["y"], axes["x"], indexing="ij"), axis=-1)
    patches = cut_windows(truth, grid.reshape(-1, 2), 16)
    patterns = (forward(patches, probe) ** 2).reshape(4, 5, 16, 16)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file[DATA] = patterns if lines_of == "y" else patterns.swapaxes(0, 1)
        file["y"], file["x"] = axes["y"], axes["x"]
    back = read_scan(tmp_path / "s.h5", options=options())
    error = np.abs(forward(cut_windows(truth, back.positions, 16), probe) - back.diffraction[:]).max()
    assert error < 1e-3 * np.sqrt(patterns.max())


ORCHESTRA = "DataPoint Target_x Average_x_st_fzp Stdev_x_st_fzp Target_y Average_y_st_fzp Stdev_y_st_fzp"


def test_columns_of_tables_are_chosen_by_name(scan, explains, tmp_path):
    row, column = -scan.positions.T * PIXEL * 1e6
    noise = np.full(20, 0.01)
    table = np.column_stack([np.arange(20), column + 9, column, noise, row + 9, row, noise])
    lines = [" ".join(f"{value:.9g}" for value in line) for line in table]
    (tmp_path / "scan_00250.dat").write_text("\n".join(["Scan 250, Mon Nov 30", ORCHESTRA, *lines]))
    path = write(tmp_path / "s.h5", counts(scan), scan.positions)
    chosen = options({"patterns": DATA, "positions": "scan_00250.dat"}, positions_sign="flip-both")
    with pytest.raises(
        InputError, match=r"expected one named x and one named y: --map x=scan_00250\.dat:NAME"
    ):
        read_scan(path, options=chosen)
    names = {axis: f"scan_00250.dat:Average_{axis}_st_fzp" for axis in "xy"}
    named = chosen.model_copy(update={"mapping": {"patterns": DATA} | names, "positions_unit": "um"})
    explains(read_scan(path, options=named), tolerance=5e-3)
    with pytest.raises(
        InputError, match=r"scan_00250\.dat has no column 'nope', expected x .*Average_x_st_fzp"
    ):
        read_scan(path, options=options({"patterns": DATA} | names | {"x": "scan_00250.dat:nope"}))


def test_spec_names_columns_with_two_spaces_between_them(scan, explains, tmp_path):
    lines = [
        f"{column:.12g} {row:.12g} {index} 7" for index, (row, column) in enumerate(scan.positions * PIXEL)
    ]
    head = [
        "#S 12 dmesh samx 0 1 4 samy 0 1 3 0.1",
        "#N 4",
        "#L samx  samy  Epoch  eiger cnt",
        "#C a comment",
    ]
    (tmp_path / "spec.dat").write_text("\n".join([*head, *lines]))
    path = write(tmp_path / "s.h5", counts(scan), scan.positions)
    mapping = {"patterns": DATA, "x": "spec.dat:samx", "y": "spec.dat:samy"}
    explains(read_scan(path, options=options(mapping)), tolerance=5e-3)


@pytest.mark.parametrize("head", ["x,3\ny,4", "a\nb\nx,y"])
def test_damaged_rows_are_no_title(scan, tmp_path, head):
    (tmp_path / "p.csv").write_text(f"{head}\n" + "\n".join(f"{r},{c}" for r, c in scan.positions))
    path = write(tmp_path / "s.h5", counts(scan), scan.positions)
    with pytest.raises(InputError, match=r"p\.csv: line [123] is no row of numbers"):
        read_scan(path, options=options({"patterns": DATA, "positions": "p.csv"}))


@pytest.mark.parametrize("units", ["um", ["um", "um", "s"]])
@pytest.mark.parametrize("attribute", ["units", "unit"])
def test_columns_of_an_array_keep_its_units(scan, explains, tmp_path, units, attribute):
    # So wide that, without their unit, they would be pixels.
    pixel, metres = 100 * PIXEL, 100 * scan.positions * PIXEL
    moved = np.column_stack([metres[:, 1], metres[:, 0], np.arange(20)])
    path = write(tmp_path / "s.h5", counts(scan), metres, p=moved * 1e6)
    with h5py.File(path, "a") as file:
        file["p"].attrs[attribute] = units
    with pytest.raises(
        InputError, match=r"p has shape \(20, 3\), expected \(n, 2\): --map x=p:0 and --map y=p:1"
    ):
        read_scan(path, options=options({"patterns": DATA, "positions": "p"}))
    mapping = {"patterns": DATA, "x": "p:0", "y": "p:1"}
    explains(read_scan(path, options=options(mapping, pixel_size=pixel)), tolerance=5e-3)
    with pytest.raises(InputError, match=r"p has no column '3', expected x \[n\] among its columns"):
        read_scan(path, options=options(mapping | {"x": "p:3"}))


def test_fields_of_a_structured_array_are_columns(scan, explains, tmp_path):
    fields = np.zeros(20, dtype=[("x", "f8"), ("y", "f8"), ("time", "f8")])
    fields["y"], fields["x"] = scan.positions.T * PIXEL
    path = write(tmp_path / "s.h5", counts(scan), scan.positions, p=fields)
    mapping = {"patterns": DATA, "x": "p:x", "y": "p:y"}
    explains(read_scan(path, options=options(mapping)), tolerance=5e-3)


# Virtual datasets


def test_a_virtual_dataset_may_have_a_source_for_each_frame(scan, explains, tmp_path, monkeypatch):
    opened = []
    real = h5py.File

    class Counted(real):
        def __init__(self, *arguments, **values):
            opened.append(arguments)
            super().__init__(*arguments, **values)

    with real(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("d", data=counts(scan)[::-1], chunks=(1, 16, 16))
    layout = h5py.VirtualLayout((20, 16, 16), "u4")
    for index in range(20):
        layout[index] = h5py.VirtualSource("raw.h5", "d", (20, 16, 16))[19 - index]
    with real(tmp_path / "s.h5", "w") as file:
        file.create_virtual_dataset("d", layout)
        file["y"], file["x"] = scan.positions.T * PIXEL
    monkeypatch.setattr(h5py, "File", Counted)
    back = read_scan(tmp_path / "s.h5", options=options(XY | {"patterns": "d"}))
    explains(back, tolerance=5e-3)
    # Once for each look at the dataset, not for each frame.
    assert len(opened) < 20


@pytest.mark.parametrize("shape", [(), (20,), (20, 2, 1)])
@pytest.mark.parametrize("lost", [[], [7]])
def test_positions_of_another_shape_are_refused(scan, tmp_path, shape, lost):
    kept = np.delete(np.arange(20), lost)
    path = write(
        tmp_path / "s.h5", counts(scan)[kept], scan.positions, **{NUMBERS: kept, "p": np.ones(shape)}
    )
    with pytest.raises(InputError, match="p has shape"):
        read_scan(path, options=options({"patterns": DATA, "positions": "p"}))
