"""Reconstructions as files of other programs."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
import tifffile

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_reference
from ptychonnx.runtime.formats.writers.reconstruction_file import (
    ENDINGS,
    ENDINGS_OF_TILES,
    Product,
    check_ending,
    write_product,
)
from ptychonnx.runtime.reconstruction.misfit import Misfit
from ptychonnx.runtime.reconstruction.stitching import Stitched, Stitcher, patch_weight
from ptychonnx.runtime.reconstruction.uncertainty import Uncertainty
from ptychonnx.runtime.scan.forward_model import cut_windows

ORIGIN = (3.0, 5.0)


@pytest.fixture
def product(scan, truth) -> Product:
    known = truth[3:, 5:]
    return Product(Stitched(known, np.ones(known.shape), ORIGIN), scan, "probe", '{"label": "known"}')


@pytest.mark.parametrize("name", ["o.h5", "o.hdf5", "o.cxi", "o.npz"])
def test_a_written_object_is_a_reference_again(product, scan, tmp_path, name):
    assert write_product(tmp_path / name, product) == [tmp_path / name]
    back = read_reference(tmp_path / name, scan)
    np.testing.assert_array_equal(back.object, product.stitched.object)
    assert back.origin == ORIGIN
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_product_holds_what_ptychodus_asks_for(product, scan, probe, tmp_path):
    write_product(tmp_path / "o.h5", product)
    with h5py.File(tmp_path / "o.h5") as file:
        known, light = file["object"], file["probe"]
        pixel, rows, columns = known.attrs["pixel_width_m"], *known.shape
        assert pixel == known.attrs["pixel_height_m"] == light.attrs["pixel_width_m"] == scan.pixel_size
        np.testing.assert_array_equal(light[()], probe[None])
        # ptychodus: position in pixels of the object, of the geometric middle of the window.
        y = (file["probe_position_y_m"][()] - known.attrs["center_y_m"]) / pixel + (rows - 1) / 2
        x = (file["probe_position_x_m"][()] - known.attrs["center_x_m"]) / pixel + (columns - 1) / 2
        corners = np.stack([y, x], axis=1) - (scan.size - 1) / 2
        np.testing.assert_allclose(corners, scan.positions - scan.size // 2 - ORIGIN, atol=1e-6)
        assert file.attrs["photon_energy_eV"] == pytest.approx(1.23984198e-6 / scan.wavelength)
        assert file.attrs["detector_object_distance_m"] == 0
        assert file.attrs["contract"] == product.contract
        assert {"probe_position_indexes", "object_layer_spacing_m", "loss_epochs", "loss_values"} <= set(file)


def test_the_uncertainty_is_in_every_format(product, tmp_path):
    shape = product.stitched.shape
    amplitude, phase, wide, wider = (np.full(shape, value, np.float32) for value in (0.1, 0.2, 0.3, 0.5))
    amplitude[0] = np.nan
    known = replace(
        product, uncertainty=Uncertainty(amplitude, phase, wide, wider, members=4, calibrated=False)
    )
    for name, place in (("o.h5", "entry/uncertainty"), ("o.cxi", "entry_1/uncertainty")):
        write_product(tmp_path / name, known)
        with h5py.File(tmp_path / name) as file:
            assert (file[place].attrs["members"], file[place].attrs["calibrated"]) == (4, False)
            np.testing.assert_array_equal(file[place]["amplitude/amplitude"], amplitude)
            np.testing.assert_array_equal(file[place]["phase/half_width_95"], wider)
            assert file[place]["phase/phase"].attrs["units"] == "rad"
    write_product(tmp_path / "o.npz", known)
    with np.load(tmp_path / "o.npz") as file:
        np.testing.assert_array_equal(file["uncertainty_phase"], phase)
        np.testing.assert_array_equal(file["uncertainty_amplitude_95"], wide)
    files = write_product(tmp_path / "o.tif", known)
    assert files[2:] == [tmp_path / f"o_{name}_uncertainty.tif" for name in ("amplitude", "phase")]
    np.testing.assert_array_equal(tifffile.imread(files[2]), amplitude)


@pytest.mark.parametrize("pixel_size", [None, 2e-8])
def test_the_misfit_is_a_scatter_plot_over_the_positions(product, scan, tmp_path, pixel_size):
    nxdata = pytest.importorskip("silx.io.nxdata")
    patterns = np.array([0, 3, 7])
    values, positions = np.array([0.1, 0.3, 0.2]), scan.positions[patterns]
    misfit = Misfit(0.22, 0.9, 0.3, patterns, values, positions)
    mapped = replace(product, scan=replace(scan, pixel_size=pixel_size), misfit=misfit)
    for name, place in (("o.h5", "entry/misfit"), ("o.cxi", "entry_1/misfit")):
        write_product(tmp_path / name, mapped)
        with h5py.File(tmp_path / name) as file:
            plot = nxdata.NXdata(file[place])
            assert plot.is_valid
            assert plot.is_scatter
            x, y = plot.axes
            scale = 1 if pixel_size is None else 0.02
            np.testing.assert_allclose(np.stack([y[()], x[()]], axis=1), positions * scale)
            np.testing.assert_array_equal(plot.signal[()], values)
            np.testing.assert_array_equal(file[place]["pattern"][()], patterns)
            assert file[place].attrs["total"] == 0.22
            assert file[place].attrs["verdict"] == "doubtful"
    write_product(tmp_path / "o.npz", mapped)
    with np.load(tmp_path / "o.npz") as file:
        np.testing.assert_array_equal(file["misfit"], values)
        np.testing.assert_array_equal(file["misfit_pattern"], patterns)


def test_without_pixel_size_nothing_is_said_in_metres(product, scan, tmp_path):
    bare = replace(product, scan=replace(scan, pixel_size=None, wavelength=None, probe=None))
    for name in ("o.h5", "o.cxi"):
        write_product(tmp_path / name, bare)
        names = []
        with h5py.File(tmp_path / name) as file:
            file.visit(names.append)
        assert not [n for n in names if "position" in n or "translation" in n or n.endswith("_m")]
        assert read_reference(tmp_path / name, scan).origin == ORIGIN


def test_a_cxi_file_has_object_probe_and_positions(product, scan, probe, tmp_path):
    write_product(tmp_path / "o.cxi", product)
    with h5py.File(tmp_path / "o.cxi") as file:
        assert file["cxi_version"][()] == 160
        np.testing.assert_array_equal(file["entry_1/image_2/data"][()], product.stitched.object)
        np.testing.assert_array_equal(file["entry_1/image_1/data"][()], probe[None])
        size = file["entry_1/image_2/image_size"][()]
        np.testing.assert_allclose(size, [47 * scan.pixel_size, 37 * scan.pixel_size, 0])
        moved = file["entry_1/data_1/translation"][()]
        np.testing.assert_allclose(
            np.ptp(moved, axis=0)[1::-1] / scan.pixel_size, np.ptp(scan.positions, axis=0)
        )
        assert file["entry_1/instrument_1/source_1/energy"][()] == pytest.approx(
            1.98644586e-25 / scan.wavelength
        )


@pytest.mark.parametrize(("name", "entry"), [("o.h5", "entry"), ("o.cxi", "entry_1")])
@pytest.mark.parametrize("pixel_size", [2e-8, None])
def test_silx_plots_amplitude_and_phase_on_opening(product, scan, tmp_path, name, entry, pixel_size):
    nxdata = pytest.importorskip("silx.io.nxdata")
    weight = product.stitched.weight.copy()
    weight[:4] = 0
    stitched = replace(product.stitched, weight=weight)
    write_product(
        tmp_path / name, replace(product, stitched=stitched, scan=replace(scan, pixel_size=pixel_size))
    )
    with h5py.File(tmp_path / name) as file:
        assert nxdata.is_NXroot_with_default_NXdata(file)
        assert nxdata.get_default(file).group.name == f"/{entry}/phase"
        for kind, expected in (("amplitude", np.abs), ("phase", np.angle)):
            plot = nxdata.NXdata(file[f"{entry}/{kind}"])
            assert plot.is_valid
            assert plot.is_image
            assert (plot.title, plot.signal_name) == (f"{kind.capitalize()} of known", kind)
            np.testing.assert_allclose(plot.signal[4:], expected(stitched.object[4:]), rtol=1e-6)
            assert np.isnan(plot.signal[:4]).all()
            assert plot.axes_dataset_names == ["y", "x"]
            step = 1.0 if pixel_size is None else 1e6 * pixel_size
            for axis, first, length in zip(plot.axes, ORIGIN, stitched.shape, strict=True):
                np.testing.assert_allclose(axis, (first + np.arange(length)) * step)
                assert axis.attrs["units"] == ("pixel" if pixel_size is None else "um")
        assert file[f"{entry}/phase/phase"].attrs["units"] == "rad"


@pytest.fixture
def pair(truth, positions) -> list[Stitched]:
    """The same object of 330 x 620 pixels in memory and in tiles; most of it is not covered."""
    far = np.concatenate([positions, positions + [290, 5], positions + [7, 560]])
    patches = np.tile(cut_windows(truth, positions, 16), (3, 1, 1))
    made = []
    for memory in (None, 1):
        stitcher = Stitcher(far, patch_weight("window", 16), memory=memory)
        stitcher.add(patches, far)
        made.append(stitcher.result())
    return made


@pytest.mark.parametrize("name", [f"o{ending}" for ending in ENDINGS_OF_TILES])
def test_tiles_make_the_file_that_the_whole_object_makes(product, scan, pair, tmp_path, name):
    whole, tiled = (replace(product, stitched=stitched) for stitched in pair)
    write_product(tmp_path / f"whole_{name}", whole)
    write_product(tmp_path / f"tiled_{name}", tiled)
    with h5py.File(tmp_path / f"whole_{name}") as first, h5py.File(tmp_path / f"tiled_{name}") as second:
        names: list[str] = []
        first.visit(names.append)
        assert {"weight", "entry_1/ptychonnx/weight"} & set(names)
        for key in names:
            one, other = (
                {k: np.asarray(v).tolist() for k, v in file[key].attrs.items()} for file in (first, second)
            )
            assert one == other
            if isinstance(first[key], h5py.Dataset):
                np.testing.assert_array_equal(first[key][()], second[key][()])
    back = read_reference(tmp_path / f"tiled_{name}", scan)
    np.testing.assert_array_equal(back.object, whole.stitched.object)
    assert back.origin == tiled.stitched.origin == whole.stitched.origin


def test_what_no_patch_reached_takes_no_space(product, pair, tmp_path):
    write_product(tmp_path / "o.h5", replace(product, stitched=pair[1]))
    with h5py.File(tmp_path / "o.h5") as file:
        # 2 x 3 tiles of 256 pixels, of which one in each row has nothing.
        assert file["object"].id.get_num_chunks() == file["weight"].id.get_num_chunks() == 3
        assert file["entry/phase/phase"].id.get_num_chunks() == 3


@pytest.mark.parametrize("ending", sorted({*ENDINGS} - {*ENDINGS_OF_TILES}))
def test_formats_that_need_the_whole_object_refuse_tiles(product, pair, tmp_path, ending):
    with pytest.raises(InputError, match=r"is kept in tiles: write it to \.h5 or \.cxi"):
        write_product(tmp_path / f"o{ending}", replace(product, stitched=pair[1]))
    assert not list(tmp_path.iterdir())


def test_an_npz_file_needs_no_pickle(product, scan, tmp_path):
    write_product(tmp_path / "o.npz", product)
    with np.load(tmp_path / "o.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["positions"], scan.positions)
        assert file["pixel_size"] == scan.pixel_size
        assert str(file["contract"]) == product.contract


def test_a_tiff_pair_gives_the_object_back(product, scan, tmp_path):
    amplitude, phase = write_product(tmp_path / "o.tif", product)
    assert (amplitude.name, phase.name) == ("o_amplitude.tif", "o_phase.tif")
    back = tifffile.imread(amplitude) * np.exp(1j * tifffile.imread(phase))
    np.testing.assert_allclose(back, product.stitched.object, atol=1e-6)
    with tifffile.TiffFile(phase) as file:
        tags = file.pages[0].tags
        numerator, denominator = tags["XResolution"].value
        assert tags["ResolutionUnit"].value.name == "CENTIMETER"
        assert denominator / numerator * 1e-2 == pytest.approx(scan.pixel_size, rel=1e-3)


def test_other_endings_are_refused(product, tmp_path):
    for name in ("o.png", "o"):
        with pytest.raises(InputError, match=rf"{name}: expected a name that ends in \.h5, "):
            check_ending(tmp_path / name)
        with pytest.raises(InputError, match="expected a name that ends"):
            write_product(tmp_path / name, product)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["h5", "cxi"])
@pytest.mark.parametrize("known_probe", [True, False])
def test_ptychodus_opens_it(product, scan, tmp_path, form, known_probe):
    io = pytest.importorskip("ptychodus.api.io", reason="ptychodus is not installed")
    cxi = pytest.importorskip("ptychodus.plugins.cxi_file")
    if not known_probe:
        product = replace(product, scan=replace(scan, probe=None))
    path = write_product(tmp_path / f"o.{form}", product)[0]
    opened = io.load_product(path) if form == "h5" else cxi.CXIProductFileIO().read(path)
    np.testing.assert_array_equal(opened.object_.get_layer(0), product.stitched.object)
    geometry = opened.object_.get_geometry()
    y = geometry.map_probe_positions_to_object_y_px(opened.probe_positions)
    x = geometry.map_probe_positions_to_object_x_px(opened.probe_positions)
    corners = np.stack([y, x], axis=1) - (scan.size - 1) / 2
    np.testing.assert_allclose(corners, scan.positions - scan.size // 2 - ORIGIN, atol=1e-6)
    assert opened.metadata.photon_energy_eV == pytest.approx(1.23984198e-6 / scan.wavelength, rel=1e-6)
