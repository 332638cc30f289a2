"""A detector that saturates below the largest number of its type is named wherever a scan is read."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.formats import ReadOptions, read_scan, write_scan
from ptychonnx.runtime.formats.conversion.saturation import saturation_note
from ptychonnx.runtime.formats.conversion.stored_frames import StoredFrames


def named(path, options=None) -> list[str]:
    lines: list[str] = []
    read_scan(path, options=options, log=lines.append)
    return [line for line in lines if line.startswith("saturation")]


def test_saturation_in_files_of_our_own_is_named(tmp_path, scan):
    write_scan(tmp_path / "good.npz", scan)
    assert named(tmp_path / "good.npz") == []
    for name, save in (("stored", np.savez), ("packed", np.savez_compressed)):
        save(
            tmp_path / f"{name}.npz",
            format="ptychonnx-scan-1",
            diffraction=np.minimum(scan.diffraction, 20.0),
            positions=scan.positions,
            probe=scan.probe,
        )
        (line,) = named(tmp_path / f"{name}.npz")
        assert "the same 400 counts" in line
        assert "the object will be wrong" in line


def foreign(tmp_path, scan, counts, padding=0):
    """An HDF5 file of counts, whose frames have some more rows and columns at their ends."""
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["frames"] = np.pad(counts, ((0, 0), (padding, padding), (padding, padding)))
        file["x"], file["y"] = scan.positions.T[::-1]
    return ReadOptions(
        mapping={"patterns": "frames", "x": "x", "y": "y"},
        positions_unit="px",
        quantity="counts",
        dc="centre",
        crop=scan.size,
    )


def test_saturation_in_foreign_counts_is_named_before_they_are_binned(tmp_path, scan):
    counts = np.rint(np.square(scan.diffraction)).astype(np.uint16)
    options = foreign(tmp_path, scan, np.minimum(counts, 400))
    assert "the same 400 counts" in named(tmp_path / "raw.h5", options)[0]
    assert len(named(tmp_path / "raw.h5", options.model_copy(update={"rebin": 2}))) == 1


def test_what_is_masked_or_cropped_does_not_count(tmp_path, scan):
    counts = np.rint(np.square(scan.diffraction)).astype(np.uint16)
    options = foreign(tmp_path, scan, counts, padding=4)
    assert named(tmp_path / "raw.h5", options) == []
    with h5py.File(tmp_path / "raw.h5", "r+") as file:
        for number, column in enumerate([1, 2] * 10):
            file["frames"][number, 0, column] = 60_000
    assert named(tmp_path / "raw.h5", options) == []
    assert len(named(tmp_path / "raw.h5", options.model_copy(update={"crop": None}))) == 1
    with h5py.File(tmp_path / "raw.h5", "r+") as file:
        mask = np.ones(file["frames"].shape[1:], np.uint8)
        mask[0] = 0
        file["good"] = mask
    masked = options.model_copy(update={"crop": None, "mapping": options.mapping | {"mask": "good"}})
    assert named(tmp_path / "raw.h5", masked) == []


@pytest.mark.parametrize(
    ("patterns", "pixels", "counts", "quantity", "expected"),
    [
        (5, 2, 256, "counts", True),
        (4, 2, 256, "counts", False),
        # A hot pixel, or the direct beam.
        (12, 1, 256, "counts", False),
        # By chance.
        (12, 4, 255, "counts", False),
        (12, 4, 16, "amplitude", True),
        (12, 4, 15, "amplitude", False),
    ],
)
def test_five_patterns_that_end_at_the_same_counts_in_several_pixels(
    patterns, pixels, counts, quantity, expected
):
    frames = np.zeros((12, 8, 8), np.float32)
    for number in range(patterns):
        frames[number, 3, number % pixels] = counts
    assert bool(saturation_note(StoredFrames(frames, None, "frames", quantity))) == expected
