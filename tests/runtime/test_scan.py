from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan import Reference, Scan


def with_value(array, index, value):
    changed = np.array(array)
    changed[index] = value
    return changed


AMPLITUDES = np.ones((20, 16, 16), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"diffraction": AMPLITUDES[:, :, :-1]},
            r"diffraction has shape \(20, 16, 15\), expected \[n, N, N\]",
        ),
        ({"diffraction": AMPLITUDES[0]}, "diffraction has shape"),
        ({"diffraction": AMPLITUDES[:0], "positions": np.zeros((0, 2))}, "empty"),
        ({"diffraction": np.zeros((20, 0, 0), np.float32)}, "empty"),
        ({"diffraction": AMPLITUDES.astype(np.float64)}, "float64, expected float32"),
        ({"diffraction": AMPLITUDES.astype(np.uint16)}, "uint16, expected float32"),
        ({"diffraction": with_value(AMPLITUDES, (7, 3, 3), np.nan)}, r"diffraction\[7\] holds NaN"),
        ({"diffraction": with_value(AMPLITUDES, (19, 0, 0), np.inf)}, r"diffraction\[19\] holds NaN or inf"),
        ({"diffraction": with_value(AMPLITUDES, (2, 0, 0), -0.5)}, r"diffraction\[2\] holds -0.5"),
        ({"positions": np.zeros((19, 2))}, r"positions have shape \(19, 2\), expected \(20, 2\)"),
        ({"positions": np.zeros((20, 3))}, "positions have shape"),
        ({"positions": with_value(np.zeros((20, 2)), (4, 1), np.nan)}, r"positions\[4\] is NaN"),
        ({"probe": np.ones((16, 16), np.complex64)}, r"expected \[modes, 16, 16\]"),
        ({"probe": np.ones((1, 8, 8), np.complex64)}, "probe has shape"),
        ({"probe": np.full((1, 16, 16), np.nan, np.complex64)}, "probe holds NaN"),
        ({"probe": np.zeros((2, 16, 16), np.complex64)}, "zero everywhere"),
        ({"mask": np.ones((8, 8), bool)}, "mask has shape"),
        ({"mask": np.zeros((16, 16), bool)}, "mask has no valid pixel"),
        ({"reference": Reference(np.ones((1, 40, 52), np.complex64))}, "reference object has shape"),
        ({"reference": Reference(np.full((4, 4), np.inf, np.complex64))}, "reference object holds NaN"),
        ({"labels": np.ones((20, 8, 8), np.complex64)}, "labels have shape"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_the_scan(scan, changes, message):
    with pytest.raises(InputError, match=message) as error:
        dataclasses.replace(scan, **changes)
    assert str(error.value).startswith("known: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("diffraction", lambda values: values.tolist(), "diffraction is list"),
        (
            "diffraction",
            lambda values: np.ma.masked_greater(values, 5),
            "diffraction is float32 in a MaskedArray",
        ),
        ("positions", lambda values: values + 0j, "positions is complex128 in a ndarray"),
        ("positions", lambda values: values.astype(str), "positions is <U32 in a ndarray"),
        ("mask", lambda _: np.ones((16, 16), int), "mask is int64 in a ndarray, expected an array bool"),
        *(
            (
                quantity,
                lambda _, value=value: value,
                f"{quantity} is .*expected a finite number of metres above 0",
            )
            for quantity in ("pixel_size", "wavelength", "distance")
            for value in (0, -1e-9, np.nan, np.inf, "10nm", True, np.array([1e-8, 1e-8]))
        ),
        ("reference", lambda _: Reference(np.ones((4, 4)), (0, 0, 0)), "origin of the reference"),
        ("reference", lambda _: Reference([[1]]), "reference object is list"),
    ],
)
def test_values_of_another_kind_are_refused(scan, field, change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(scan, **{field: change(getattr(scan, field))})


def test_flux_is_the_mean_photon_number(scan):
    assert scan.flux == pytest.approx(np.mean([np.sum(p.astype(float) ** 2) for p in scan.diffraction]))
    assert Scan(np.full((2, 4, 4), 3e3, np.float32), np.zeros((2, 2))).flux == 16 * 9e6


def test_size_and_length(scan):
    assert (len(scan), scan.size) == (20, 16)


@pytest.mark.parametrize("index", [slice(3, 9, 2), np.array([8, 1, 1])])
def test_a_subset_keeps_pattern_position_and_label_together(scan, index):
    part = scan.subset(index)
    for field in ("diffraction", "positions", "labels"):
        np.testing.assert_array_equal(getattr(part, field), getattr(scan, field)[index])
    assert part.reference is scan.reference
    assert part.probe is scan.probe


def test_the_probe_hash_knows_the_values_and_not_the_memory_layout(scan):
    turned = dataclasses.replace(scan, probe=np.asfortranarray(scan.probe))
    assert turned.probe_sha256() == scan.probe_sha256()
    assert dataclasses.replace(scan, probe=scan.probe * 2).probe_sha256() != scan.probe_sha256()
    assert dataclasses.replace(scan, probe=None).probe_sha256() is None
