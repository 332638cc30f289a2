"""Files laid out as ptychodus 1.7 writes them, by this test; the last test asks ptychodus itself, where installed."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward

PIXEL, CENTRE = 2e-8, (3.2e-6, -1.7e-6)  # centre (row, column) of the object in metres
ORDER = np.random.default_rng(8).permutation(20)


def metres(scan, truth):
    """(y, x) of the windows' geometric middles."""
    middles = scan.positions - 8 + 7.5
    return np.array(CENTRE) + PIXEL * (middles - (np.array(truth.shape) - 1) / 2)


def write(folder, scan, truth, probe, **changes):
    """diffraction.h5 and product.h5; patterns in another order than positions, two of which have no pattern."""
    folder.mkdir(exist_ok=True)
    y, x = metres(scan, truth).T
    counts = scan.diffraction.astype(np.float64) ** 2
    bad = np.zeros((16, 16), dtype=bool)
    bad[2, 3] = True
    counts[:, 2, 3] = np.nan
    rows = ORDER[:18]
    content = {
        "diffraction.h5/patterns": counts[rows],
        "diffraction.h5/indexes": 7 + rows,
        "diffraction.h5/bad_pixels": bad,
        "product.h5/probe_position_indexes": 7 + np.arange(20),
        "product.h5/probe_position_x_m": x,
        "product.h5/probe_position_y_m": y,
        "product.h5/probe": np.stack([probe, 0 * probe]) * 1e-4,
        "product.h5/object": truth[None],
        "product.h5/object_layer_spacing_m": np.zeros(0),
        "product.h5/@photon_energy_eV": 8000.0,
    } | changes
    for name in ("diffraction.h5", "product.h5"):
        with h5py.File(folder / name, "w") as file:
            for key, value in content.items():
                if key.startswith(f"{name}/@"):
                    file.attrs[key.removeprefix(f"{name}/@")] = value
                elif key.startswith(name) and value is not None:
                    file[key.removeprefix(f"{name}/")] = value
            if "object" in file:
                known = {"pixel_width_m": PIXEL, "pixel_height_m": PIXEL}
                file["object"].attrs.update(known | {"center_y_m": CENTRE[0], "center_x_m": CENTRE[1]})
    return folder


def test_several_positions_of_one_index_are_averaged(scan, truth, probe, explains, tmp_path):
    y, x = (np.repeat(values, 3) for values in metres(scan, truth).T)
    folder = write(
        tmp_path / "s",
        scan,
        truth,
        probe,
        **{
            "product.h5/probe_position_indexes": np.repeat(7 + np.arange(20), 3),
            "product.h5/probe_position_x_m": x,
            "product.h5/probe_position_y_m": y + PIXEL * np.tile([-0.5, 0.0, 0.5], 20),
        },
    )
    lines = []
    explains(read_scan(folder / "product.h5", log=lines.append))
    assert "positions: mean of 3 to 3 with the same index" in lines


@pytest.mark.parametrize("name", ["diffraction.h5", "product.h5"])
def test_either_file_gives_the_scan(scan, truth, probe, explains, tmp_path, name):
    back = read_scan(write(tmp_path / "s", scan, truth, probe) / name)
    explains(back)
    np.testing.assert_allclose(back.positions, scan.positions[ORDER[:18]], atol=1e-6)
    assert np.argwhere(~back.mask).tolist() == [[2, 3]]
    assert back.pixel_size == PIXEL
    assert back.wavelength == pytest.approx(1.5498e-10, rel=1e-4)


@pytest.mark.parametrize("energy", [8.8, 8800.0])
def test_an_energy_that_may_be_in_kilo_electron_volts_is_named(scan, truth, probe, tmp_path, energy):
    changes = {"product.h5/@photon_energy_eV": energy, "product.h5/@detector_object_distance_m": -2.1}
    lines = []
    back = read_scan(write(tmp_path / "s", scan, truth, probe, **changes) / "product.h5", log=lines.append)
    named = [line for line in lines if line.startswith("energy")]
    expected = "energy: 8.8 eV; is it in keV? Then it is --wavelength 1.40891e-10"
    assert named == ([expected] if energy == 8.8 else [])
    assert back.distance == 2.1


def test_the_companion_may_be_anywhere(scan, truth, probe, explains, tmp_path):
    folder = write(tmp_path / "s", scan, truth, probe)
    moved = (folder / "product.h5").rename(tmp_path / "result.h5")
    with pytest.raises(
        InputError, match=r"no file .*product\.h5 next to it, expected the product.*--companion"
    ):
        read_scan(folder / "diffraction.h5")
    explains(read_scan(folder / "diffraction.h5", options=ReadOptions(companion=moved)))


@pytest.mark.parametrize("left_out", [[0, 5], list(range(1, 17))])
def test_patterns_without_position_are_left_out(scan, truth, probe, explains, tmp_path, left_out):
    y, x = metres(scan, truth).T
    keep = np.array([i for i in range(20) if i not in ORDER[left_out]])
    changes = {
        "product.h5/probe_position_indexes": 7 + keep,
        "product.h5/probe_position_x_m": x[keep],
        "product.h5/probe_position_y_m": y[keep],
    }
    back = read_scan(write(tmp_path / "s", scan, truth, probe, **changes) / "product.h5")
    explains(back)
    kept = [row for row in ORDER[:18] if row in keep]
    np.testing.assert_allclose(back.positions, scan.positions[kept], atol=1e-6)


def test_layers_are_multiplied(scan, truth, probe, explains, tmp_path):
    layers = np.stack([truth**0.5, truth**0.5])
    explains(
        read_scan(write(tmp_path / "s", scan, truth, probe, **{"product.h5/object": layers}) / "product.h5")
    )


def test_training_data_are_read(scan, truth, probe, explains, tmp_path):
    middles = scan.positions - 0.5
    with h5py.File(tmp_path / "training.h5", "w") as file:
        file["patterns"] = scan.diffraction.astype(np.float64) ** 2
        file["bad_pixels"] = np.zeros((16, 16), dtype=bool)
        file["probe"], file["object"] = probe * 3, truth
        file["probe_position_y_px"], file["probe_position_x_px"] = middles.T
        file["object_pixel_width_m"] = file["object_pixel_height_m"] = PIXEL
        file["photon_energy_eV"] = 8000.0
    back = read_scan(tmp_path / "training.h5")
    explains(back)
    np.testing.assert_allclose(back.positions, scan.positions)
    assert back.pixel_size == PIXEL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"product.h5/probe_position_x_m": np.zeros(19)}, r"probe_position_x_m has shape \(19,\)"),
        ({"product.h5/probe_position_x_m": np.full(20, np.nan)}, r"positions\[0\] is NaN"),
        ({"product.h5/probe_position_y_m": None}, "probe_position_y_m or probe_position_indexes"),
        ({"product.h5/probe_position_indexes": np.arange(20) + 500}, "no entry of probe_position_indexes"),
        ({"product.h5/probe_position_indexes": np.zeros(20, int)}, "repetitions, expected"),
        ({"product.h5/probe": np.ones((16, 16))}, "probe is float64, expected complex"),
        ({"product.h5/probe": np.ones((8, 8), complex)}, "the probe has 8 x 8 pixels, the patterns have"),
        ({"product.h5/object": None}, "no dataset object"),
        ({"product.h5/object": np.ones((2, 2, 2, 2), complex)}, r"object has shape \(2, 2, 2, 2\)"),
        ({"product.h5/@photon_energy_eV": -3.0}, "photon_energy_eV is -3.0, expected one positive energy"),
        ({"diffraction.h5/patterns": np.ones((3, 16, 16))}, r"shape \(3, 16, 16\), expected \(18"),
        ({"diffraction.h5/patterns": np.ones((18, 16, 15))}, "expected square"),
        ({"diffraction.h5/bad_pixels": np.zeros((16, 16), int)}, "expected bool"),
        (
            {"diffraction.h5/bad_pixels": np.zeros((16, 16), bool)},
            r"patterns\[0\] has 1 pixels that are negative, NaN",
        ),
    ],
)
def test_broken_content_is_refused(scan, truth, probe, tmp_path, changes, message):
    path = write(tmp_path / "s", scan, truth, probe, **changes) / "diffraction.h5"
    with pytest.raises(InputError, match=message) as error:
        np.asarray(read_scan(path).diffraction)
    assert ".h5" in str(error.value)


def test_ptychodus_own_simulation_agrees_with_ours(truth, probe, scan, tmp_path):
    io = pytest.importorskip("ptychodus.api.io", reason="ptychodus is not installed")
    from ptychodus.api.geometry import PixelGeometry
    from ptychodus.api.object import Object, ObjectCenter
    from ptychodus.api.probe import ProbeSequence
    from ptychodus.api.probe_positions import ProbePosition, ProbePositionSequence
    from ptychodus.api.product import Product, ProductMetadata
    from ptychodus.api.simulate.diffraction import generate_diffraction_data

    # Half a nanopixel keeps ptychodus from rounding a window's corner down.
    y, x = (metres(scan, truth) + 1e-9 * PIXEL).T
    numbers = {"exposure_time_s": 1.0, "mass_attenuation_m2_per_kg": 0.0, "tomography_angle_deg": 0.0}
    square = PixelGeometry(PIXEL, PIXEL)
    product = Product(
        ProductMetadata("known", "", 200.0, 8000.0, 1e5, **numbers),
        ProbePositionSequence([ProbePosition(i, x[i], y[i]) for i in range(20)]),
        ProbeSequence(probe[None], None, square),
        Object(truth, square, ObjectCenter(CENTRE[1], CENTRE[0])),
        [],
    )
    io.save_product(tmp_path / "product.h5", product)
    io.save_diffraction_data(tmp_path / "diffraction.h5", generate_diffraction_data(product))
    back = read_scan(tmp_path / "product.h5")
    patches = cut_windows(back.reference.object, back.positions, back.size)
    measured = np.asarray(back.diffraction)
    assert np.abs(forward(patches, back.probe) - measured).max() < 1e-4 * measured.max()
