"""Frames that mean something else than the format says are named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychonnx.runtime.formats import ReadOptions, read_scan, write_scan
from tests.runtime import test_formats_cxi, test_formats_mapped
from tests.runtime.test_formats_cxi import DETECTOR

MAPPING = {"patterns": "entry/data", "positions": "entry/pos"}


@pytest.fixture
def counts(scan):
    return np.random.default_rng(4).poisson(scan.diffraction.astype(np.float64) ** 2).astype(np.float64)


def doubts(scan, folder, counts, **options):
    """Lines about the frames of a CXI file, beyond those of good counts."""
    lines: list[str] = []
    path = test_formats_cxi.write(folder / "s.cxi", scan, **{f"{DETECTOR}/data": counts})
    read_scan(path, options=ReadOptions(**options), log=lines.append)
    return [line for line in lines if line.startswith(("quantity: counts, but", "bad pixels", "patterns"))]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint32])
def test_good_counts_raise_no_doubt(scan, counts, tmp_path, kind):
    assert doubts(scan, tmp_path, counts.astype(kind)) == []


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (np.sqrt, "the squares of all values are whole numbers: is it --quantity amplitude?"),
        (np.log1p, "the exponentials of all values are whole numbers: are they logarithms?"),
        (lambda counts: np.log10(np.maximum(counts, 1)), "the powers of ten of all values are whole numbers"),
    ],
)
def test_roots_and_logarithms_of_counts_are_named(scan, counts, tmp_path, kind, stored, words):
    (line,) = doubts(scan, tmp_path, stored(counts).astype(kind))
    assert words in line
    assert doubts(scan, tmp_path, stored(counts * 1.234).astype(kind)) == []
    assert doubts(scan, tmp_path, np.sqrt(counts).astype(kind), quantity="amplitude") == []


def test_pixels_that_never_change_or_never_count_are_named(scan, counts, tmp_path):
    stuck, gap, hot = counts.copy(), counts.copy(), counts.copy()
    stuck[:, 3:5, :] = 4095
    (line,) = doubts(scan, tmp_path, stuck)
    assert line == ("bad pixels: 32 hold the same counts in all patterns looked at (first [3, 0]): mask them")
    gap[:, :, 9:11] = 0
    (line,) = doubts(scan, tmp_path, gap)
    assert "are 0 among bright ones (first [" in line
    assert ", 9]): mask them" in line
    hot[:, 13, 2] = np.arange(1e6, 1e6 + 20)
    assert doubts(scan, tmp_path, hot) == [
        "bad pixels: 1 are far brighter than their neighbours in all of them (first [13, 2]): mask them"
    ]
    mask = np.zeros((16, 16), np.uint8)
    mask[13, 2] = 1
    lines: list[str] = []
    path = test_formats_cxi.write(
        tmp_path / "m.cxi", scan, **{f"{DETECTOR}/data": hot, f"{DETECTOR}/mask": mask}
    )
    read_scan(path, log=lines.append)
    assert not any(line.startswith("bad pixels") for line in lines)


def test_bright_pixels_among_noise_about_zero_are_not_hot(scan, counts, tmp_path):
    rng = np.random.default_rng(6)
    background = counts + rng.normal(0, 10, counts.shape)
    # One pixel is never negative, all of its neighbours are at times.
    background[:, 2, 2] = rng.uniform(14, 20, 20)
    lines = doubts(scan, tmp_path, background, bad_pixels="zero")
    assert [line for line in lines if "(given)" not in line] == []


def test_patterns_without_the_beam_are_named_and_left_out(scan, counts, tmp_path):
    counts[:3] = np.random.default_rng(1).poisson(0.05, counts[:3].shape)
    (line,) = doubts(scan, tmp_path, counts)
    assert line.startswith(
        "patterns: 3 of 16 looked at have less than 2% of the usual photons (first number 0)"
    )
    threshold = float(line.partition("--min-photons ")[2].split()[0])
    assert doubts(scan, tmp_path, counts, min_photons=threshold) == [
        "patterns: 3 of 20 left out, too dark (numbers 0, 1, 2)"
    ]


def test_scans_of_our_own_are_looked_at_too(scan, tmp_path):
    hot = scan.diffraction.copy()
    hot[:, 13, 2] = 3000
    lines: list[str] = []
    write_scan(tmp_path / "s.npz", replace(scan, diffraction=hot))
    read_scan(tmp_path / "s.npz", log=lines.append)
    assert any(line.startswith("bad pixels: 1 hold the same counts") for line in lines)


def test_a_cube_with_the_patterns_last_is_named(scan, tmp_path):
    def lines_of(counts):
        lines: list[str] = []
        changes = {"entry/data": counts, "entry/pos": scan.positions[:16]}
        path = test_formats_mapped.write(tmp_path / f"{len(list(tmp_path.iterdir()))}.h5", scan, **changes)
        read_scan(path, options=ReadOptions(mapping=MAPPING), log=lines.append)
        return [line for line in lines if "[n, rows, columns]" in line]

    cube = scan.diffraction[:16].astype(np.float64) ** 2
    assert lines_of(cube) == []
    assert "patterns: [16, 16, 16], whose beam stays in one place" in lines_of(np.moveaxis(cube, 0, 2))[0]
