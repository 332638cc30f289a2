"""Objects that other programs wrote are rows like those of networks: same place, same region, same figures."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import h5py
import numpy as np
import pytest
from skimage.io import imsave

from ptychonnx.harness.evaluation.evaluate import evaluate
from ptychonnx.harness.evaluation.resampling import resample
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.formats.readers.objects import read_object
from ptychonnx.runtime.formats.readers.reference import read_reference
from ptychonnx.runtime.formats.writers.reconstruction_file import write_reconstruction
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.scan import Reference
from ptychonnx.runtime.scan.forward_model import window_corners


@pytest.fixture(scope="module")
def noisy_network(four_artifacts):
    return four_artifacts[2]


@pytest.fixture(scope="module")
def ours(noisy_network, lines_scan):
    session = Session(noisy_network, provider="cpu")
    return reconstruct(session, lines_scan), session.contract


def file_of(path, image, origin, probe=None, pixel_size=1e-8):
    known = {} if probe is None else {"probe": probe}
    np.savez(path, object=image, origin=np.array(origin), pixel_size=pixel_size, **known)
    return path


def row(evaluation, label="theirs"):
    return evaluation.as_json()["rows"][label]


@pytest.mark.parametrize("name", ["object.h5", "object.cxi", "object.npz"])
def test_our_own_object_has_the_figures_of_its_network(noisy_network, ours, lines_scan, tmp_path, name):
    write_reconstruction(tmp_path / name, ours[0], lines_scan, ours[1])
    rows = evaluate([noisy_network], lines_scan, objects={"file": tmp_path / name}).as_json()["rows"]
    network, file = rows["pinn_hybrid"], rows["file"]
    for figures in ("amplitude", "phase", "alignment", "region", "misfit"):
        assert file[figures] == network[figures]
    assert file["kind"] == "object"
    assert file["timing"]["ms_per_pattern"] is None
    assert "not shifted" in file["notes"][0]


def test_an_object_without_any_photons_is_refused(lines_scan, tmp_path):
    reference = lines_scan.reference
    path = file_of(tmp_path / "theirs.npz", reference.object * np.complex64(1e-44), reference.origin)
    with pytest.raises(InputError, match="amplitudes like 1e-44 predicts no photons"):
        evaluate([], lines_scan, objects={"theirs": path})


def test_without_a_network_and_without_a_reference(ours, lines_scan, tmp_path):
    write_reconstruction(tmp_path / "o.h5", ours[0], lines_scan, ours[1])
    result = row(evaluate([], replace(lines_scan, reference=None), objects={"theirs": tmp_path / "o.h5"}))
    assert result["amplitude"] is None
    misfit = ours[0].misfit
    assert result["misfit"] == {
        "value": misfit.value,
        "scattered": misfit.scattered,
        "held_out": None,
        "noise": misfit.noise.level,
        "contrast": misfit.noise.contrast,
        "verdict": misfit.verdict,
    }
    assert "not registered, since the scan has no reference" in result["notes"][0]


def test_a_displaced_object_is_registered_and_said_to_be(lines_scan, tmp_path):
    truth = lines_scan.reference
    # What a program may write whose probe went the other way.
    origin = np.add(truth.origin, (0.5, -0.75))
    result = row(
        evaluate([], lines_scan, objects={"theirs": file_of(tmp_path / "o.npz", truth.object, origin)})
    )
    shift = re.search(r"registered: shifted by \((.*), (.*)\) pixels", result["notes"][0])
    assert list(map(float, shift.groups())) == pytest.approx([-0.5, 0.75], abs=0.06)
    assert result["amplitude"]["pearson"] > 0.999
    # Its misfit is that of the place which its file states.
    assert result["misfit"]["value"] > 0.01


def test_an_object_explains_the_patterns_with_its_own_probe(lines_scan, tmp_path):
    truth = lines_scan.reference
    rows, columns = np.indices(truth.object.shape)
    ramp = np.exp(1j * (0.05 * rows - 0.03 * columns))
    window = np.indices((lines_scan.size,) * 2)
    against = np.exp(-1j * (0.05 * window[0] - 0.03 * window[1]))
    files = {
        "pair": file_of(tmp_path / "pair.npz", truth.object * ramp, truth.origin, lines_scan.probe * against),
        "units": file_of(tmp_path / "units.npz", truth.object / 40, truth.origin, lines_scan.probe * 7),
        "alone": file_of(tmp_path / "alone.npz", truth.object * ramp, truth.origin),
    }
    rows_ = evaluate([], lines_scan, objects=files).as_json()["rows"]
    assert rows_["pair"]["misfit"]["value"] < 1e-3
    assert rows_["units"]["misfit"]["value"] < 1e-3
    assert "multiplied by 5.71" in rows_["units"]["notes"][1]
    assert rows_["alone"]["misfit"]["value"] > 0.1
    # The ramp is named, and changes the figures, as for a network.
    assert any("phase ramp" in note and "not applied" in note for note in rows_["pair"]["notes"])


@pytest.mark.parametrize("kind", ["npy", "tif", "mat", "h5"])
def test_an_object_without_a_place_is_placed_by_the_reference(lines_scan, tmp_path, kind):
    truth, path = lines_scan.reference, tmp_path / f"o_amplitude.{kind}"
    image = 3j * truth.object[5:, 3:]
    if kind == "npy":
        np.save(path, image)
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            file["obj"] = image
    elif kind == "tif":
        imsave(path, np.abs(image).astype(np.float32), check_contrast=False)
        imsave(tmp_path / "o_phase.tif", np.angle(image).astype(np.float32), check_contrast=False)
    else:
        pairs = np.zeros(image.shape[::-1], [("real", "f4"), ("imag", "f4")])
        pairs["real"], pairs["imag"] = image.T.real, image.T.imag
        with h5py.File(path, "w") as file:
            file["object"] = pairs
    result = row(evaluate([], lines_scan, objects={"theirs": path}))
    assert "without geometry" in result["notes"][0]
    assert result["amplitude"]["mae"] < 1e-5
    assert result["misfit"]["value"] < 0.05
    with pytest.raises(InputError, match="needs a scan with a reference"):
        evaluate([], replace(lines_scan, reference=None), objects={"theirs": path})


def test_phases_as_grey_values_are_refused(lines_scan, tmp_path):
    image = lines_scan.reference.object
    grey = (np.angle(image) * 1000 % 65536).astype(np.uint16)
    imsave(tmp_path / "o_amplitude.tif", np.abs(image).astype(np.float32), check_contrast=False)
    imsave(tmp_path / "o_phase.tif", grey, check_contrast=False)
    with pytest.raises(InputError, match=r"o_phase\.tif: grey values of uint16, expected phases in radians"):
        evaluate([], lines_scan, objects={"theirs": tmp_path / "o_amplitude.tif"})


def test_pixels_may_differ_by_a_thousandth(lines_scan, tmp_path):
    truth, path = lines_scan.reference, tmp_path / "o.npz"
    file_of(path, truth.object, truth.origin, pixel_size=1.0005e-8)
    result = row(evaluate([], lines_scan, objects={"theirs": path}))
    assert result["amplitude"]["mae"] < 1e-6
    assert "resampled" not in result["notes"][0]
    # Beyond a factor of 4 it is a wrong unit.
    file_of(path, truth.object, truth.origin, pixel_size=5e-8)
    with pytest.raises(
        InputError, match=r"its pixels are 5e-08 m, expected 1e-08 m .*by up to a factor of 4"
    ):
        evaluate([], lines_scan, objects={"theirs": path})
    file_of(path, truth.object, truth.origin, pixel_size=1.002e-8)
    with pytest.raises(InputError, match=r"its pixels are 1\.002e-08 m, expected 1e-08 m"):
        read_reference(path, lines_scan)


def smooth_object(rows, columns):
    """A smooth object as a function of the coordinates of the scan, in pixels."""
    phase = 0.8 * np.cos(rows / 7 + columns / 19)
    return (1 - 0.3 * np.sin(rows / 9) * np.cos(columns / 11)) * np.exp(1j * phase)


@pytest.mark.parametrize("ratio", [0.5, 0.8, 1.3, 2.5])
def test_an_object_of_other_pixels_is_resampled_and_said_to_be(lines_scan, tmp_path, ratio):
    truth = lines_scan.reference
    rows, columns = np.indices(truth.object.shape) + np.reshape(truth.origin, (2, 1, 1))
    scan = replace(
        lines_scan, reference=replace(truth, object=smooth_object(rows, columns).astype(np.complex64))
    )
    origin = np.floor(np.divide(truth.origin, ratio)) - 3.25
    theirs = np.indices(np.ceil(np.divide(truth.object.shape, ratio)).astype(int) + 8)
    image = smooth_object(*(theirs + origin[:, None, None]) * ratio)
    path = file_of(tmp_path / "o.npz", image, origin, scan.probe, pixel_size=1e-8 * ratio)
    result = row(evaluate([], scan, objects={"theirs": path}))
    assert f"resampled from pixels of {1e-8 * ratio:.4g} m to 1e-08 m by cubic splines" in result["notes"][0]
    assert ("Gaussian" in result["notes"][0]) == (ratio < 1)
    assert "not shifted" in result["notes"][0]
    assert result["amplitude"]["mae"] < 2e-3
    assert result["phase"]["mae"] < 2e-3
    # A probe of other pixels is not its own.
    assert "the probe of the scan" in result["notes"][1]


def test_unknown_pixels_stay_unknown_when_they_are_resampled():
    image = np.ones((40, 40), np.complex64)
    image[:, 20:] = 0
    for ratio in (0.6, 1.7):
        result = resample(Reference(image, (2.0, 3.0)), ratio)
        columns = result.origin[1] + np.arange(result.object.shape[1])
        assert not result.object[:, columns > ratio * (3 + 19)].any()
        np.testing.assert_allclose(result.object[:, columns < ratio * (3 + 19 - 5)], 1, atol=1e-6)


def test_a_file_of_tike_is_placed_by_its_windows(lines_scan, tmp_path):
    truth = lines_scan.reference
    corners = window_corners(lines_scan.positions, lines_scan.size) - truth.origin
    path = tmp_path / "tike.npz"
    np.savez(path, psi=truth.object[None], scan=corners[None], probe=lines_scan.probe[None, None])
    result = row(evaluate([], lines_scan, objects={"theirs": path}))
    assert "placed by its own geometry" in result["notes"][0]
    assert "its own probe" in result["notes"][1]
    assert result["amplitude"]["mae"] < 1e-6
    assert result["misfit"]["value"] < 1e-3
    np.savez(path, psi=truth.object, scan=corners[:-1])
    with pytest.raises(InputError, match="one for each pattern"):
        evaluate([], lines_scan, objects={"theirs": path})


def test_a_file_that_cdtools_wrote_is_placed_by_its_translations(lines_scan, tmp_path):
    pytest.importorskip("cdtools")
    from cdtools.datasets import Ptycho2DDataset
    from cdtools.models import FancyPtycho

    truth, first = lines_scan.reference, np.array([-4.0, 2.0])
    corners = window_corners(lines_scan.positions, lines_scan.size) - truth.origin
    # Rows along -y and columns along -x, as at most beamlines.
    basis = np.array([[0, -1e-8], [-1e-8, 0], [0, 0]], dtype=np.float32)
    translations = ((corners + first) @ basis.T).astype(np.float32)
    model = FancyPtycho(
        1e-9,
        {"distance": 1.0, "basis": basis},
        basis,
        lines_scan.probe,
        truth.object,
        min_translation=first.astype(np.float32),
        background=np.zeros((lines_scan.size,) * 2, dtype=np.float32),
        weights=np.ones(len(lines_scan), dtype=np.float32),
        plot_level=0,
    )
    path = tmp_path / "cdtools.h5"
    model.save_to_h5(path, Ptycho2DDataset(translations, np.square(lines_scan.diffraction)))
    result = row(evaluate([], lines_scan, objects={"theirs": path}))
    assert "placed by its own geometry; agrees with the reference" in result["notes"][0]
    assert "its own probe" in result["notes"][1]
    assert result["amplitude"]["mae"] < 1e-5
    assert result["misfit"]["value"] < 1e-2
    assert read_object(path).pixel_size == pytest.approx(1e-8)


def test_the_command_line(lines_scan, noisy_network, tmp_path, run):
    scan, path = tmp_path / "scan.npz", tmp_path / "o.npz"
    write_scan(scan, lines_scan)
    file_of(path, lines_scan.reference.object, lines_scan.reference.origin)
    arguments = ["evaluate", "--scan", scan, "--json", tmp_path / "m.json"]
    code, out, _ = run(*arguments, "--object", f"Pty Chi={path}", "--object", f"other={path}")
    assert code == 0
    assert "Pty Chi" in out
    assert ".000/.000 good" in out
    assert list(json.loads((tmp_path / "m.json").read_text())["rows"]) == ["Pty Chi", "other"]
    for wrong, message in (
        (["--object", str(path)], "expected LABEL=FILE"),
        (["--object", f"a={path}", "--object", f"a={path}"], "another object is labelled 'a'"),
        (["--object", f"a={path}", "--scan", str(scan)], "got objects and 2 scans"),
        (["--object", f"a={path}", "--halves"], "expected a network or --iterations"),
        ([noisy_network, "--object", f"pinn_hybrid={path}"], "another row is labelled 'pinn_hybrid'"),
    ):
        code, _, err = run(*arguments, *wrong)
        assert code == 2
        assert message in err
