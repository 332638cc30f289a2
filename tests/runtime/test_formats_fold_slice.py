from __future__ import annotations

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan

PIXEL = 2e-8


def write(folder, scan, truth, probe, *, kind="network", **changes):
    """`<folder>/s_dp.hdf5` and `s_para.hdf5`, positions in metres from the middle of the object."""
    middle = (np.array(truth.shape) - 1) / 2
    y, x = ((scan.positions - 0.5 - middle) * PIXEL).T
    content = {"s_dp.hdf5/dp": scan.diffraction.astype(np.float64) ** 2}
    if kind == "network":
        content |= {
            "s_para.hdf5/probe_position_x_m": x,
            "s_para.hdf5/probe_position_y_m": y,
            "s_para.hdf5/probe": probe[None] * 7,
            "s_para.hdf5/object": truth[None],
        }
    else:
        content |= {
            # The sign of fold_slice's own reader, `hdf5_pos_aps.m`.
            "s_para.hdf5/ppX": -x[None],
            "s_para.hdf5/ppY": -y[None],
            "s_para.hdf5/dx": PIXEL,
            "s_para.hdf5/lambda": 1.5e-10,
        }
    for name, value in (content | changes).items():
        file_name, key = name.split("/")
        with h5py.File(folder / file_name, "a") as file:
            if value is not None:
                file[key] = value
                if key == "object":
                    file[key].attrs["pixel_height_m"] = file[key].attrs["pixel_width_m"] = PIXEL
    return folder / "s_dp.hdf5"


@pytest.mark.parametrize("kind", ["network", "fold_slice"])
@pytest.mark.parametrize("named", ["s_dp.hdf5", "s_para.hdf5"])
def test_either_file_gives_the_scan(scan, truth, probe, explains, tmp_path, kind, named):
    write(tmp_path, scan, truth, probe, kind=kind)
    back = read_scan(tmp_path / named)
    explains(back)
    assert back.pixel_size == PIXEL
    assert (back.reference is None) == (kind == "fold_slice")
    assert (back.wavelength is None) == (kind == "network")


@pytest.mark.parametrize("prefix", ["", "ptychodus_"])
@pytest.mark.parametrize("kind", ["dp", "para"])
def test_pairs_of_pty_chi_are_no_products_of_ptychodus(scan, truth, probe, explains, tmp_path, prefix, kind):
    indexes = {"s_para.hdf5/probe_position_indexes": np.arange(20)}
    write(tmp_path, scan, truth, probe, **indexes)
    for name in ("dp", "para"):
        (tmp_path / f"s_{name}.hdf5").rename(tmp_path / f"{prefix}{name}.hdf5")
    explains(read_scan(tmp_path / f"{prefix}{kind}.hdf5"))


def test_a_shifted_object_is_no_reference(scan, truth, probe, tmp_path):
    path = write(tmp_path, scan, truth, probe, **{"s_para.hdf5/object": truth[None, 20:]})
    lines = []
    back = read_scan(path, log=lines.append)
    assert back.reference is None
    assert any("positions leave its 20 x 52 pixels" in line for line in lines)
    np.testing.assert_allclose(np.diff(back.positions, axis=0), np.diff(scan.positions, axis=0), atol=1e-6)


def test_the_other_file_may_have_any_name(scan, truth, probe, explains, tmp_path):
    path = write(tmp_path, scan, truth, probe)
    (tmp_path / "s_para.hdf5").rename(tmp_path / "other.h5")
    with pytest.raises(InputError, match=r"no file .*s_para\.hdf5 next to it, expected positions"):
        read_scan(path)
    explains(read_scan(path, options=ReadOptions(companion=tmp_path / "other.h5")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"s_para.hdf5/probe_position_x_m": np.zeros(19)}, r"shape \(19,\) and probe_position_y_m \(20,\)"),
        ({"s_para.hdf5/probe_position_x_m": np.full(20, np.inf)}, r"positions\[0\] is NaN"),
        ({"s_dp.hdf5/dp": np.ones((19, 16, 16))}, r"\(20, 2\), expected \(19, 2\)"),
        ({"s_dp.hdf5/dp": np.ones((20, 16, 15))}, "expected square"),
        ({"s_para.hdf5/object": None}, "no pixel size"),
        ({"s_para.hdf5/probe": np.ones((16, 16))}, "expected complex"),
    ],
)
def test_broken_content_is_refused(scan, truth, probe, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_scan(write(tmp_path, scan, truth, probe, **changes))
