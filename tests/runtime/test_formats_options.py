"""What can be done to the frames of any format: cut, turned, binned, bad pixels."""

from __future__ import annotations

import tracemalloc
from typing import get_args

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan, write_scan
from ptychonnx.runtime.formats.read_options import Orientation
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward

# How an image [rows, columns] is seen by a detector that is mounted so that the orientation puts it right:
# the inverse, in NumPy's own words.
SEEN = {
    "identity": lambda image: image,
    "flip-rows": np.flipud,
    "flip-columns": np.fliplr,
    "rot180": lambda image: np.rot90(image, 2),
    "transpose": np.transpose,
    "rot90": lambda image: np.rot90(image, -1),
    "rot270": lambda image: np.rot90(image, 1),
    "antitranspose": lambda image: np.rot90(image, 2).T,
}


def tike(path, counts, positions, probe=None):
    """A file of counts with DC in the corner."""
    arrays = {"data": counts, "scan": positions - counts.shape[-1] // 2}
    np.savez(path, **arrays, **({} if probe is None else {"probe": probe}))
    return path


def counts_of(scan):
    return scan.diffraction.astype(np.float64) ** 2


def test_all_eight_orientations_are_offered():
    assert set(get_args(Orientation)) == set(SEEN)


@pytest.mark.parametrize("orientation", SEEN)
def test_a_turned_detector_is_put_right(scan, explains, tmp_path, orientation):
    # On a grid of 17 points around the direct beam every turn is one of the image: the last row and column repeat
    # the first, by the periodicity of the transform.
    periodic = np.pad(counts_of(scan), ((0, 0), (0, 1), (0, 1)), mode="wrap")
    seen = np.stack([SEEN[orientation](image) for image in periodic])[:, :16, :16]
    path = tike(tmp_path / "s.npz", np.fft.ifftshift(seen, axes=(1, 2)), scan.positions)
    explains(read_scan(path, options=ReadOptions(orientation=orientation)))
    other = "identity" if orientation != "identity" else "transpose"
    with pytest.raises(AssertionError):
        explains(read_scan(path, options=ReadOptions(orientation=other)))


@pytest.mark.parametrize("orientation", SEEN)
def test_the_mask_turns_with_the_frames(scan, tmp_path, orientation):
    marked = counts_of(scan)
    marked[:, 3, 13] = np.nan
    path = tike(tmp_path / "s.npz", np.fft.ifftshift(marked, axes=(1, 2)), scan.positions)
    back = read_scan(path, options=ReadOptions(orientation=orientation, bad_pixels="mask"))
    assert np.count_nonzero(~back.mask) == 1
    assert (back.diffraction[:, ~back.mask] == 0).all()
    plain = np.zeros((17, 17), bool)
    plain[3, 13] = True
    inverse = {"rot90": "rot270", "rot270": "rot90"}.get(orientation, orientation)
    np.testing.assert_array_equal(~back.mask, SEEN[inverse](plain)[:16, :16])


def test_a_crop_around_an_off_centre_beam(scan, explains, tmp_path):
    frame = np.zeros((20, 30, 41))
    frame[:, 10 - 8 : 10 + 8, 25 - 8 : 25 + 8] = counts_of(scan)
    np.save(tmp_path / "s.npy", frame)
    np.save(tmp_path / "p.npy", scan.positions)
    mapping = {"positions": "p.npy"}
    lines = []
    chosen = {"mapping": mapping, "crop": 16, "crop_centre": (10, 25)}
    metres = ReadOptions(**chosen, positions_unit="m", pixel_size=1.0)
    explains(read_scan(tmp_path / "s.npy", options=metres, log=lines.append))
    back = read_scan(tmp_path / "s.npy", options=ReadOptions(**chosen))
    np.testing.assert_allclose(back.positions, scan.positions * 16 / 30)
    assert "crop: 16 x 16 pixels around [10, 25] (given)" in lines
    for crop, centre, message in ((16, (3, 25), "leaves the frame"), (31, None, "leaves the frame")):
        wrong = ReadOptions(mapping=mapping, crop=crop, crop_centre=centre)
        with pytest.raises(InputError, match=message):
            read_scan(tmp_path / "s.npy", options=wrong)
    with pytest.raises(InputError, match="a side to --crop"):
        read_scan(tmp_path / "s.npy", options=ReadOptions(mapping=mapping))


def band_limited(truth):
    """The object without the frequencies that a detector of half the width misses."""
    spectrum = np.fft.fft2(truth)
    rows, columns = (np.abs(np.fft.fftfreq(length)) < 0.1 for length in truth.shape)
    return np.fft.ifft2(spectrum * rows[:, None] * columns)


def test_a_cut_detector_sees_the_object_on_coarser_pixels(scan, truth, tmp_path):
    rows, columns = np.mgrid[:16, :16] - 8
    smooth = (300 * np.exp(-(rows**2 + columns**2) / 3.0**2)).astype(np.complex64)[None]
    known = band_limited(truth)
    positions = np.rint(scan.positions / 2) * 2
    positions = np.clip(positions, 8, [truth.shape[0] - 8, truth.shape[1] - 8])
    amplitude = forward(cut_windows(known, positions, 16), smooth)
    path = tike(
        tmp_path / "s.npz",
        np.fft.ifftshift(amplitude.astype(np.float64) ** 2, axes=(1, 2)),
        positions,
        smooth,
    )
    back = read_scan(path, options=ReadOptions(crop=8))
    coarse = known[::2, ::2]
    origin = tuple(np.median(back.positions - positions / 2, axis=0))
    again = forward(cut_windows(coarse, back.positions, 8, origin), back.probe)
    assert np.corrcoef(again.ravel(), np.ravel(back.diffraction))[0, 1] > 0.999
    assert np.sum(np.abs(back.probe) ** 2) == pytest.approx(back.flux, rel=1e-5)


def test_binning_adds_photons_and_cuts_the_window(scan, truth, tmp_path):
    rows, columns = np.mgrid[:16, :16] - 8
    narrow = (300 * np.exp(-(rows**2 + columns**2) / 1.6**2)).astype(np.complex64)[None]
    amplitude = forward(cut_windows(truth, scan.positions, 16), narrow).astype(np.float64)
    path = tike(tmp_path / "s.npz", np.fft.ifftshift(amplitude**2, axes=(1, 2)), scan.positions, narrow)
    lines = []
    back = read_scan(path, options=ReadOptions(rebin=2), log=lines.append)
    expected = (amplitude**2).reshape(20, 8, 2, 8, 2).sum(axis=(2, 4))
    np.testing.assert_allclose(np.asarray(back.diffraction, np.float64) ** 2, expected, rtol=1e-5)
    assert back.flux == pytest.approx((amplitude**2).sum(axis=(1, 2)).mean(), rel=1e-5)
    assert back.probe.shape == (1, 8, 8)
    again = forward(cut_windows(truth, back.positions, 8), back.probe)
    assert np.corrcoef(again.ravel(), np.ravel(back.diffraction))[0, 1] > 0.998
    assert "rebin: 2 x 2 pixels, photons summed (given)" in lines
    with pytest.raises(InputError, match="16 pixels do not split into bins of 3"):
        read_scan(path, options=ReadOptions(rebin=3))


def test_a_bin_with_a_bad_pixel_is_bad(scan, tmp_path):
    counts = counts_of(scan)
    counts[4, 5, 9] = -1
    path = tike(tmp_path / "s.npz", np.fft.ifftshift(counts, axes=(1, 2)), scan.positions)
    back = read_scan(path, options=ReadOptions(rebin=2, bad_pixels="mask"))
    assert np.argwhere(~back.mask).tolist() == [[2, 4]]


def test_the_policies_for_bad_pixels(scan, tmp_path):
    counts = counts_of(scan)
    counts[4, 5, 9] = np.nan
    path = tike(tmp_path / "s.npz", np.fft.ifftshift(counts, axes=(1, 2)), scan.positions)
    refused = read_scan(path)
    with pytest.raises(
        InputError, match=r"'data'\[4\] has 1 pixels that are negative, NaN .* --bad-pixels mask"
    ):
        np.asarray(refused.diffraction)
    np.testing.assert_allclose(refused.diffraction[5:], scan.diffraction[5:], rtol=1e-6)
    lines = []
    masked = read_scan(path, options=ReadOptions(bad_pixels="mask"), log=lines.append)
    assert np.argwhere(~masked.mask).tolist() == [[5, 9]]
    assert (masked.diffraction[:, 5, 9] == 0).all()
    assert "bad pixels: 1 of a frame masked in all patterns (given)" in lines
    zeroed = read_scan(path, options=ReadOptions(bad_pixels="zero"), log=lines.append)
    assert zeroed.mask is None
    assert np.argwhere(zeroed.diffraction[:, 5, 9] == 0).ravel().tolist() == [4]
    assert "bad pixels: 1 values set to 0 (given)" in lines


def test_a_convention_that_the_patterns_contradict_is_doubted(scan, tmp_path):
    lines = []
    path = tike(tmp_path / "s.npz", counts_of(scan), scan.positions)
    read_scan(path, log=lines.append)
    doubt = "but the mean pattern is centred at [8, 8]: is it --dc centre?"
    assert f"dc: corner (tike convention), {doubt}" in lines
    given = read_scan(path, options=ReadOptions(dc="centre"), log=lines.append)
    np.testing.assert_allclose(given.diffraction, scan.diffraction, rtol=1e-6)
    assert lines[-1] == "dc: centre (given)"


def test_our_own_files_take_options_too(scan, explains, tmp_path):
    write_scan(tmp_path / "s.npz", Scan(scan.diffraction, scan.positions[:, ::-1].copy()))
    explains(read_scan(tmp_path / "s.npz", options=ReadOptions(positions_axes="column,row")))
    write_scan(tmp_path / "full.npz", scan)
    lines = []
    plain = read_scan(tmp_path / "full.npz", log=lines.append)
    assert lines == []
    finer = read_scan(tmp_path / "full.npz", options=ReadOptions(wavelength=3e-10, pixel_size=1e-9))
    assert (finer.wavelength, finer.pixel_size) == (3e-10, 1e-9)
    np.testing.assert_array_equal(finer.labels, scan.labels)
    turned = read_scan(tmp_path / "full.npz", options=ReadOptions(bad_pixels="mask"), log=lines.append)
    explains(turned)
    assert turned.labels is None
    assert "labels: left out, since options change patterns or positions" in lines
    np.testing.assert_array_equal(turned.mask, plain.mask)
    np.testing.assert_allclose(turned.positions, plain.positions)
    assert "quantity: amplitude (ptychonnx convention)" in lines
    cut = read_scan(tmp_path / "full.npz", options=ReadOptions(crop=8), log=lines.append)
    assert cut.reference is None
    assert cut.pixel_size == pytest.approx(2 * scan.pixel_size)
    assert any(line.startswith("known object: left out") for line in lines)


def test_memory_holds_a_block_of_patterns(tmp_path, monkeypatch):
    monkeypatch.setattr("ptychonnx.runtime.formats.conversion.frames._BLOCK_BYTES", 2**20)
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "big.h5", "w") as file:
        data = file.create_dataset("data", (600, 128, 128), np.uint16, chunks=(1, 128, 128))
        for index in range(len(data)):
            data[index] = rng.integers(0, 900, (128, 128))
        file["positions"] = rng.uniform(0, 100, (600, 2))
    options = ReadOptions(mapping={"patterns": "data", "positions": "positions"}, dc="centre")
    tracemalloc.start()
    try:
        back = read_scan(tmp_path / "big.h5", options=options)
        blocks = sum(float(block.sum(dtype=np.float64)) for _, block in back.diffraction.blocks())
        masked = read_scan(tmp_path / "big.h5", options=options.model_copy(update={"bad_pixels": "mask"}))
        # All of them are 38 MiB.
        assert blocks > 0
        assert back.flux == masked.flux
        assert tracemalloc.get_traced_memory()[1] < 6 * 2**20
    finally:
        tracemalloc.stop()
