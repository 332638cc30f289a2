"""Rasters whose positions and patterns are stored in another order, and positions with a row for each axis."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan

PIXEL = 2e-8
XY = {"patterns": "data", "x": "x", "y": "y"}


def options(mapping, **values):
    return ReadOptions(mapping=mapping, **{"pixel_size": PIXEL} | values)


@pytest.fixture
def raster(scan, tmp_path):
    """A file of 4 x 5 patterns [rows, columns] in the order of the positions."""
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["data"] = np.rint(scan.diffraction.astype(np.float64) ** 2).reshape(4, 5, 16, 16)
        grid = scan.positions.reshape(4, 5, 2) * PIXEL
        file["y"], file["x"], file["p"] = grid[..., 0], grid[..., 1], grid
    return tmp_path / "s.h5"


@pytest.mark.parametrize("mapping", [XY, {"patterns": "data", "positions": "p"}])
def test_positions_of_a_raster_that_is_stored_the_other_way_round_are_refused(raster, explains, mapping):
    explains(read_scan(raster, options=options(mapping)), tolerance=5e-3)
    with h5py.File(raster, "a") as file:
        for name in ("x", "y", "p"):
            values = file[name][()].swapaxes(0, 1)
            del file[name]
            file[name] = values
    with pytest.raises(
        InputError, match=r"[xp] has shape \(5, 4\), expected \(4, 5\) like the raster of the"
    ):
        read_scan(raster, options=options(mapping))


def test_a_described_raster_has_the_shape_of_the_patterns(raster):
    described = {"raster_step": 8.0, "positions_unit": "px"}
    back = read_scan(raster, options=options({"patterns": "data"}, raster=(4, 5), **described))
    assert np.ptp(back.positions, axis=0).tolist() == [24, 32]
    with pytest.raises(InputError, match=r"--raster has shape \(5, 4\), expected \(4, 5\)"):
        read_scan(raster, options=options({"patterns": "data"}, raster=(5, 4), **described))


def test_an_array_with_a_row_for_each_axis_has_columns_too(raster, scan, explains):
    with h5py.File(raster, "a") as file:
        del file["p"]
        file["p"] = np.stack([scan.positions[:, 1], scan.positions[:, 0], np.zeros(20)]) * PIXEL
    with pytest.raises(InputError, match=r"--map x=p:0 and --map y=p:1"):
        read_scan(raster, options=options({"patterns": "data", "positions": "p"}))
    mapping = {"patterns": "data", "x": "p:0", "y": "p:1"}
    explains(read_scan(raster, options=options(mapping)), tolerance=5e-3)


@pytest.mark.parametrize(("last", "told"), [(20, False), (21, True)])
def test_a_gap_in_the_numbers_of_frames_is_named(raster, scan, last, told):
    numbers = np.delete(np.arange(1, 22), 7 if told else 20)
    rows = [f"{n},{c},{r}" for n, (r, c) in zip(numbers, scan.positions, strict=True)]
    (raster.parent / "p.csv").write_text("frame,x,y\n" + "\n".join(rows))
    log = []
    read_scan(raster, options=options({"patterns": "data", "positions": "p.csv"}), log=log.append)
    note = "positions: frame leaps from 7 to 9, and the file has 20 patterns: are those between lost too?"
    assert (note in log) is told
    assert numbers[-1] == last


@pytest.mark.parametrize("axis", [0, 1])
def test_samples_of_an_encoder_may_be_rows_or_columns(raster, scan, explains, axis):
    with h5py.File(raster, "a") as file:
        data = file["data"][()].reshape(20, 16, 16)
        for name in ("data", "x", "y"):
            del file[name]
        file["data"] = data
        for name, values in zip("yx", scan.positions.T * PIXEL, strict=True):
            file[name] = np.stack([values - PIXEL, values, values + PIXEL], axis)
    explains(read_scan(raster, options=options(XY, average_positions=True)), tolerance=5e-3)
