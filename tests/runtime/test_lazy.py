"""Patterns that stay in their file are those that would have been loaded, whoever asks for which of them when."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan, write_scan
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import LazyAmplitudes
from tests.runtime import (
    test_formats_cxi,
    test_formats_fold_slice,
    test_formats_nexus,
    test_formats_ptychodus,
    test_formats_ptyd,
)

MAPPED = {"patterns": "data", "positions": "positions"}


def stored(path, scan):
    """Our own archive, not compressed."""
    write_scan(path.with_name("packed.npz"), scan)
    with np.load(path.with_name("packed.npz")) as packed:
        np.savez(path, **packed)
    return path


def tike(path, scan):
    np.savez(path, data=np.fft.ifftshift(scan.diffraction**2, axes=(1, 2)), scan=scan.positions - 8)
    return path


def ptychopinn(path, scan, patterns):
    row, column = scan.positions.T
    np.savez(path, diffraction=patterns, xcoords=column, ycoords=row)
    return path


def hdf5(path, scan, **storage):
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=scan.diffraction**2, **storage)
        file["positions"] = scan.positions
    return path


def npy(path, scan):
    np.save(path, scan.diffraction**2)
    np.save(path.with_name("p.npy"), scan.positions)
    return path


def training(path, scan):
    with h5py.File(path, "w") as file:
        file["patterns"] = scan.diffraction**2
        file["probe_position_y_px"], file["probe_position_x_px"] = scan.positions.T
    return path


# From the folder, the scan, its object and its probe, to a file and what has to be said of it.
FILES = {
    "CXI": lambda p, s, o, q: (test_formats_cxi.write(p / "s.cxi", s), {}),
    "NeXus": lambda p, s, o, q: (test_formats_nexus.write(p / "s.nxs", s), {}),
    "NeXus raster": lambda p, s, o, q: (test_formats_nexus.write(p / "s.nxs", s, raster=(4, 5)), {}),
    "ptypy": lambda p, s, o, q: (test_formats_ptyd.write(p / "s.ptyd", s, parts=(1, 12, 7)), {}),
    "ptypy links": lambda p, s, o, q: (test_formats_ptyd.write(p / "s.ptyd", s, linked=True), {}),
    "ptychodus": lambda p, s, o, q: (test_formats_ptychodus.write(p / "s", s, o, q) / "product.h5", {}),
    "ptychodus training": lambda p, s, o, q: (training(p / "s.h5", s), {}),
    "pair": lambda p, s, o, q: (test_formats_fold_slice.write(p, s, o, q), {}),
    "mapped HDF5": lambda p, s, o, q: (hdf5(p / "s.h5", s), {"mapping": MAPPED}),
    "chunks": lambda p, s, o, q: (
        hdf5(p / "s.h5", s, chunks=(7, 4, 8), compression="gzip"),
        {"mapping": MAPPED},
    ),
    "mapped NPY": lambda p, s, o, q: (npy(p / "s.npy", s), {"mapping": {"positions": "p.npy"}}),
    "turned, binned": lambda p, s, o, q: (
        hdf5(p / "s.h5", s),
        {"mapping": MAPPED, "orientation": "rot90", "crop": 12, "rebin": 2, "bad_pixels": "zero"},
    ),
    "own, stored": lambda p, s, o, q: (stored(p / "s.npz", s), {}),
    "own, turned": lambda p, s, o, q: (stored(p / "s.npz", s), {"orientation": "transpose"}),
    "tike": lambda p, s, o, q: (tike(p / "s.npz", s), {}),
    "PtychoPINN": lambda p, s, o, q: (ptychopinn(p / "s.npz", s, s.diffraction), {}),
    "PtychoPINN, counts, last axis": lambda p, s, o, q: (
        ptychopinn(p / "s.npz", s, np.moveaxis(np.rint(s.diffraction**2).astype(np.uint32), 0, 2)),
        {},
    ),
}
NUMBERS = st.lists(st.integers(-18, 17), max_size=12)
INDEX = st.one_of(
    st.integers(-18, 17),
    st.slices(18),
    NUMBERS.map(lambda numbers: np.array(numbers, dtype=np.intp)),
    st.lists(
        NUMBERS.filter(lambda numbers: len(numbers) >= 4).map(lambda n: n[:4]), min_size=1, max_size=3
    ).map(lambda groups: np.array(groups, dtype=np.intp)),
)


@pytest.fixture
def small_blocks(monkeypatch):
    """Three patterns at once, so that a scan has several blocks and the last is not full."""
    monkeypatch.setattr("ptychonnx.runtime.formats.conversion.frames._BLOCK_BYTES", 3 * 8 * 16 * 16)
    for module in ("native", "ptychopinn"):
        monkeypatch.setattr(f"ptychonnx.runtime.formats.readers.{module}._BLOCK", 3)


@pytest.mark.parametrize("kind", FILES)
@given(order=st.lists(INDEX, min_size=1, max_size=5))
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_lazily_read_scan_equals_the_eagerly_read_one(kind, order, request, tmp_path_factory):
    scan, truth, probe = (request.getfixturevalue(name) for name in ("scan", "truth", "probe"))
    path, options = FILES[kind](tmp_path_factory.mktemp("scan"), scan, truth, probe)
    eager = np.asarray(read_scan(path, options=ReadOptions(**options)).diffraction)
    request.getfixturevalue("small_blocks")
    lazy = read_scan(path, options=ReadOptions(**options)).diffraction
    assert isinstance(lazy, LazyAmplitudes)
    assert (lazy.shape, lazy.dtype, len(lazy)) == (eager.shape, eager.dtype, len(eager))
    for index in order:
        found = lazy[index]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, eager[index])
    np.testing.assert_array_equal(np.asarray(lazy), eager)
    assert np.mean(lazy.photons()) == np.mean(np.sum(np.square(eager, dtype=np.float64), axis=(1, 2)))


@pytest.mark.parametrize("kind", [kind for kind in FILES if "turned" not in kind and "counts" not in kind])
def test_what_is_read_lazily_is_the_known_amplitude(kind, scan, truth, probe, tmp_path, small_blocks):
    path, options = FILES[kind](tmp_path, scan, truth, probe)
    back = read_scan(path, options=ReadOptions(**options))
    expected = (
        scan.diffraction[test_formats_ptychodus.ORDER[:18]] if kind == "ptychodus" else scan.diffraction
    )
    if back.mask is not None and kind != "own, stored":
        expected = expected * back.mask
    # CXI holds whole counts.
    np.testing.assert_allclose(back.diffraction, expected, atol=0.8 if kind == "CXI" else 1e-3)


def test_an_index_beyond_the_scan_is_an_index_error(scan, tmp_path):
    lazy = read_scan(stored(tmp_path / "s.npz", scan)).diffraction
    with pytest.raises(IndexError):
        lazy[np.array([3, 20])]
    with pytest.raises(ValueError, match="always a copy"):
        np.asarray(lazy, copy=False)
    np.testing.assert_array_equal(lazy[4:7, 3, ::2], scan.diffraction[4:7, 3, ::2])


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "holds NaN or infinity"), (-2.5, "holds -2.5, expected")]
)
def test_a_bad_pattern_is_named_when_it_is_read_and_no_sooner(scan, tmp_path, small_blocks, value, message):
    path = stored(tmp_path / "s.npz", scan)
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["diffraction"][13, 4, 5] = value
    np.savez(path, **arrays)
    back = read_scan(path)
    np.testing.assert_array_equal(back.diffraction[:13], scan.diffraction[:13])
    for ask in (lambda: back.diffraction[10:15], lambda: back.flux, lambda: np.asarray(back.diffraction)):
        with pytest.raises(InputError, match=rf"s\.npz: diffraction\[13\] {message}"):
            ask()


def test_a_damaged_pattern_is_named_when_it_is_read(scan, tmp_path):
    longer = Scan(np.concatenate([scan.diffraction] * 3), np.concatenate([scan.positions] * 3))
    path = hdf5(tmp_path / "s.h5", longer, chunks=(1, 16, 16), compression="gzip")
    with h5py.File(path, "r") as file:
        # None of those that tell where the direct beam is.
        chunk = file["data"].id.get_chunk_info(13)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(os.urandom(chunk.size))
    back = read_scan(path, options=ReadOptions(mapping=MAPPED, dc="centre"))
    np.testing.assert_allclose(back.diffraction[:13], longer.diffraction[:13], rtol=1e-6)
    with pytest.raises(InputError, match=r"s\.h5: data is damaged or unreadable"):
        np.asarray(back.diffraction)


def test_patterns_that_share_a_chunk_are_read_together(scan, tmp_path, small_blocks):
    path = hdf5(tmp_path / "s.h5", scan, chunks=(7, 4, 8), compression="gzip")
    assert read_scan(path, options=ReadOptions(mapping=MAPPED)).diffraction.block == 7
    for name, layout in (("columns", (20, 2, 2)), ("pages", (1, 16, 16))):
        path = hdf5(tmp_path / f"{name}.h5", scan, chunks=layout)
        assert (
            read_scan(path, options=ReadOptions(mapping=MAPPED)).diffraction.block
            == {20: 20, 1: 3}[layout[0]]
        )
    raster = tmp_path / "raster.h5"
    with h5py.File(raster, "w") as file:
        file.create_dataset("data", data=(scan.diffraction**2).reshape(4, 5, 16, 16), chunks=(2, 5, 16, 16))
        file["positions"] = scan.positions
    assert read_scan(raster, options=ReadOptions(mapping=MAPPED)).diffraction.block == 10


def test_the_number_of_a_bad_pattern_counts_from_the_first_of_the_scan(scan, tmp_path, small_blocks):
    path = hdf5(tmp_path / "s.h5", scan, chunks=(14, 16, 16))
    with h5py.File(path, "r+") as file:
        file["data"][12, 3, 4] = file["data"][12, 5, 6] = -1
    back = read_scan(path, options=ReadOptions(mapping=MAPPED))
    with pytest.raises(InputError, match=r"data\[12\] has 2 pixels that are negative"):
        np.asarray(back.diffraction)


def test_an_array_that_claims_more_than_its_member_holds_is_damaged(scan, tmp_path):
    path = stored(tmp_path / "s.npz", scan)
    content = path.read_bytes()
    assert content.count(b"(20, 16, 16)") == 2
    # The first is that of the patterns, the labels follow.
    path.write_bytes(content.replace(b"(20, 16, 16), }", b"(90, 16, 16), }", 1))
    with pytest.raises(InputError, match=r"s\.npz: 'diffraction' is damaged"):
        read_scan(path)


def test_the_scan_outlives_its_file(scan, tmp_path):
    path = test_formats_cxi.write(tmp_path / "s.cxi", scan)
    back = read_scan(path)
    expected = np.asarray(back.diffraction)
    path.unlink()
    np.testing.assert_array_equal(back.diffraction[::-1], expected[::-1])


def test_an_estimated_probe_settles_on_the_power_of_all_patterns(scan, probe, tmp_path):
    changes = {"entry_1/instrument_1/source_1/illumination": probe * 1e-4}
    bright = Scan(
        np.concatenate([scan.diffraction] * 3), np.concatenate([scan.positions] * 3), mask=scan.mask
    )
    bright.diffraction[37] *= 5  # not among the patterns that an estimate looks at
    path = test_formats_cxi.write(tmp_path / "s.cxi", bright, **changes)
    exact, estimated = read_scan(path), read_scan(path, estimate_probe=True)
    assert not exact.probe_estimated
    assert estimated.probe_estimated
    power = np.sum(np.abs(estimated.probe) ** 2)
    assert power != pytest.approx(exact.flux, rel=1e-2)
    assert power == pytest.approx(exact.flux, rel=0.5)
    np.testing.assert_allclose(estimated.settled().probe, exact.probe, rtol=1e-6)
    assert estimated.settled().settled().probe_estimated is False
    np.testing.assert_allclose(estimated.subset(slice(0, 2)).probe, exact.probe, rtol=1e-6)
    np.savez(tmp_path / "p.npz", probe=probe)
    given = read_scan(path, probe=tmp_path / "p.npz", estimate_probe=True)
    np.testing.assert_allclose(
        given.settled().probe, read_scan(path, probe=tmp_path / "p.npz").probe, rtol=1e-6
    )


def test_a_lazy_scan_is_written_as_an_eager_one_is(scan, tmp_path, small_blocks):
    lazy = read_scan(stored(tmp_path / "s.npz", scan))
    write_scan(tmp_path / "lazy.npz", lazy)
    write_scan(tmp_path / "eager.npz", scan)
    assert (tmp_path / "lazy.npz").read_bytes() == (tmp_path / "eager.npz").read_bytes()
    np.savez_compressed(tmp_path / "numpy.npz", **dict(np.load(tmp_path / "lazy.npz")))
    assert (tmp_path / "lazy.npz").read_bytes() == (tmp_path / "numpy.npz").read_bytes()


def test_flux_reads_no_pattern_twice(scan):
    asked = []

    def read(start, stop):
        asked.append((start, stop))
        return scan.diffraction[start:stop]

    lazy = Scan(LazyAmplitudes(scan.diffraction.shape, read, 4, "counted"), scan.positions)
    lazy.diffraction[:]
    first = list(asked)
    assert lazy.flux == scan.flux
    assert asked == first == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 20)]
