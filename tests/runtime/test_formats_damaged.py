"""Scan files damaged at random are refused in one line or read, never answered with a traceback, whatever the damage.

`PTYCHONNX_HOSTILE=1000` makes as many damaged files of each kind; the default is a sample.
"""

from __future__ import annotations

import os
import random
import shutil

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import PtychonnxError
from ptychonnx.runtime.formats import ReadOptions, read_scan, write_scan
from tests.runtime import (
    test_formats_cxi,
    test_formats_fold_slice,
    test_formats_nexus,
    test_formats_other_programs,
    test_formats_ptychodus,
    test_formats_ptyd,
)

NUMBER = int(os.environ.get("PTYCHONNX_HOSTILE", "12"))
MAPPING = {"patterns": "e/d", "positions": "p", "probe": "probe", "mask": "m", "pixel_size": "px"}


def mapped(path, scan):
    with h5py.File(path, "w") as file:
        file["e/d"], file["p"] = scan.diffraction**2, scan.positions
        file["probe"], file["m"], file["px"] = scan.probe, scan.mask, 2e-8
    return path


def archive(path, **arrays):
    np.savez(path, **arrays)
    return path


def native(path, scan):
    write_scan(path, scan)
    return path


def ptychopinn(path, scan, truth):
    row, column = scan.positions.T
    return archive(
        path,
        diffraction=scan.diffraction,
        xcoords=column,
        ycoords=row,
        probeGuess=scan.probe,
        objectGuess=truth,
        Y=scan.labels,
    )


def tike(path, scan):
    corner = np.fft.ifftshift(scan.diffraction**2, axes=(1, 2))
    return archive(path, data=corner, scan=scan.positions - 8, probe=scan.probe)


FILES = {
    "CXI": lambda folder, s, o, q: test_formats_cxi.write(folder / "s.cxi", s),
    "NeXus": lambda folder, s, o, q: test_formats_nexus.write(folder / "s.nxs", s),
    "ptypy": lambda folder, s, o, q: test_formats_ptyd.write(folder / "s.ptyd", s, parts=(1, 12, 7)),
    "ptychodus": lambda folder, s, o, q: test_formats_ptychodus.write(folder, s, o, q) / "product.h5",
    "fold_slice": lambda folder, s, o, q: test_formats_fold_slice.write(folder, s, o, q),
    "NSLS-II": lambda folder, s, o, q: test_formats_other_programs.nsls2(folder / "s.h5", s),
    "mapped": lambda folder, s, o, q: mapped(folder / "s.h5", s),
    "ptychonnx": lambda folder, s, o, q: native(folder / "s.npz", s),
    "PtychoPINN": lambda folder, s, o, q: ptychopinn(folder / "s.npz", s, o),
    "tike": lambda folder, s, o, q: tike(folder / "s.npz", s),
}


def strange(value, chance):
    """Another array in the place of one."""
    value = np.asarray(value)
    real = value.real.astype(np.float64) if value.dtype.kind in "biufc" else np.zeros(value.shape)
    return chance.choice(
        [
            real * np.nan,
            real * 1e300,
            -real,
            real[:0] if real.ndim else np.zeros(0),
            real[: len(real) // 2] if real.ndim else real,
            real[..., None],
            real.ravel(),
            real.T,
            real * 1j,
            np.zeros(real.shape, dtype=[("a", "<f4"), ("b", "<i4")]),
            np.zeros(real.shape, dtype="S8"),
            np.array(0.0),
        ]
    )


def damage_bytes(path, chance):
    content = bytearray(path.read_bytes())
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(min(len(content), 4000) if chance.random() < 0.6 else len(content))
        content[place : place + 8] = chance.choice(
            [bytes(8), chance.randbytes(8), content[place : place + 1]]
        )
    path.write_bytes(content[: chance.choice([len(content), len(content), max(8, place)])])


def damage_arrays(path, chance):
    with np.load(path) as archive:
        arrays = dict(archive)
    key = chance.choice(sorted(arrays))
    arrays[key] = strange(arrays[key], chance)
    np.savez(path, **{k: v for k, v in arrays.items() if k != key or chance.random() < 0.8})


def damage_datasets(path, chance):
    with h5py.File(path, "a") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        if not names:
            return
        name = chance.choice(names)
        value, attributes = file[name][()], dict(file[name].attrs)
        kind = chance.choice(["value", "value", "attribute", "link", "gone", "group", "enormous"])
        if kind == "attribute":
            texts = [
                "eV",
                "",
                b"\xff\xfe",
                7,
                np.array([1, 2]),
                "furlong",
                np.nan,
                np.zeros(3),
                "False",
                -1.0,
            ]
            file[name].attrs[chance.choice([*attributes, "units"])] = chance.choice(texts)
            return
        del file[name]
        if kind == "value":
            file[name] = strange(value, chance)
            file[name].attrs.update(attributes)
        elif kind == "link":
            target = chance.choice(["/nowhere", f"/{name}", "/"])
            file[name] = chance.choice([h5py.SoftLink(target), h5py.ExternalLink("gone.h5", target)])
        elif kind == "group":
            file.create_group(name)
        elif kind == "enormous":
            shape = tuple(10**6 * length for length in np.shape(value)) or (10**12,)
            file.create_dataset(name, shape, np.float32, chunks=True)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", FILES)
def test_damaged_scan_files_never_end_in_a_traceback(kind, scan, truth, probe, tmp_path):
    chance = random.Random(kind)
    options = ReadOptions(mapping=MAPPING if kind == "mapped" else {})
    (tmp_path / "whole").mkdir()
    whole = FILES[kind](tmp_path / "whole", scan, truth, probe)
    refusals = []
    for number in range(NUMBER):
        shutil.copytree(tmp_path / "whole", tmp_path / str(number))
        target = chance.choice(sorted(path for path in (tmp_path / str(number)).iterdir() if path.is_file()))
        arrays = damage_arrays if target.suffix == ".npz" else damage_datasets
        chance.choice([damage_bytes, arrays, arrays])(target, chance)
        try:
            np.asarray(read_scan(tmp_path / str(number) / whole.name, options=options).diffraction)
        except PtychonnxError as error:
            refusals.append(str(error))
        shutil.rmtree(tmp_path / str(number))
    assert refusals
    assert not [line for line in refusals if "\n" in line or len(line) > 1500]
