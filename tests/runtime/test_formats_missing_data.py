"""Data that are missing are never zeros, and files lead nowhere but to themselves."""

from __future__ import annotations

import io
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from tests.runtime import test_formats_cxi
from tests.runtime.test_formats_cxi import DETECTOR, SOURCE, TRANSLATION

DATA = f"{DETECTOR}/data"
MAPPED = ReadOptions(mapping={"patterns": "data", "positions": "positions"})


def counts(scan):
    return np.rint(scan.diffraction.astype(np.float64) ** 2).astype(np.uint32)


def replaced(path, scan, make):
    """A CXI file whose patterns `make(file)` writes."""
    test_formats_cxi.write(path, scan, **{DATA: None})
    with h5py.File(path, "a") as file:
        make(file)
    return path


def partly_written(scan, rows, **storage):
    def make(file):
        data = file.create_dataset(DATA, scan.diffraction.shape, np.uint32, **storage)
        for row in rows:
            data[row] = counts(scan)[row]

    return make


@pytest.mark.parametrize("chunk", [1, 2])
def test_chunks_that_were_never_written_are_left_out_aloud(scan, explains, tmp_path, chunk):
    path = replaced(tmp_path / "s.cxi", scan, partly_written(scan, range(12), chunks=(chunk, 16, 8)))
    lines = []
    back = read_scan(path, log=lines.append)
    assert len(back) == 12
    explains(back, tolerance=5e-3)
    assert "patterns: 8 of 20 left out, never written (numbers 12, 13, 14, 15, 16, 17, 18, 19)" in lines


@pytest.mark.parametrize("storage", [{}, {"chunks": (1, 16, 16)}])
def test_a_stack_without_any_frame_is_refused(scan, tmp_path, storage):
    path = replaced(tmp_path / "s.cxi", scan, partly_written(scan, [], **storage))
    with pytest.raises(InputError, match="all 20 patterns are never written, expected some"):
        read_scan(path)


def test_positions_that_were_never_written_are_refused(scan, tmp_path):
    path = test_formats_cxi.write(tmp_path / "s.cxi", scan, **{TRANSLATION: None})
    with h5py.File(path, "a") as file:
        file.create_dataset(TRANSLATION, (20, 3), chunks=(5, 3))[:5] = 1.0
    with pytest.raises(InputError, match="translation has parts that were never written"):
        read_scan(path)


def virtual(scan, *, sources=2, rows=20):
    """A virtual dataset over part files of ten frames, of which the first few exist."""

    def make(file):
        layout = h5py.VirtualLayout((rows, 16, 16), np.uint32)
        folder = Path(file.filename).parent
        for part in range(2):
            name = f"part{part}.h5"
            if part < sources:
                with h5py.File(folder / name, "w") as inner:
                    inner["data"] = counts(scan)[10 * part : 10 * part + 10]
            layout[10 * part : 10 * part + 10] = h5py.VirtualSource(name, "data", (10, 16, 16))
        file.create_virtual_dataset(DATA, layout)

    return make


def test_a_virtual_dataset_needs_its_sources(scan, explains, tmp_path):
    explains(read_scan(replaced(tmp_path / "s.cxi", scan, virtual(scan))), tolerance=5e-3)
    (tmp_path / "part1.h5").unlink()
    with pytest.raises(InputError, match=r"virtual dataset whose source .*part1\.h5 is missing"):
        read_scan(tmp_path / "s.cxi")


def test_a_source_that_was_not_written_to_its_end_is_noticed(scan, tmp_path):
    path = replaced(tmp_path / "s.cxi", scan, virtual(scan))
    with h5py.File(tmp_path / "part1.h5", "w") as inner:
        inner.create_dataset("data", (10, 16, 16), np.uint32, chunks=(1, 16, 16))[:6] = counts(scan)[10:16]
    lines = []
    assert len(read_scan(path, log=lines.append)) == 16
    assert "patterns: 4 of 20 left out, never written (numbers 16, 17, 18, 19)" in lines


@pytest.mark.parametrize(
    "storage",
    [{}, {"chunks": (1, 16, 16), **hdf5plugin.Bitshuffle()}, {"chunks": (4, 16, 16), "compression": "gzip"}],
)
def test_dark_patterns_are_left_out_aloud(scan, tmp_path, storage):
    dark = counts(scan)
    dark[[3, 11]] = 0
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("data", data=dark, **storage)
        file["positions"] = scan.positions
    lines = []
    back = read_scan(tmp_path / "s.h5", options=MAPPED, log=lines.append)
    assert "patterns: 2 of 20 left out, without photons (numbers 3, 11)" in lines
    np.testing.assert_allclose(back.positions, np.delete(scan.positions, [3, 11], axis=0))
    np.testing.assert_allclose(back.diffraction, np.sqrt(np.delete(dark, [3, 11], axis=0)), rtol=1e-6)


def test_dark_patterns_that_only_reading_shows_are_refused(scan, tmp_path, monkeypatch):
    monkeypatch.setattr("ptychonnx.runtime.formats.conversion.dark_patterns._SMALL_BYTES", 0)
    dark = counts(scan)
    dark[11] = 0
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("data", data=dark, chunks=(4, 16, 16), compression="gzip")
        file["positions"] = scan.positions
    back = read_scan(tmp_path / "s.h5", options=MAPPED)
    with pytest.raises(InputError, match=r"data\[11\] holds no photons, expected some: --min-photons 1"):
        np.asarray(back.diffraction)
    assert len(read_scan(tmp_path / "s.h5", options=MAPPED.model_copy(update={"min_photons": 1.0}))) == 19


def test_faint_patterns_are_left_out_by_a_threshold(scan, tmp_path):
    faint = counts(scan)
    faint[7] //= 1000
    np.savez(tmp_path / "s.npz", data=faint, positions=scan.positions)
    lines = []
    threshold = float(faint[7].sum()) + 1
    chosen = MAPPED.model_copy(update={"min_photons": threshold})
    assert len(read_scan(tmp_path / "s.npz", options=chosen, log=lines.append)) == 19
    assert "patterns: 1 of 20 left out, too dark (numbers 7)" in lines


def linked(target):
    def make(file):
        file[DATA] = target

    return make


def test_links_stay_in_the_folder_of_the_scan(scan, explains, tmp_path):
    (tmp_path / "scan").mkdir()
    for folder in (tmp_path, tmp_path / "scan"):
        with h5py.File(folder / "raw.h5", "w") as file:
            file["data"] = counts(scan)
            file["again"] = h5py.SoftLink("/data")
    inside = replaced(tmp_path / "scan" / "in.cxi", scan, linked(h5py.ExternalLink("raw.h5", "/again")))
    explains(read_scan(inside), tolerance=5e-3)
    outside = replaced(tmp_path / "scan" / "out.cxi", scan, linked(h5py.ExternalLink("../raw.h5", "/data")))
    with pytest.raises(InputError, match=r"leads to .*raw\.h5, expected a file in .*--external-links"):
        read_scan(outside)
    explains(read_scan(outside, options=ReadOptions(external_links=True)), tolerance=5e-3)


def test_a_link_that_leads_nowhere_is_named(scan, tmp_path):
    path = test_formats_cxi.write(tmp_path / "s.cxi", scan, **{TRANSLATION: None})
    with h5py.File(path, "a") as file:
        file[TRANSLATION] = h5py.ExternalLink("motors.h5", "/x")
    with pytest.raises(InputError, match=r"no dataset .*\(a link to .*which is missing\)"):
        read_scan(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [f"{SOURCE}/probe", f"{DETECTOR}/mask", f"{SOURCE}/wavelength"])
@pytest.mark.parametrize("link", [h5py.SoftLink("/gone"), h5py.ExternalLink("gone.h5", "/x")])
def test_an_optional_array_behind_a_link_to_nowhere_is_not_left_out(scan, tmp_path, name, link):
    path = test_formats_cxi.write(tmp_path / "s.cxi", scan, **{name: None})
    with h5py.File(path, "a") as file:
        file[name] = link
    with pytest.raises(
        InputError, match=rf"{name} is a link that leads nowhere \(.*gone.*\), expected a dataset"
    ):
        read_scan(path)


def test_a_fifo_is_not_opened(scan, tmp_path):
    path = replaced(tmp_path / "s.cxi", scan, linked(h5py.ExternalLink("pipe", "/data")))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe, which is not a regular file"):
        read_scan(path)
    with pytest.raises(InputError, match="pipe"):
        read_scan(tmp_path / "pipe")


def test_raw_storage_in_another_folder_is_not_read(scan, tmp_path):
    (tmp_path / "scan").mkdir()
    counts(scan).tofile(tmp_path / "secret.bin")

    def make(file):
        file.create_dataset(
            DATA, (20, 16, 16), np.uint32, external=[("../secret.bin", 0, h5py.h5f.UNLIMITED)]
        )

    path = replaced(tmp_path / "scan" / "s.cxi", scan, make)
    with pytest.raises(InputError, match=r"secret\.bin, expected a file in"):
        read_scan(path)


def test_a_cycle_of_links_ends(scan, tmp_path):
    path = replaced(tmp_path / "s.cxi", scan, linked(h5py.SoftLink(f"/{DATA}")))
    with pytest.raises(InputError, match="entry_1/data_1/data is a link that leads nowhere"):
        read_scan(path)
    whole = test_formats_cxi.write(tmp_path / "t.cxi", scan)
    with h5py.File(whole, "a") as file:
        file["me"] = h5py.SoftLink("/me")
    assert len(read_scan(whole)) == 20


@pytest.mark.parametrize("names", [(DATA,), (DATA, "other")])
def test_a_virtual_dataset_of_itself_is_refused_and_others_are_read(scan, tmp_path, names):
    path = test_formats_cxi.write(tmp_path / "s.cxi", scan, **{DATA: None})
    with h5py.File(path, "a") as file:
        for name, source in zip(names, (*names[1:], names[0]), strict=True):
            layout = h5py.VirtualLayout((20, 16, 16), np.uint32)
            layout[:] = h5py.VirtualSource(".", source, (20, 16, 16))
            file.create_virtual_dataset(name, layout)
    with pytest.raises(InputError, match="is a virtual dataset of itself, expected other data"):
        read_scan(path)
    # In another thread, which an error inside of h5py would lock out for ever.
    other = test_formats_cxi.write(tmp_path / "t.cxi", scan)
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(read_scan, other).result(timeout=60)) == 20


def test_declared_sizes_are_compared_with_the_machine(scan, tmp_path):
    path = test_formats_cxi.write(tmp_path / "s.cxi", scan, **{DATA: None, TRANSLATION: None})
    with h5py.File(path, "a") as file:
        file.create_dataset(DATA, (10**12, 16, 16), np.uint32, chunks=(1, 16, 16))
        file.create_dataset(TRANSLATION, (10**12, 3), chunks=(1000, 3))
    with pytest.raises(InputError, match=r"translation declares .* GiB, expected at most"):
        read_scan(path)


def test_enormous_frames_need_a_crop(scan, tmp_path):
    path = test_formats_cxi.write(tmp_path / "s.cxi", scan, **{DATA: None})
    with h5py.File(path, "a") as file:
        file.create_dataset(DATA, (20, 40000, 40000), np.uint32, chunks=(1, 1000, 1000))
    with pytest.raises(InputError, match=r"frames of 40000 x 40000 pixels.*--crop"):
        read_scan(path)


def npy_header(shape):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header


@pytest.mark.parametrize("shape", [(-1, 16, 16), (-2, -16, 16)])
def test_an_archive_that_declares_negative_sizes_is_refused(tmp_path, shape):
    with zipfile.ZipFile(tmp_path / "s.npz", "w") as archive:
        archive.writestr("data.npy", npy_header(shape).getvalue() + bytes(10_000))
        archive.writestr("scan.npy", npy_header((2, 2)).getvalue() + bytes(16))
    with pytest.raises(InputError, match=r"s\.npz: 'data' is damaged"):
        read_scan(tmp_path / "s.npz")


def test_an_archive_that_declares_more_than_it_holds_is_refused(scan, tmp_path):
    header = npy_header((10**12, 2, 2))
    with zipfile.ZipFile(tmp_path / "s.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", header.getvalue() + b"x" * 100)
        archive.writestr("scan.npy", header.getvalue())
    with pytest.raises(
        InputError, match=r"'data' is damaged: it declares 16000000000000 bytes, expected at most"
    ):
        read_scan(tmp_path / "s.npz")


def test_an_encrypted_archive_is_refused(scan, tmp_path):
    np.savez(tmp_path / "s.npz", data=counts(scan), scan=scan.positions)
    content = bytearray((tmp_path / "s.npz").read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(signature)
        while start >= 0:
            content[start + offset] |= 1
            start = content.find(signature, start + 4)
    (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"'data' is damaged \(File .*data\.npy.* is encrypted"):
        read_scan(tmp_path / "s.npz")


def test_a_pattern_without_a_valid_pixel_is_left_out_and_not_masked(scan, tmp_path):
    broken = counts(scan).astype(np.float64)
    broken[5] = np.nan
    np.savez(tmp_path / "s.npz", data=broken, positions=scan.positions)
    back = read_scan(tmp_path / "s.npz", options=MAPPED)
    with pytest.raises(
        InputError, match=r"\[5\] holds no valid photons, 256 of its .*: --min-photons 1 leaves"
    ):
        np.asarray(back.diffraction)
    back = read_scan(tmp_path / "s.npz", options=MAPPED.model_copy(update={"min_photons": 1.0}))
    np.testing.assert_allclose(back.diffraction, np.sqrt(np.delete(counts(scan), 5, axis=0)), rtol=1e-6)
