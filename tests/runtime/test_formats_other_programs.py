"""Files as other programs and beamlines write them: scans, positions, probes and reference objects."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_reference, read_scan, write_scan
from ptychonnx.runtime.formats.readers.probe import read_probe

PIXEL = 2e-8


def counts(scan):
    return np.rint(scan.diffraction.astype(np.float64) ** 2).astype(np.uint32)


# Detectors and stages


def eiger(folder, scan, *, missing_middle=False):
    """A master file with links to three data files, the last of which was never written."""
    for number, rows in ((1, slice(0, 12)), (2, slice(12, 20))):
        if not (missing_middle and number == 1):
            with h5py.File(folder / f"fly_data_{number:06d}.h5", "w") as file:
                file["entry/data/data"] = counts(scan)[rows]
    with h5py.File(folder / "fly_master.h5", "w") as file:
        for number in (1, 2, 3):
            file[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(
                f"fly_data_{number:06d}.h5", "/entry/data/data"
            )
    np.savetxt(folder / "p.csv", scan.positions * PIXEL, delimiter=",", fmt="%.17g")
    return folder / "fly_master.h5"


def by_mapping(patterns="d", positions="p.csv", **values):
    return ReadOptions(mapping={"patterns": patterns, "positions": positions}, pixel_size=PIXEL, **values)


@pytest.mark.parametrize("name", ["entry/data", "entry/data/data_*", "entry/data/data_0*"])
def test_several_data_files_are_one_stack_in_order(scan, explains, tmp_path, name):
    lines = []
    back = read_scan(eiger(tmp_path, scan), options=by_mapping(name), log=lines.append)
    explains(back, tolerance=5e-3)
    assert len(back) == 20
    assert "patterns: data_000003 left out, which lead nowhere" in lines


def test_a_gap_between_data_files_is_refused(scan, tmp_path):
    with pytest.raises(InputError, match=r"entry/data/data_000001 is missing, expected"):
        read_scan(eiger(tmp_path, scan, missing_middle=True), options=by_mapping("entry/data"))


def table(path, positions, *, separator=",", header="", decimal="."):
    lines = [separator.join(f"{value:.12g}".replace(".", decimal) for value in row) for row in positions]
    path.write_text("\n".join([header, "", *lines]) + "\n")


@pytest.mark.parametrize(
    ("separator", "decimal"), [(",", "."), (";", "."), (";", ","), ("\t", "."), ("  ", ".")]
)
@pytest.mark.parametrize("header", ["", "y_m,x_m", "# stage positions", "row column"])
def test_tables_of_positions(scan, explains, tmp_path, separator, decimal, header):
    np.savez(tmp_path / "s.npz", d=counts(scan))
    table(
        tmp_path / "p.csv",
        scan.positions * PIXEL,
        separator=separator,
        decimal=decimal,
        header=header.replace(",", separator),
    )
    explains(read_scan(tmp_path / "s.npz", options=by_mapping()), tolerance=5e-3)


@pytest.mark.parametrize(
    "names", ["x_um,y_um", "stage x_um,stage y_um", "X (um),Y (um)", "samx_um,samy_um", "PosX (um),PosY (um)"]
)
@pytest.mark.parametrize("comment", ["", "# "])
def test_names_of_columns_state_their_order_and_unit(scan, explains, tmp_path, names, comment):
    np.savez(tmp_path / "s.npz", d=counts(scan))
    table(tmp_path / "p.csv", scan.positions[:, ::-1] * PIXEL * 1e6, header=comment + names)
    lines = []
    explains(read_scan(tmp_path / "s.npz", options=by_mapping(), log=lines.append), tolerance=5e-3)
    assert f"axes: column,row (by the names {names.replace(',', ', ')})" in lines
    assert f"unit: um (by the name {names.lower().partition(',')[0]})" in lines


def test_rows_and_columns_in_different_units_are_refused(scan, tmp_path):
    np.savez(tmp_path / "s.npz", d=counts(scan))
    table(tmp_path / "p.csv", scan.positions[:, ::-1] * PIXEL * [1e3, 1e6], header="x_mm,y_um")
    with pytest.raises(
        InputError, match="positions are in mm and um, expected one unit for rows and columns"
    ):
        read_scan(tmp_path / "s.npz", options=by_mapping())
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["d"] = counts(scan)
        for axis, values, unit in zip("yx", scan.positions.T * PIXEL, ("mm", "um"), strict=True):
            file[axis] = values / {"mm": 1e-3, "um": 1e-6}[unit]
            file[axis].attrs["units"] = unit
    mapping = {"patterns": "d", "x": "x", "y": "y"}
    with pytest.raises(InputError, match="positions are in um and mm"):
        read_scan(tmp_path / "s.h5", options=ReadOptions(mapping=mapping, pixel_size=PIXEL))


def test_a_table_with_a_hole_is_refused(scan, tmp_path):
    np.savez(tmp_path / "s.npz", d=counts(scan))
    for text, message in (
        ("1,2\n3\n", "line 2 has 1 columns, expected 2"),
        ("1,2\nx,3\n", "line 2 is no row"),
        ("1,2\n1_0,3\n", "line 2 is no row"),
    ):
        (tmp_path / "p.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            read_scan(tmp_path / "s.npz", options=by_mapping())


def test_encoder_samples_are_averaged_on_request(scan, explains, tmp_path):
    np.savez(tmp_path / "s.npz", d=counts(scan))
    offsets = np.array([[-0.5, 0], [0, 0], [0.5, 0]])
    table(tmp_path / "p.csv", ((scan.positions[:, None] + offsets) * PIXEL).reshape(-1, 2))
    with pytest.raises(InputError, match=r"p\.csv has shape \(60, 2\).*--average-positions averages 3"):
        read_scan(tmp_path / "s.npz", options=by_mapping())
    explains(read_scan(tmp_path / "s.npz", options=by_mapping(average_positions=True)), tolerance=5e-3)


def test_a_column_of_frames_states_the_order_and_what_is_averaged(scan, explains, tmp_path):
    np.savez(tmp_path / "s.npz", d=counts(scan))
    shuffled = np.random.default_rng(4).permutation(20)
    metres = scan.positions * PIXEL
    rows = np.column_stack([shuffled, metres[shuffled, 1], metres[shuffled, 0], np.ones(20)])
    table(tmp_path / "p.csv", rows, header="frame,x (m),y (m),current_mA")
    lines = []
    explains(read_scan(tmp_path / "s.npz", options=by_mapping(), log=lines.append), tolerance=5e-3)
    assert "positions: sorted by frame" in lines
    assert "axes: column,row (by the names x (m), y (m))" in lines
    # One to three samples for each frame, whose mean is its position.
    several = np.arange(20) % 3 + 1
    parts = [
        np.column_stack(
            [np.full(count, number), *(metres[number, axis] + PIXEL * offsets for axis in (0, 1))]
        )
        for number, count in enumerate(several.tolist())
        for offsets in [np.linspace(-1, 1, count) if count > 1 else np.zeros(1)]
    ]
    table(tmp_path / "p.csv", np.concatenate(parts), header="frame,row_m,column_m")
    with pytest.raises(InputError, match=r"p\.csv has 39 rows for 20 values of frame.*--average-positions"):
        read_scan(tmp_path / "s.npz", options=by_mapping())
    explains(read_scan(tmp_path / "s.npz", options=by_mapping(average_positions=True)), tolerance=5e-3)


@pytest.mark.parametrize("header", ["frame,a,b", "frame,x,x", "x,y,y_set"])
def test_a_table_whose_columns_are_unclear_is_refused(scan, tmp_path, header):
    np.savez(tmp_path / "s.npz", d=counts(scan))
    table(tmp_path / "p.csv", np.column_stack([np.arange(20), scan.positions]), header=header)
    with pytest.raises(
        InputError, match=rf"has the columns {header.replace(',', ', ')}, expected one named x"
    ):
        read_scan(tmp_path / "s.npz", options=by_mapping())


def test_more_positions_than_patterns_are_ignored_on_request(scan, explains, tmp_path):
    np.savez(tmp_path / "s.npz", d=counts(scan))
    table(tmp_path / "p.csv", np.concatenate([scan.positions, scan.positions[:3]]) * PIXEL)
    with pytest.raises(
        InputError, match=r"p\.csv has shape \(23, 2\).*--ignore-extra-positions takes the first 20"
    ):
        read_scan(tmp_path / "s.npz", options=by_mapping())
    explains(read_scan(tmp_path / "s.npz", options=by_mapping(ignore_extra_positions=True)), tolerance=5e-3)


def nsls2(path, scan, **changes):
    content = {
        "diffamp": np.fft.ifftshift(scan.diffraction, axes=(1, 2)),
        "points": scan.positions.T[::-1] * PIXEL * 1e6,
        "lambda_nm": 0.15,
        "z_m": 2.0,
        "ccd_pixel_um": 1.5e-10 * 2.0 / (16 * PIXEL) * 1e6,
    }
    with h5py.File(path, "w") as file:
        for name, value in (content | changes).items():
            file[name] = value
    return path


@pytest.mark.parametrize("shifted", [True, False])
def test_nsls2_files_are_read(scan, explains, tmp_path, shifted):
    changes = {} if shifted else {"diffamp": scan.diffraction}
    back = read_scan(nsls2(tmp_path / "s.h5", scan, **changes))
    explains(back)
    assert back.pixel_size == pytest.approx(PIXEL)
    assert back.wavelength == pytest.approx(1.5e-10)


def test_names_of_mapped_arrays_state_what_they_hold(scan, explains, tmp_path):
    lines = []
    mapping = {"patterns": "diffamp", "positions": "points", "wavelength": "lambda_nm"}
    chosen = ReadOptions(mapping=mapping, pixel_size=PIXEL, positions_unit="um", positions_axes="column,row")
    back = read_scan(nsls2(tmp_path / "s.h5", scan), options=chosen, log=lines.append)
    explains(back)
    assert back.wavelength == pytest.approx(1.5e-10)
    assert "quantity: amplitude (by the name diffamp)" in lines


@pytest.mark.parametrize("form", ["fold_slice", "mapped"])
def test_a_raster_is_described_by_shape_and_step(scan, tmp_path, form):
    with h5py.File(tmp_path / "s_dp.hdf5", "w") as file:
        file["dp"] = counts(scan)
    mapping = {"patterns": "dp"} if form == "mapped" else {}
    chosen = ReadOptions(mapping=mapping, raster=(4, 5), raster_step=3e-7, pixel_size=1e-7)
    back = read_scan(tmp_path / "s_dp.hdf5", options=chosen)
    np.testing.assert_allclose(back.positions - back.positions[0], np.indices((4, 5)).reshape(2, -1).T * 3.0)
    with pytest.raises(InputError, match="a raster of 4 x 4 points for 20 patterns"):
        read_scan(tmp_path / "s_dp.hdf5", options=chosen.model_copy(update={"raster": (4, 4)}))
    with pytest.raises(InputError, match=r"--raster and --raster-step"):
        read_scan(tmp_path / "s_dp.hdf5", options=chosen.model_copy(update={"raster_step": None}))


# PtychoPINN files that others write


def test_both_exports_of_ptychodus_are_the_same_scan(scan, truth, probe, explains, tmp_path):
    middles, bad = scan.positions - 0.5, ~scan.mask
    shared = {"bad_pixels": bad}
    row, column = middles.T
    np.savez(
        tmp_path / "p.npz",
        diff3d=counts(scan),
        xcoords=column,
        ycoords=row,
        probeGuess=probe,
        objectGuess=truth,
        **shared,
    )
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["patterns"], file["probe"], file["object"] = counts(scan), probe, truth
        file["probe_position_x_px"], file["probe_position_y_px"] = column, row
        file["bad_pixels"] = bad
    lines = []
    flat, training = read_scan(tmp_path / "p.npz", log=lines.append), read_scan(tmp_path / "t.h5")
    explains(flat, tolerance=5e-3)
    for name in ("positions", "mask", "diffraction", "probe"):
        np.testing.assert_allclose(getattr(flat, name), getattr(training, name), atol=1e-6)
    assert flat.reference.origin == training.reference.origin
    assert "quantity: counts (PtychoPINN convention)" in lines


def test_patterns_inside_a_product_are_read(scan, truth, probe, explains, tmp_path):
    with h5py.File(tmp_path / "product.h5", "w") as file:
        file["probe"], file["object"] = probe[0], truth
        file["object"].attrs.update(dict.fromkeys(("pixel_width_m", "pixel_height_m"), PIXEL))
        file["object"].attrs.update(dict.fromkeys(("center_x_m", "center_y_m"), 0.0))
        file["probe_position_indexes"] = np.zeros(20, int)
        row, column = scan.positions.T
        file["probe_position_x_m"], file["probe_position_y_m"] = column * PIXEL, row * PIXEL
        file["raw_data/diffraction"] = scan.diffraction
        file["raw_data/xcoords"], file["raw_data/ycoords"] = column, row
    lines = []
    back = read_scan(tmp_path / "product.h5", log=lines.append)
    explains(back)
    assert back.pixel_size == PIXEL
    assert "patterns: those inside the product; positions are paired with them by their order" in lines


# Probes and references

COMPOUND = np.dtype([("real", "<f4"), ("imag", "<f4")])


def matlab(array):
    """As MATLAB 7.3 stores complex numbers: compound, and column-major."""
    seen = np.swapaxes(array, -1, -2)
    stored = np.empty(seen.shape, COMPOUND)
    stored["real"], stored["imag"] = seen.real, seen.imag
    return stored


def hdf5(path, **content):
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file[name.replace("__", "/")] = value
    return path


PROBES = {
    "p.npz": lambda path, probe: np.savez(path, probe=probe),
    "guess.npz": lambda path, probe: np.savez(path, probeGuess=probe[0]),
    "p.npy": np.save,
    "product.h5": lambda path, probe: hdf5(path, probe=probe[None]),
    "recon.ptyr": lambda path, probe: hdf5(path, content__probe__SMFG00__data=probe),
    "recon.mat": lambda path, probe: hdf5(path, probe=matlab(probe)),
    "object.cxi": lambda path, probe: hdf5(path, entry_1__image_1__data=probe[None]),
    "scan.cxi": lambda path, probe: hdf5(path, entry_1__instrument_1__source_1__probe=probe[0]),
}


@pytest.mark.parametrize("name", PROBES)
def test_probes_of_other_programs(probe, tmp_path, name):
    PROBES[name](tmp_path / name, probe)
    np.testing.assert_allclose(read_probe(tmp_path / name), probe, rtol=1e-6)


def test_a_probe_in_the_corners_of_its_window_is_named(scan, probe, tmp_path):
    write_scan(tmp_path / "s.npz", scan)
    np.save(tmp_path / "shifted.npy", np.fft.fftshift(probe, axes=(-2, -1)))
    np.save(tmp_path / "whole.npy", probe)
    lines = []
    read_scan(tmp_path / "s.npz", probe=tmp_path / "whole.npy", log=lines.append)
    assert not any(line.startswith("probe:") for line in lines)
    read_scan(tmp_path / "s.npz", probe=tmp_path / "shifted.npy", log=lines.append)
    assert any("outside the middle of its window: was it stored without fftshift?" in line for line in lines)


def test_files_without_a_probe_are_refused(tmp_path):
    np.save(tmp_path / "text.npy", np.full((1, 8, 8), b"1", "S8"))
    fields = np.zeros((1, 8, 8), dtype=[("real", "<f8"), ("imag", "<f8")])
    fields["imag"] = np.inf
    hdf5(tmp_path / "infinite.mat", probe=fields)
    hdf5(tmp_path / "text.mat", probe=fields.astype([("real", "S3"), ("imag", "<f8")]))
    hdf5(tmp_path / "none.h5", other=np.zeros(3))
    hdf5(tmp_path / "real.h5", probe=np.zeros((8, 8)))
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    for name, message in (
        ("none.h5", "no dataset probe"),
        ("text.npy", r"text\.npy is \|S8, expected complex numbers"),
        ("infinite.mat", "holds NaN or infinity"),
        ("text.mat", r"/probe: real is \|S3, expected complex numbers"),
        ("real.h5", "expected a probe, complex"),
        ("old.mat", r"no NPZ file, NPY or HDF5 \(MATLAB: save with -v7\.3\)"),
    ):
        with pytest.raises(InputError, match=message):
            read_probe(tmp_path / name)


def test_the_probe_of_a_product_that_we_write_is_taken(scan, probe, tmp_path):
    hdf5(tmp_path / "p.h5", probe=probe[None] * 3)
    write_scan(tmp_path / "s.npz", scan)
    back = read_scan(tmp_path / "s.npz", probe=tmp_path / "p.h5")
    assert np.sum(np.abs(back.probe) ** 2) == pytest.approx(back.flux, rel=1e-5)


def ptychodus_product(path, truth, scan, shift=0.0, rows=20):
    """Positions and centre in metres, both from an origin `shift` pixels away."""
    middles = (scan.positions[:rows] - 0.5 + shift) * PIXEL
    centre = ((np.array(truth.shape) - 1) / 2 + shift) * PIXEL
    hdf5(path, object=truth[None], probe_position_y_m=middles[:, 0], probe_position_x_m=middles[:, 1])
    with h5py.File(path, "a") as file:
        file["probe_position_indexes"] = np.arange(rows)
        file["object"].attrs.update(
            pixel_width_m=PIXEL, pixel_height_m=PIXEL, center_y_m=centre[0], center_x_m=centre[1]
        )
    return path


@pytest.mark.parametrize(("shift", "rows"), [(0.0, 20), (-17.25, 20), (0.0, 12)])
def test_a_product_of_ptychodus_is_a_reference(scan, truth, tmp_path, shift, rows):
    reference = read_reference(ptychodus_product(tmp_path / "p.h5", truth, scan, shift, rows), scan)
    np.testing.assert_array_equal(reference.object, truth)
    np.testing.assert_allclose(reference.origin, (0, 0), atol=1e-2)


def test_an_object_of_ptypy_is_a_reference(scan, truth, tmp_path):
    storage = "content__obj__SMFG00__"
    content = {"data": truth[None], "_origin": np.full(2, -0.5 * PIXEL), "_psize": np.full(2, PIXEL)}
    hdf5(tmp_path / "r.ptyr", **{storage + name: value for name, value in content.items()})
    reference = read_reference(tmp_path / "r.ptyr", scan)
    np.testing.assert_array_equal(reference.object, truth)
    np.testing.assert_allclose(reference.origin, (0, 0), atol=1e-2)


def test_several_layers_or_objects_of_ptypy_are_refused(scan, truth, tmp_path):
    """Taking the first would judge another object than the one that explains the patterns."""
    geometry = {"_origin": np.full(2, -0.5 * PIXEL), "_psize": np.full(2, PIXEL)}

    def written(name, objects):
        content = {
            f"content__obj__{storage}__{key}": value
            for storage, data in objects.items()
            for key, value in {"data": data, **geometry}.items()
        }
        return hdf5(tmp_path / name, **content)

    written("layers.ptyr", {"SMFG00": np.stack([truth, truth])})
    with pytest.raises(InputError, match=r"layers.ptyr: has an object \(2, .*expected one layer"):
        read_reference(tmp_path / "layers.ptyr", scan)
    written("two.ptyr", {"SMFG00": truth[None], "SMFG01": truth[None]})
    with pytest.raises(InputError, match=r"two.ptyr: has 2 objects \(SMFG00, SMFG01\), expected one"):
        read_reference(tmp_path / "two.ptyr", scan)


def shelves_file(path, truth, scan, from_middle):
    """A reconstruction of PtychoShelves: corners of windows, (x, y) in pixels."""
    corners = scan.positions - scan.size // 2
    if from_middle:
        corners = corners - (np.ceil((np.array(truth.shape) - scan.size) / 2) - 1)
    return hdf5(
        path,
        object=matlab(truth),
        probe=matlab(np.ones((1, scan.size, scan.size), np.complex64)),
        outputs__probe_positions=corners[:, ::-1].T,
        p__dx_spec=np.full((2, 1), PIXEL),
    )


@pytest.mark.parametrize("from_middle", [True, False])
@pytest.mark.parametrize("odd", [0, 1])
def test_an_object_of_ptychoshelves_is_a_reference(scan, truth, tmp_path, from_middle, odd):
    path = shelves_file(tmp_path / "r.mat", truth[odd:, : -1 - odd], scan, from_middle)
    reference = read_reference(path, scan)
    np.testing.assert_array_equal(reference.object, truth[odd:, : -1 - odd])
    np.testing.assert_allclose(reference.origin, (0, 0), atol=1e-9)
    with pytest.raises(InputError, match="its positions differ from those of known"):
        read_reference(path, replace(scan, positions=scan.positions[::-1].copy()))
    with pytest.raises(
        InputError, match=r"positions \(20, 2\), expected .* and \(19, 2\), one for each pattern"
    ):
        read_reference(path, scan.subset(np.arange(19)))


def cdtools_file(path, truth, scan):
    """As `FancyPtycho.save_to_h5` of cdtools writes it."""
    basis = np.array([[0, -PIXEL], [-PIXEL, 0], [0, 0]])
    translations = (scan.positions - scan.size // 2) @ basis.T
    return hdf5(
        path,
        obj=truth,
        obj_basis=basis,
        translations=translations,
        state_dict__min_translation=np.zeros(2),
    )


@pytest.mark.parametrize(
    "write", [cdtools_file, ptychodus_product, lambda *parts: shelves_file(*parts, True)]
)
@pytest.mark.parametrize(
    "damage",
    [lambda values: values[:0], lambda values: values.ravel()[:5], lambda values: values[None], None],
    ids=["empty", "flat", "deeper", "NaN"],
)
def test_any_array_of_a_reference_that_is_damaged_is_refused_or_harmless(
    scan, truth, tmp_path, write, damage
):
    whole = write(tmp_path / "whole.h5", truth, scan)
    names = []
    with h5py.File(whole) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    for name in names:
        path = tmp_path / "damaged.h5"
        path.write_bytes(whole.read_bytes())
        with h5py.File(path, "a") as file:
            values, attributes = file[name][...], dict(file[name].attrs)
            del file[name]
            if damage is not None:
                file[name] = damage(values)
            else:
                file[name] = values if values.dtype.names else values * np.nan
            file[name].attrs.update(attributes)
        try:
            reference = read_reference(path, scan)
        except InputError:
            continue
        np.testing.assert_array_equal(reference.object, truth)
        np.testing.assert_allclose(reference.origin, (0, 0), atol=1e-2)


def test_an_object_of_another_scan_is_refused(scan, truth, tmp_path):
    path = ptychodus_product(tmp_path / "p.h5", truth, scan, rows=12)
    with pytest.raises(InputError, match="positions of known leave its object"):
        read_reference(path, replace(scan, positions=scan.positions + 30))
    with pytest.raises(InputError, match="its pixels are 2e-08 m, expected 3e-08 m"):
        read_reference(path, replace(scan, pixel_size=3e-8))
    other = ptychodus_product(tmp_path / "o.h5", truth, scan)
    with pytest.raises(InputError, match="its positions differ from those of known"):
        read_reference(other, replace(scan, positions=scan.positions[::-1].copy()))


def test_a_probe_of_magnitudes_is_named_and_an_aperture_is_not(scan, probe, tmp_path):
    row, column = np.mgrid[:16, :16] - 8
    probes = {"magnitudes": np.abs(probe), "aperture": (row**2 + column**2 < 20) * 3.0}
    write_scan(tmp_path / "s.npz", scan)
    for name, values in probes.items():
        lines = []
        np.savez(tmp_path / f"{name}.npz", probe=values)
        read_scan(tmp_path / "s.npz", probe=tmp_path / f"{name}.npz", log=lines.append)
        written = ["probe: its phase is 0 everywhere: does the file hold magnitudes alone?"]
        assert [line for line in lines if "phase" in line] == (written if name == "magnitudes" else [])
