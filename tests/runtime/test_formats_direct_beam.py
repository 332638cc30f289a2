"""The direct beam is found where it is, whatever single pixels, rows or the shape of the probe do."""

from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.formats.conversion.direct_beam import estimate_direct_beam
from ptychonnx.runtime.formats.conversion.stored_frames import StoredFrames

N = 32


def disc(*, inner=0.0, outer=6.0, centre=(16, 16), shape=(N, N), n=12):
    """Poisson counts [n, rows, columns] of a disc or a donut."""
    rows, columns = np.indices(shape)
    radius = np.hypot(rows - centre[0], columns - centre[1])
    mean = 40 * ((radius >= inner) & (radius <= outer)) + 0.3
    return np.random.default_rng(2).poisson(mean, (n, *shape)).astype(np.uint32)


def place(frames, mask=None):
    return estimate_direct_beam(StoredFrames(frames, mask, "frames"))


def zinger(frames):
    frames[3, 25, 3] = 200_000_000


def hot_pixel(frames):
    frames[:, 25, 3] = 4_000_000


def dead_module(frames):
    frames[:, 17:20] = 0


def beam_stop(frames):
    frames[:, 13:20, 13:20] = 0


def marked_gap(frames):
    frames[:, 17:19] = 2**32 - 1


def dark_half(frames):
    frames[: len(frames) // 2] = 0


@pytest.mark.parametrize(
    "damage", [zinger, hot_pixel, dead_module, beam_stop, marked_gap, dark_half, lambda frames: None]
)
@pytest.mark.parametrize("corner", [False, True])
def test_damage_does_not_move_the_beam(damage, corner):
    frames = disc(outer=7)
    damage(frames)
    beam = place(np.fft.ifftshift(frames, axes=(1, 2)) if corner else frames)
    assert beam.place == ("corner" if corner else "centre")
    expected = np.array([0, 0] if corner else [16, 16])
    off = (np.array(beam.pixel) - expected + N / 2) % N - N / 2
    assert np.abs(off).max() < 1


@pytest.mark.parametrize(("inner", "outer"), [(4, 8), (6, 12), (6, 15), (9, 15)])
@pytest.mark.parametrize("corner", [False, True])
def test_a_donut_is_round_about_the_beam(inner, outer, corner):
    frames = disc(inner=inner, outer=outer)
    beam = place(np.fft.ifftshift(frames, axes=(1, 2)) if corner else frames)
    assert beam.place == ("corner" if corner else "centre")
    if not corner:
        np.testing.assert_allclose(beam.pixel, [16, 16], atol=1)


def write(path, frames, **arrays):
    positions = np.random.default_rng(1).uniform(0, 60, (len(frames), 2))
    np.savez(path, d=frames, p=positions, **arrays)
    return path


def options(**values):
    return ReadOptions(mapping={"patterns": "d", "positions": "p"}, **values)


def test_an_even_pattern_takes_the_documented_place_and_says_both(tmp_path):
    frames = np.random.default_rng(0).poisson(5, (12, N, N)).astype(np.uint32)
    lines = []
    read_scan(write(tmp_path / "s.npz", frames), options=options(), log=lines.append)
    doubt = "but the mean pattern does not show whether it is there or in the corner: is it --dc corner?"
    assert f"dc: centre (assumed), {doubt}" in lines
    read_scan(write(tmp_path / "s.npz", frames), options=options(dc="corner"), log=lines.append)
    assert lines[-1] == "dc: corner (given)"


def test_an_off_centre_beam_is_named_with_the_option_that_mends_it(tmp_path):
    path = write(tmp_path / "s.npz", disc(centre=(16, 26), shape=(N, 44)))
    lines = []
    read_scan(path, options=options(crop=16), log=lines.append)
    doubt = "but the mean pattern is centred at [16, 26]: is it --crop-centre 16 26?"
    assert f"direct beam: taken at [16, 22], {doubt}" in lines
    lines.clear()
    back = read_scan(path, options=options(crop=16, crop_centre=(16, 26)), log=lines.append)
    assert not any("direct beam" in line for line in lines)
    expected = disc(centre=(16, 26), shape=(N, 44))[:, 8:24, 18:34]
    np.testing.assert_allclose(np.asarray(back.diffraction) ** 2, expected, rtol=1e-6)


def test_rows_of_metadata_outside_the_crop_decide_nothing(tmp_path):
    frames = disc(shape=(N + 2, N)).astype(np.float32)
    frames[:, N:] = 1e9
    lines = []
    back = read_scan(
        write(tmp_path / "s.npz", frames), options=options(crop=16, crop_centre=(16, 16)), log=lines.append
    )
    assert "dc: centre (given by the centre of the crop)" in lines
    assert back.diffraction[0].max() < 100


@pytest.mark.parametrize(
    ("dtype", "mark"),
    [
        *((dtype, 2**16 - 1) for dtype in (np.uint32, np.int64, np.float32, np.float64)),
        *((dtype, 2**15 - 1) for dtype in (np.uint32, np.int64, np.float32, np.float64)),
        *((dtype, 2**16 - 2) for dtype in (np.uint16, np.uint32, np.float32)),
        (np.uint8, 2**8 - 1),
    ],
)
def test_a_mark_in_all_frames_is_a_bad_pixel_also_in_a_wider_type(tmp_path, dtype, mark):
    frames = disc().astype(dtype)
    frames[:, 17] = mark
    lines = []
    back = read_scan(write(tmp_path / "s.npz", frames), options=options(), log=lines.append)
    assert np.argwhere(~back.mask)[:, 0].tolist() == [17] * N
    assert (back.diffraction[:, 17] == 0).all()
    bits = 16 if mark > 255 else 8
    assert f"bad pixels: 32 that hold {mark} in all frames, a detector's mark of {bits} bits: masked" in lines


@pytest.mark.parametrize(
    ("dtype", "mark"),
    [
        *((dtype, mark) for dtype in (np.int64, np.float32, np.float64) for mark in (-1, -2)),
        *(
            (dtype, mark)
            for dtype in (np.int64, np.uint64, np.float32, np.float64)
            for mark in (2**31 - 1, 2**32 - 2, 2**32 - 1)
        ),
        *((np.uint32, mark) for mark in (2**32 - 2, 2**32 - 3, 2**31)),
        *((dtype, 2**32 - 7) for dtype in (np.int64, np.uint64, np.float64)),
        (np.uint64, 2**64 - 5),
        (np.int32, 2**31 - 1),
        (np.int16, 2**15 - 1),
    ],
)
def test_marks_of_detectors_are_no_counts_also_in_a_wider_type(tmp_path, dtype, mark):
    frames = disc().astype(dtype)
    frames[:, 5, 7] = mark
    path = write(tmp_path / "s.npz", frames)
    with pytest.raises(InputError, match=r"d\[0\] has 1 pixels that are negative, NaN or saturated"):
        np.asarray(read_scan(path, options=options()).diffraction)
    masked = read_scan(path, options=options(bad_pixels="mask"))
    assert np.argwhere(~masked.mask).tolist() == [[5, 7]]


def test_a_subtracted_background_is_told_from_bad_pixels(tmp_path):
    frames = disc().astype(np.float32) + np.random.default_rng(4).normal(0, 1, (12, N, N)).astype(np.float32)
    path = write(tmp_path / "s.npz", frames)
    with pytest.raises(
        InputError, match=r"negative ones, as after the subtraction of a background.*--bad-pixels zero"
    ):
        np.asarray(read_scan(path, options=options()).diffraction)
    lines = []
    read_scan(path, options=options(bad_pixels="mask"), log=lines.append)
    assert "was a background subtracted? --bad-pixels zero keeps them" in lines[-1]
    back = read_scan(path, options=options(bad_pixels="zero"))
    np.testing.assert_allclose(np.asarray(back.diffraction) ** 2, np.maximum(frames, 0), rtol=1e-5)
