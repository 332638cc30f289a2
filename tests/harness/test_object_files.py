"""Objects in two files of any program are compared, and an alignment that would change the verdict is named."""

from __future__ import annotations

import json
import re

import h5py
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from skimage.io import imsave
from typer.testing import CliRunner

from ptychonnx.harness.cli.app import app
from ptychonnx.harness.metrics.alignment_notes import alignment_note
from ptychonnx.harness.metrics.convolution import convolve
from ptychonnx.harness.metrics.object_files import compare_files
from ptychonnx.harness.metrics.periodicity import periods_of
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.readers.objects import read_object

SIDE = 48


def smooth(seed):
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), 2)
    return field / np.abs(field).max()


OBJECT = ((1 - 0.3 * np.abs(smooth(1))) * np.exp(1j * smooth(2))).astype(np.complex64)


def write(path, values, pixel_size=1e-8):
    """One object in the format that the name says."""
    if path.suffix == ".npz":
        np.savez(path, object=values, pixel_size=pixel_size)
    elif path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".tif":
        imsave(path, np.abs(values).astype(np.float32), check_contrast=False)
        phase = path.with_name(path.name.replace("amplitude", "phase"))
        imsave(phase, np.angle(values).astype(np.float32), check_contrast=False)
    else:
        with h5py.File(path, "w") as file:
            if path.suffix == ".ptyr":
                file["content/obj/Sscan00G00/data"] = values[None]
                file["content/obj/Sscan00G00/_psize"] = [pixel_size] * 2
            elif path.suffix == ".cxi":
                file["entry_1/image_2/data"] = values
            elif path.suffix == ".mat":
                pairs = np.zeros(values.shape[::-1], [("real", "f4"), ("imag", "f4")])
                pairs["real"], pairs["imag"] = values.T.real, values.T.imag
                file["object"] = pairs
            else:
                file["object"] = values[None]
                file["object"].attrs["pixel_width_m"] = pixel_size
    return path


@pytest.mark.parametrize(
    ("name", "pixel_size"),
    [
        ("a.npz", 1e-8),
        ("a.npy", None),
        ("a_amplitude.tif", None),
        ("a.ptyr", 1e-8),
        ("a.cxi", None),
        ("a.mat", None),
        ("a.h5", 1e-8),
    ],
)
def test_objects_of_every_program_are_read(name, pixel_size, tmp_path):
    result = read_object(write(tmp_path / name, OBJECT[:, :40]))
    np.testing.assert_allclose(result.values, OBJECT[:, :40], atol=1e-6)
    assert result.pixel_size == pixel_size


ROWS = np.arange(SIDE)[:, None]
ALTERED = {
    "a phase ramp of (5, ": OBJECT * np.exp(5j * ROWS / SIDE),
    "the complex conjugate would": OBJECT.conj(),
    "the orientation flip-rows": OBJECT[::-1],
    "the orientation transpose": OBJECT.T,
    "the complex conjugate in the orientation rot180": OBJECT[::-1, ::-1].conj(),
    "a shift by (-3.00, 0.00) pixels": np.roll(OBJECT, 3, axis=0),
    "the orientation rot270": np.rot90(OBJECT),
}


@pytest.mark.parametrize("text", ALTERED)
def test_an_alignment_that_would_change_the_verdict_is_named(text, tmp_path):
    reference = write(tmp_path / "reference.npz", OBJECT)
    result = compare_files(write(tmp_path / "altered.npz", ALTERED[text] * 2j), reference)
    assert result.note is not None
    assert text in result.note
    assert result.note.endswith("not applied")


LATTICE = (1 + 0.4 * np.cos(2 * np.pi * ROWS / 16)) * (1 + 0.4 * np.cos(2 * np.pi * ROWS.T / 12)) + 0j


def test_a_period_of_a_lattice_with_one_defect_is_named(tmp_path):
    perfect = np.tile(LATTICE, (2, 2))
    defect = perfect.copy()
    defect[44:52, 44:52] *= 0.5
    # One period further down, the lattice agrees with itself and the defect does not.
    moved = np.roll(defect, 16, axis=0)
    result = compare_files(write(tmp_path / "a.npz", moved), write(tmp_path / "b.npz", defect))
    assert re.match(
        r"a shift by \(-1[56]\.\d\d, -?0\.\d\d\) pixels, of which \(16, 0\) are a period", result.note
    )
    assert periods_of(perfect)[:2] == [(0, 12), (16, 0)]
    assert periods_of(OBJECT) == []
    registered = compare_files(tmp_path / "a.npz", tmp_path / "b.npz", register=True).comparison.alignment
    assert any("repeats itself after (0, 12) pixels" in note for note in registered.notes)


@pytest.mark.parametrize("kinds", [("f4", "f4"), ("f4", "f8"), ("f8", "c8"), ("c16", "c16")])
def test_a_convolution_is_that_of_scipy_bit_for_bit(kinds):
    random = np.random.default_rng(5)
    first, second = (
        (random.normal(size=shape) + 1j * random.normal(size=shape)).astype(kind)
        if kind.startswith("c")
        else random.normal(size=shape).astype(kind)
        for shape, kind in zip([(30, 41), (17, 22)], kinds, strict=True)
    )
    expected = fftconvolve(first, second)
    answer = convolve(first, second)
    assert answer.dtype == expected.dtype
    np.testing.assert_array_equal(answer, expected)


def test_noise_and_a_factor_are_no_reason_for_a_note(tmp_path):
    noise = np.random.default_rng(0).normal(size=(2, SIDE, SIDE)) * 0.05
    noisy = 3j * (OBJECT + noise[0] + 1j * noise[1])
    result = compare_files(
        write(tmp_path / "noisy.h5", noisy.astype(np.complex64)), write(tmp_path / "reference.npz", OBJECT)
    )
    assert result.note is None
    assert result.comparison.alignment.scale == pytest.approx(1 / 3, rel=0.02)
    assert result.comparison.amplitude.mae == pytest.approx(0.05 * np.sqrt(2 / np.pi), rel=0.1)


def test_a_pixel_beyond_the_squares_of_single_precision_is_judged():
    broken = OBJECT.copy()
    broken[5, 6] = 1e30
    whole = np.ones(OBJECT.shape, bool)
    with np.errstate(all="raise", under="ignore"):
        assert alignment_note(OBJECT, broken, whole) is None
        assert alignment_note(broken, OBJECT, whole) is None


def test_other_shapes_and_pixel_sizes_are_refused(tmp_path):
    reference = write(tmp_path / "reference.npz", OBJECT)
    with pytest.raises(
        InputError, match=r"small\.npy: the object is \(40, 48\) and that of .*expected the same"
    ):
        compare_files(write(tmp_path / "small.npy", OBJECT[:40]), reference)
    with pytest.raises(InputError, match=r"its pixels are 2e-08 m and those of .* 1e-08 m"):
        compare_files(write(tmp_path / "coarse.npz", OBJECT, 2e-8), reference)
    with pytest.raises(InputError, match=r"expected complex \[rows, columns\] of one layer"):
        compare_files(write(tmp_path / "layers.npy", np.stack([OBJECT] * 2)), reference)
    (tmp_path / "text.h5").write_text("no object")
    with pytest.raises(InputError, match=r"text\.h5: neither HDF5, NPZ, NPY nor TIFF"):
        compare_files(tmp_path / "text.h5", reference)


def test_the_command_prints_a_table_a_note_and_json(tmp_path):
    files = [write(tmp_path / "a.npz", OBJECT.conj()), write(tmp_path / "b.npz", OBJECT)]
    result = CliRunner().invoke(app, ["metrics", *map(str, files)])
    assert result.exit_code == 0
    assert "pearson" in result.output
    assert "note: the complex conjugate would lower the error" in result.output
    result = CliRunner().invoke(app, ["metrics", "--json", *map(str, files)])
    printed = json.loads(result.output)
    assert printed["note"].startswith("the complex conjugate")
    assert printed["phase"]["pearson"] == pytest.approx(-1, abs=0.01)
