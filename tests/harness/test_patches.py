"""Predicted patches are written with their positions, so that others can stitch them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.reconstruction.stitching import Stitcher, patch_weight


@pytest.fixture
def scan_file(lines_scan, tmp_path):
    write_scan(tmp_path / "scan.npz", lines_scan)
    return tmp_path / "scan.npz"


def test_the_patches_stitched_elsewhere_are_the_object(four_artifacts, lines_scan, scan_file, tmp_path, run):
    out, patches = tmp_path / "object.h5", tmp_path / "patches.h5"
    code, _, _ = run(
        *("reconstruct", four_artifacts[2], scan_file, "--out", out, "--patches", patches, "--batch", 7)
    )
    assert code == 0
    with h5py.File(patches) as file, h5py.File(out) as written:
        np.testing.assert_array_equal(file["pattern"], np.arange(len(lines_scan)))
        np.testing.assert_array_equal(file["positions_px"], lines_scan.positions)
        np.testing.assert_array_equal(file["probe"], lines_scan.probe)
        stitcher = Stitcher(lines_scan.positions, patch_weight("probe", lines_scan.size, lines_scan.probe))
        stitcher.add(file["patches"][:], file["positions_px"][:])
        np.testing.assert_allclose(stitcher.result().object, written["object"][:], atol=1e-6)


def test_what_is_refused_leaves_no_file(four_artifacts, scan_file, tmp_path, run):
    out = tmp_path / "object.h5"
    command = ("reconstruct", four_artifacts[0], scan_file, "--out", out, "--patches")
    for path, more, message in (
        (tmp_path / "p.npz", (), "expected a name that ends in .h5"),
        (out, (), "is what --out writes too"),
        (tmp_path / "p.h5", ("--shard", "1/2"), "expected no --executor, --shard or folder"),
    ):
        code, _, err = run(*command, path, *more)
        assert code == 2
        assert message in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.npz"]
