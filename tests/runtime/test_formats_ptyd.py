"""Files laid out as ptypy 0.8 writes them (`PtyScan` with save="append" or "link"), by this test."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_scan

DISTANCE, PSIZE, ENERGY = 2.0, 75e-6, 8.0  # m, m, keV
WAVELENGTH = 1.2398419843e-9 / ENERGY
PIXEL = WAVELENGTH * DISTANCE / (16 * PSIZE)


def write(path, scan, *, parts=(7, 7, 6), linked=False, weights="frames", **changes):
    """Chunks of the given lengths; `changes` replace datasets, or drop them if None."""
    counts = scan.diffraction.astype(np.float64) ** 2
    good = np.ones((16, 16))
    good[2, 3] = 0
    content = {
        "meta/energy": ENERGY,
        "meta/distance": DISTANCE,
        "meta/psize": np.array([PSIZE, PSIZE]),
        "meta/shape": np.array([16, 16]),
        "info/positions_scan": scan.positions * PIXEL,
    }
    if weights == "common":
        content["info/weight2d"] = good
    start = 0
    for number, length in enumerate(parts):
        chunk = slice(start, start + length)
        start += length
        where = f"chunks/{number}"
        content |= {
            f"{where}/data": counts[chunk],
            f"{where}/indices": np.arange(20)[chunk],
            f"{where}/positions": scan.positions[chunk] * PIXEL + 1e-6,
            f"{where}/weights": np.tile(good, (length, 1, 1)) if weights == "frames" else np.zeros(0),
        }
    content |= changes
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if value is None:
                continue
            chunk = name.split("/")[1]
            if linked and name.startswith("chunks"):
                part = f"{path.name}.part{int(chunk):03d}"
                with h5py.File(path.with_name(part), "a") as other:
                    other[name.split("/")[2]] = value
                if name.endswith("data"):
                    file[f"chunks/{chunk}"] = h5py.ExternalLink(part, "/")
            else:
                file[name] = value
    return path


@pytest.mark.parametrize("parts", [(20,), (7, 7, 6), (1,) * 12 + (8,)])
@pytest.mark.parametrize("linked", [False, True])
def test_patterns_and_positions_agree_with_the_object(scan, explains, tmp_path, parts, linked):
    back = read_scan(write(tmp_path / "s.ptyd", scan, parts=parts, linked=linked))
    explains(back)
    assert len(back) == 20
    assert back.pixel_size == pytest.approx(PIXEL, rel=1e-6)
    assert back.wavelength == pytest.approx(WAVELENGTH, rel=1e-6)
    assert np.argwhere(~back.mask).tolist() == [[2, 3]]
    assert back.positions.min(axis=0) == pytest.approx([8, 8])


def test_the_common_weight_is_the_mask(scan, explains, tmp_path):
    back = read_scan(write(tmp_path / "s.ptyd", scan, weights="common"))
    explains(back)
    assert np.argwhere(~back.mask).tolist() == [[2, 3]]


def test_a_pixel_that_is_bad_once_is_bad(scan, tmp_path):
    weights = np.ones((7, 16, 16))
    weights[4, 9, 1] = 0
    back = read_scan(write(tmp_path / "s.ptyd", scan, **{"chunks/1/weights": weights}))
    assert np.argwhere(~back.mask).tolist() == [[2, 3], [9, 1]]


def test_planned_positions_stand_in_for_those_of_the_chunks(scan, explains, tmp_path):
    changes = {f"chunks/{number}/positions": None for number in range(3)}
    explains(read_scan(write(tmp_path / "s.ptyd", scan, **changes)))


def test_planned_positions_are_those_of_the_frames_that_were_prepared(scan, explains, tmp_path):
    changes = {f"chunks/{number}/positions": None for number in range(3)}
    changes["info/positions_scan"] = np.insert(scan.positions * PIXEL, [0, 5], 1e-3, axis=0)
    for number, chunk in enumerate([slice(0, 7), slice(7, 14), slice(14, 20)]):
        changes[f"chunks/{number}/indices"] = np.delete(np.arange(22), [0, 6])[chunk]
    explains(read_scan(write(tmp_path / "s.ptyd", scan, **changes)))
    changes["chunks/1/indices"] = np.arange(7) + 20
    with pytest.raises(
        InputError, match=r"chunks/\*/indices are 20 numbers up to 26, expected one of the 22 positions"
    ):
        read_scan(write(tmp_path / "s.ptyd", scan, **changes))


def test_what_ptypy_marks_as_none_is_missing(scan, tmp_path):
    path = write(tmp_path / "s.ptyd", scan, **{"meta/distance": np.zeros(1)})
    with h5py.File(path, "a") as file:
        file["meta/distance"].attrs["type"] = "None"
    with pytest.raises(InputError, match=r"no pixel size.*--pixel-size"):
        read_scan(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunks/0/data": np.zeros((7, 16, 15))}, "expected .*like the others"),
        (
            {"chunks/1/positions": np.zeros((6, 2))},
            r"chunks/1/positions has shape \(6, 2\), expected \(7, 2\)",
        ),
        ({"chunks/1/positions": np.full((7, 2), np.nan)}, r"positions\[7\] is NaN"),
        (
            {"chunks/2/data": np.full((6, 16, 16), -1.0)},
            r"data\[14\] holds no valid photons, 255 of its pixels are negative",
        ),
        ({"chunks/1/weights": np.zeros((7, 8, 8))}, r"weights has shape \(7, 8, 8\)"),
        ({"meta/psize": np.array([1e-5, 2e-5])}, "expected square pixels"),
        ({"meta/energy": -1.0}, "one positive energy in keV"),
        ({"meta/energy": 800.0}, "is 800, expected at most 200 keV: is it in eV"),
    ],
)
def test_broken_content_is_refused(scan, tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as error:
        np.asarray(read_scan(write(tmp_path / "broken.ptyd", scan, **changes)).diffraction)
    assert "broken.ptyd" in str(error.value)


def test_a_missing_part_is_named(scan, tmp_path):
    path = write(tmp_path / "s.ptyd", scan, linked=True)
    (tmp_path / "s.ptyd.part001").unlink()
    with pytest.raises(InputError, match=r"chunks/1 leads to .*part001, which is missing"):
        read_scan(path)


def test_no_chunks_are_refused(tmp_path):
    with h5py.File(tmp_path / "s.ptyd", "w") as file:
        file.create_group("chunks"), file.create_group("meta")
    with pytest.raises(InputError, match="no chunk chunks/0"):
        read_scan(tmp_path / "s.ptyd")


@pytest.mark.parametrize("known", ["positions", "indices", None])
def test_a_chunk_that_is_missing_does_not_shift_the_positions_of_others(scan, tmp_path, known):
    gone = {f"chunks/1/{name}": None for name in ("data", "indices", "positions", "weights")}
    others = ("positions", "indices") if known is None else {"positions", "indices"} - {known}
    gone |= {f"chunks/{number}/{name}": None for number in (0, 2) for name in others}
    path = write(tmp_path / "s.ptyd", scan, **gone)
    if known is None:
        with pytest.raises(InputError, match="chunks/0, chunks/2 without positions or indices"):
            read_scan(path)
        return
    back = read_scan(path)
    kept = np.r_[0:7, 14:20]
    expected = scan.positions[kept] - scan.positions[kept].min(axis=0)
    np.testing.assert_allclose(back.positions - back.positions.min(axis=0), expected, atol=1e-3)
