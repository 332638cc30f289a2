"""Scans in several files: a file for each line or frame, as HDF5 or TIFF."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan

PIXEL = 2e-8
LINES = {key: f"line_*.nxs:entry/{key}" for key in ("patterns", "x", "y")}


def counts(scan):
    return np.rint(scan.diffraction.astype(np.float64) ** 2).astype(np.uint32)


def options(mapping, **values):
    return ReadOptions(mapping=mapping, pixel_size=PIXEL, **values)


@pytest.fixture
def lines(scan, tmp_path):
    """Five files of a line each, from 8 to 12, so that names are not in the order of their numbers."""
    paths = []
    for index in range(5):
        part = slice(4 * index, 4 * index + 4)
        with h5py.File(tmp_path / f"line_{index + 8}.nxs", "w") as file:
            # A raster of one line, with room around the frames.
            file["entry/patterns"] = np.pad(counts(scan)[part], ((0, 0), (2, 2), (3, 3)))[None]
            for key, values in zip("yx", scan.positions[part].T, strict=True):
                file[f"entry/{key}"] = values[None] * PIXEL * 1e6
                file[f"entry/{key}"].attrs["units"] = "um"
        paths.append(tmp_path / f"line_{index + 8}.nxs")
    return paths


def test_a_file_for_each_line_is_one_scan(scan, explains, lines):
    log = []
    explains(read_scan(lines[0], options=options(LINES, crop=16), log=log.append), tolerance=5e-3)
    assert "patterns: 5 files, from line_8.nxs:entry/patterns to line_12.nxs:entry/patterns" in log
    assert "unit: um (from the units of the file)" in log


def test_lines_in_other_units_or_of_other_frames_are_refused(scan, lines):
    with h5py.File(lines[2], "a") as file:
        file["entry/x"].attrs["units"] = "mm"
    with pytest.raises(
        InputError, match=r"line_10\.nxs:entry/x has .* units \['mm'\], expected x \[n\] like"
    ):
        read_scan(lines[0], options=options(LINES, crop=16))
    with h5py.File(lines[1], "a") as file:
        del file["entry/patterns"]
        file["entry/patterns"] = np.ones((1, 4, 8, 8))
    with pytest.raises(InputError, match=r"line_9\.nxs:entry/patterns has shape \(1, 4, 8, 8\)"):
        read_scan(lines[0], options=options(LINES, crop=16))


def test_a_line_that_was_never_written_is_left_out(scan, lines):
    with h5py.File(lines[3], "a") as file:
        del file["entry/patterns"]
        file.create_dataset("entry/patterns", (1, 4, 20, 22), "u4", chunks=(1, 1, 20, 22))
    log = []
    back = read_scan(lines[0], options=options(LINES, crop=16), log=log.append)
    assert len(back) == 16
    assert "patterns: 4 of 20 left out, never written (numbers 12, 13, 14, 15)" in log


def test_frames_are_read_from_tiff(scan, explains, tmp_path):
    np.savetxt(tmp_path / "p.txt", scan.positions * PIXEL)
    tifffile.imwrite(tmp_path / "stack.tif", counts(scan))
    for index, frame in enumerate(counts(scan), 1):
        tifffile.imwrite(tmp_path / f"frame_{index}.tif", frame)
    for name in ("stack.tif", "frame_*.tif"):
        mapping = {"patterns": name, "positions": "p.txt"}
        explains(read_scan(tmp_path / "stack.tif", options=options(mapping)), tolerance=5e-3)
    (tmp_path / "frame_7.tif").write_bytes((tmp_path / "frame_7.tif").read_bytes()[:300])
    with pytest.raises(InputError, match=r"frame_7\.tif: damaged or unreadable"):
        read_scan(tmp_path / "stack.tif", options=options(mapping))
    tifffile.imwrite(tmp_path / "frame_7.tif", np.ones((16, 16, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match=r"frame_7\.tif: images of the axes YXS .*, expected grey images"):
        read_scan(tmp_path / "stack.tif", options=options(mapping))


def test_a_virtual_dataset_of_any_number_of_files_is_named(scan, explains, tmp_path):
    for index, frame in enumerate(counts(scan)):
        with h5py.File(tmp_path / f"f_{index}.h5", "w") as file:
            file["data"] = frame[None]
    endless = (h5py.h5s.UNLIMITED, 16, 16)
    with h5py.File(tmp_path / "s.h5", "w", libver="latest") as file:
        file["y"], file["x"] = scan.positions.T * PIXEL
        layout, space = (
            h5py.h5p.create(h5py.h5p.DATASET_CREATE),
            h5py.h5s.create_simple((20, 16, 16), endless),
        )
        space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), stride=(1, 1, 1), block=(1, 16, 16))
        layout.set_virtual(space, b"f_%b.h5", b"data", h5py.h5s.create_simple((1, 16, 16)))
        stored = h5py.h5s.create_simple((0, 16, 16), endless)
        h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT32, stored, layout)
    mapping = {"patterns": "data", "x": "x", "y": "y"}
    with pytest.raises(InputError, match=r"of any number of files, f_%b\.h5, .*--map patterns=f_\*\.h5:data"):
        read_scan(tmp_path / "s.h5", options=options(mapping))
    explains(
        read_scan(tmp_path / "s.h5", options=options(mapping | {"patterns": "f_*.h5:data"})), tolerance=5e-3
    )


@pytest.mark.parametrize("virtual", [False, True])
def test_more_files_than_the_usual_limit_are_open_at_once(tmp_path, virtual):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowered = len(list(Path("/dev/fd").iterdir())) + 20
    layout = h5py.VirtualLayout((40, 8, 8), np.uint32)
    for index in range(40):
        with h5py.File(tmp_path / f"line_{index}.h5", "w") as file:
            file["data"] = np.full((1, 8, 8), 100 + index, np.uint32)
        layout[index] = h5py.VirtualSource(f"line_{index}.h5", "data", (1, 8, 8))[0]
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
        file["positions"] = np.random.default_rng(0).uniform(0, 20, (40, 2))
    mapping = {"patterns": "data" if virtual else "line_*.h5:data", "positions": "positions"}
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowered, hard))
    try:
        back = read_scan(tmp_path / "scan.h5", options=ReadOptions(mapping=mapping, positions_unit="px"))
        np.testing.assert_allclose(back.diffraction[:, 0, 0], np.sqrt(100 + np.arange(40)), rtol=1e-6)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
