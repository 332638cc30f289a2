"""What we write is read back the same; with any one field damaged it is refused, or the damage changes nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_reference, read_scan, write_scan
from ptychonnx.runtime.formats.readers.objects import read_object
from ptychonnx.runtime.formats.readers.probe import read_probe
from ptychonnx.runtime.formats.writers.reconstruction_file import Product, write_product
from ptychonnx.runtime.reconstruction.stitching import Stitched
from ptychonnx.runtime.scan import Reference, Scan

DRAWN = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Fields of a written scan, and of a written reconstruction in each format.
SCAN = (
    *("format", "diffraction", "positions", "probe", "mask", "labels", "pixel_size", "wavelength"),
    *("reference_object", "reference_origin"),
)
PRODUCTS = {
    "o.npz": ("object", "weight", "origin", "pixel_size"),
    "o.h5": (
        *("object", "weight", "origin_px", "pixel_size_m", "probe", "probe_position_indexes"),
        *("probe_position_x_m", "probe_position_y_m", "entry/phase/phase", "loss_values"),
    ),
    "o.cxi": (
        *("entry_1/image_2/data", "entry_1/image_1/data", "entry_1/ptychonnx/origin_px", "cxi_version"),
        *("entry_1/data_1/translation", "entry_1/image_2/image_size", "entry_1/instrument_1/source_1/energy"),
    ),
}


def complex_of(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


@st.composite
def scans(draw: st.DrawFn) -> Scan:
    """Scans with any subset of what a scan may carry, of odd and even sides."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, side, modes = draw(st.integers(1, 5)), draw(st.integers(4, 9)), draw(st.integers(0, 3))
    length = st.floats(1e-11, 1e-5)
    return Scan(
        rng.uniform(0, 100, (n, side, side)).astype(np.float32),
        rng.uniform(0, 20, (n, 2)),
        complex_of(rng, modes, side, side) if modes else None,
        rng.random((side, side)) > 0.3 if draw(st.booleans()) else None,
        Reference(complex_of(rng, 40, 45), (draw(st.floats(-9, 0)), -2.5)) if draw(st.booleans()) else None,
        draw(st.none() | length),
        draw(st.none() | length),
        "s.npz",
        complex_of(rng, n, side, side) if draw(st.booleans()) else None,
    )


def fields(scan: Scan) -> dict[str, object]:
    """Everything that a scan holds, by name."""
    values = {
        name: getattr(scan, name)
        for name in ("positions", "probe", "mask", "labels", "pixel_size", "wavelength")
    }
    values["diffraction"] = np.asarray(scan.diffraction)
    if scan.reference is not None:
        values["object"], values["origin"] = scan.reference.object, scan.reference.origin
    return values


def same(first: dict[str, object], second: dict[str, object]) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(np.asarray(first[name]), np.asarray(second[name])) for name in first
    )


@given(scan=scans())
@DRAWN
def test_a_written_scan_is_read_the_same(scan: Scan, tmp_path: Path) -> None:
    write_scan(tmp_path / "s.npz", scan)
    back = read_scan(tmp_path / "s.npz")
    assert same(fields(back), fields(scan))
    assert back.name == scan.name


def read_product(path: Path, scan: Scan) -> dict[str, object]:
    """What our readers find in a reconstruction."""
    stored, reference = read_object(path), read_reference(path, scan)
    content = {"values": stored.values, "object": reference.object, "origin": reference.origin}
    return content if path.suffix == ".npz" else content | {"probe": read_probe(path)}


@pytest.mark.parametrize("name", PRODUCTS)
@given(
    scan=scans(),
    pixel_size=st.floats(1e-11, 1e-5),
    origin=st.tuples(st.integers(-60, 0), st.integers(-60, 0)),
)
@DRAWN
def test_a_written_reconstruction_is_read_the_same(
    name: str, scan: Scan, pixel_size: float, origin: tuple[int, int], tmp_path: Path
) -> None:
    whole = complex_of(np.random.default_rng(1), 130, 120)
    scan = replace(
        scan, pixel_size=pixel_size, probe=scan.probe if scan.probe is not None else probe_of(scan)
    )
    product = Product(Stitched(whole, np.ones(whole.shape), origin), scan, "uniform", "{}")
    write_product(tmp_path / name, product)
    back = read_product(tmp_path / name, scan)
    expected = {"values": whole, "object": whole, "origin": tuple(map(float, origin))}
    if name != "o.npz":
        expected["probe"] = scan.probe
        back["probe"] = np.asarray(back["probe"]).reshape(scan.probe.shape)
    assert same(back, expected)


def probe_of(scan: Scan) -> np.ndarray:
    return complex_of(np.random.default_rng(2), 1, scan.size, scan.size)


def with_nan(values: np.ndarray) -> np.ndarray | None:
    if values.dtype.kind not in "fc" or not values.size:
        return None
    values = values.copy()
    values.reshape(-1)[values.size // 2] = np.nan
    return values


DAMAGES: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "missing": lambda values: None,
    "NaN": with_nan,
    "text": lambda values: np.full(values.shape, b"x"),
    "one less": lambda values: values[:-1] if values.ndim else values.reshape(1).repeat(2),
    "one axis more": lambda values: np.stack([values, values], axis=-1),
    "empty": lambda values: np.zeros((0, *values.shape[1:]), values.dtype),
}


def is_valid(field: str, damage: str) -> bool:
    """Whether the damage makes another valid file: an object with one row less."""
    return damage == "one less" and field in {"object", "reference_object", "entry_1/image_2/data"}


def refused_or(read: Callable[[], dict[str, object]]) -> dict[str, object] | None:
    """What is read; None if it is refused in one line. Warnings of NumPy are errors."""
    refusal = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            return read()
    except InputError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert len(refusal) < 1000
    return None


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("field", SCAN)
def test_a_scan_with_a_damaged_field_is_refused_or_read_the_same(scan, tmp_path, field, damage):
    write_scan(tmp_path / "s.npz", scan)
    with np.load(tmp_path / "s.npz") as archive:
        content = dict(archive)
    damaged = DAMAGES[damage](content.pop(field))
    if (damaged is None and damage != "missing") or is_valid(field, damage):
        return
    np.savez(tmp_path / "s.npz", **content, **({} if damaged is None else {field: damaged}))
    back = refused_or(lambda: fields(read_scan(tmp_path / "s.npz")))
    if damage == "missing" and field in {"probe", "mask", "labels", "pixel_size", "wavelength"}:
        # A scan need not have these.
        assert back is not None
        assert same(back, fields(replace(scan, **{field: None})))
    else:
        assert back is None or same(back, fields(scan))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("name", "field"), [(name, field) for name in PRODUCTS for field in PRODUCTS[name]])
def test_a_reconstruction_with_a_damaged_field_is_refused_or_read_the_same(
    scan, truth, tmp_path, name, field, damage
):
    path = tmp_path / name
    write_product(path, Product(Stitched(truth, np.ones(truth.shape), (0, 0)), scan, "uniform", "{}"))
    whole = read_product(path, scan)
    if path.suffix == ".npz":
        with np.load(path) as archive:
            content = dict(archive)
        damaged = DAMAGES[damage](content.pop(field))
        np.savez(path, **content, **({} if damaged is None else {field: damaged}))
    else:
        with h5py.File(path, "a") as file:
            damaged = DAMAGES[damage](np.asarray(file[field][()]))
            attributes = dict(file[field].attrs)
            del file[field]
            if damaged is not None:
                file[field] = damaged
                file[field].attrs.update(attributes)
    if (damaged is None and damage != "missing") or is_valid(field, damage):
        return
    back = refused_or(lambda: read_product(path, scan))
    assert back is None or same(back, whole)
