"""General artifacts: the beam is an input; specialised ones hold one beam and agree with it."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("lightning")
pytest.importorskip("onnx_ir")

import torch

import ptychonnx
from ptychonnx.export.artifact.artifact_checks import check_artifact
from ptychonnx.export.artifact.export_options import ExportOptions
from ptychonnx.export.artifact.export_run import export_run
from ptychonnx.export.artifact.specialise import beam_of_probe, beam_of_scan, specialise
from ptychonnx.export.deploy.deployable import read_artifacts
from ptychonnx.export.verification import engines
from ptychonnx.harness.cli.app import main
from ptychonnx.harness.iterative.refinement import refine
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.harness.simulate.probes import disk_probe
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.formats.conversion.probe_window import resampled_probe
from ptychonnx.runtime.inference import Session, artifact_path
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.beam_arrays import beam_arrays
from ptychonnx.runtime.scan.forward_model import cut_windows, forward
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.fitting import train
from ptychonnx.train.registry import get_architecture
from ptychonnx.train.run import read_run
from ptychonnx.train.trained_network import load_network

N = 32


def scan_with(probe: str, photons: float = 1e6):
    config = LinesConfig(n=N, step=4, probe=probe, train_grid=8, photons=photons)
    return simulate_scan(config, 8, np.random.SeedSequence(3), f"{probe}.npz")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("general") / "run"
    config = NetworkConfig(n=N, width=4, blocks=2, modes=8, first_steps=3, final_steps=2)
    training = TrainingConfig(epochs=2, batch=4, overlap=1, learning_rate=0.02)
    train(scan_with("zone-plate"), get_architecture("hybrid"), config, training, folder)
    return folder


@pytest.fixture(scope="module")
def artifact(run):
    out = run.parent / "general.onnx"
    result = export_run(run, out, ExportOptions(general=True))
    engines = {case.engine.split()[0] for case in result.report.cases if case.inputs.startswith("other beam")}
    assert engines == {"onnxruntime", "onnx"}  # OpenVINO takes defaults as constants
    assert result.contract.conversion.passes[-1] == "ConstantCompression"
    kept = [tensor.name for tensor in onnx.load(out).graph.initializer]
    assert any(name.endswith("matrix.rows") for name in kept)
    assert any(name.endswith("rows_to_detector.entries") for name in kept)
    return out


@pytest.fixture(scope="module")
def other():
    return scan_with("disk", 1e7)


def native(run, scan, patterns):
    module = load_network(run, read_run(run)).module
    beam = {name: torch.from_numpy(np.asarray(value)) for name, value in beam_arrays(scan).items()}
    with torch.no_grad():
        parts = module(torch.from_numpy(patterns), **beam).numpy()
    return np.moveaxis(parts[..., 0] + 1j * parts[..., 1], -1, 1)


def test_the_artifact_takes_the_beam_of_the_scan(run, artifact, other):
    session = Session(artifact, "cpu")
    assert session.contract.general
    assert session.contract.beam.names == ("probe", "mask", "scale")
    assert session.contract.trained_for.n == [N]
    patterns = other.diffraction[:9, None]
    expected = native(run, other, patterns)
    beam = session.beam(other)
    assert np.abs(session.predict(patterns, beam=beam) - expected).max() < 1e-4
    (_, batch), *_ = session.batches(other, np.arange(9)[:, None], 9)
    assert np.abs(batch - expected).max() < 1e-4
    assert np.abs(session.predict(patterns) - expected).max() > 0.01
    parallel = Session(artifact, "cpu", threads=2)
    assert np.abs(parallel.predict(patterns, beam=beam) - expected).max() < 1e-4
    bound = Session(artifact, "cpu", bound=True)
    assert np.abs(bound.predict(patterns, beam=beam) - expected).max() < 1e-4
    assert np.abs(bound.predict(patterns) - session.predict(patterns)).max() < 1e-5
    assert all(check.passed for check in check_artifact(artifact))


@pytest.mark.parametrize("modes", [2, 4])
def test_the_probe_may_have_any_number_of_modes(run, artifact, other, modes, tmp_path):
    assert Session(artifact, "cpu").contract.beam.modes is None
    darker = other.probe * (np.arange(N) / N) ** np.arange(modes)[:, None, None]
    scan = replace(other, probe=darker.astype(np.complex64))
    patterns = scan.diffraction[:9, None]
    expected = native(run, scan, patterns)
    for settings in ({}, {"threads": 2}, {"bound": True}):
        session = Session(artifact, "cpu", **settings)
        beam = session.beam(scan)
        assert beam["probe"].shape == (modes, N, N, 2)
        assert np.abs(session.predict(patterns, beam=beam) - expected).max() < 1e-4
    with pytest.raises(
        InputError, match=r"probe is float32 \[0, 32, 32, 2\], expected float32 \[modes, 32, 32, 2\]"
    ):
        session.predict(patterns, beam={**beam, "probe": beam["probe"][:0]})
    if modes == 2:
        out = tmp_path / "two.onnx"
        assert specialise(artifact, beam_of_scan(artifact, scan), out).contract.probe.modes == 2
        assert np.abs(Session(out, "cpu").predict(patterns) - expected).max() < 1e-4


def test_the_general_artifact_explains_a_scan_that_one_with_a_fixed_beam_does_not(run, artifact, other):
    fixed = run.parent / "fixed.onnx"
    export_run(run, fixed)
    general, special = (reconstruct(Session(path, "cpu"), other) for path in (artifact, fixed))
    assert special.misfit.verdict == "wrong"
    assert special.warnings[0].startswith("probe: the scan has another beam")
    assert [line.split(":")[0] for line in general.warnings] == ["photons", "oversampling", "defocus"]
    assert general.misfit.value < 0.5 * special.misfit.value


def test_a_specialised_artifact_agrees_with_the_general_one(artifact, other, tmp_path):
    out = tmp_path / "disk.onnx"
    contract = specialise(artifact, beam_of_scan(artifact, other), out).contract
    assert contract.parity.max_relative_error < 1e-5
    assert (contract.general, contract.specialised_from) == (
        False,
        Session(artifact, "cpu").contract.graph_sha256,
    )
    assert [value.name for value in onnx.load(out).graph.input] == ["diffraction"]
    assert len(onnx.load(out).graph.node) < len(onnx.load(artifact).graph.node) - 100
    session, general = Session(out, "cpu"), Session(artifact, "cpu")
    patterns = other.diffraction[:4, None]
    expected = general.predict(patterns, beam=general.beam(other))
    assert np.abs(session.predict(patterns) - expected).max() < 1e-5
    assert reconstruct(session, other).warnings == ()
    assert (
        reconstruct(session, scan_with("zone-plate"))
        .warnings[0]
        .startswith("probe: the scan has another beam")
    )
    assert [deployable.name for deployable in read_artifacts([out])] == ["disk"]
    with pytest.raises(InputError, match="specialised already"):
        beam_of_scan(out, other)


def scan_of_size(size: int, photons: float = 1e6):
    """A scan whose beam fills half of its window at N = 32, and as many pixels at any other N."""
    scan = scan_with("disk", photons)
    probe = (disk_probe(size, radius=N / 4) * np.sqrt(photons)).astype(np.complex64)
    image = np.pad(scan.reference.object, size, constant_values=1)
    positions = scan.positions + size
    amplitudes = forward(cut_windows(image, positions, size), probe).astype(np.float32)
    return Scan(amplitudes, positions, probe, pixel_size=1e-8, name=f"{size}.npz")


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["ptychonnx", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return end.code
    return 0


@pytest.fixture
def zoo(artifact, tmp_path, monkeypatch):
    """A zoo with one general network, for patterns of 32 pixels."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    shutil.copy(artifact, folder / f"any_{N}.onnx")
    monkeypatch.setattr(artifact_path, "_ZOO", folder)
    monkeypatch.chdir(tmp_path)


def test_a_scan_alone_is_reconstructed_with_the_general_network_of_the_zoo(zoo, other, monkeypatch, capfd):
    write_scan("scan.npz", other)
    arguments = ["reconstruct", "scan.npz", "--out", "object.npz", "--picture", "object.png"]
    assert command(monkeypatch, *arguments, "--refine", "0") == 0
    assert "scan.npz: reconstructed with zoo:any_32" in capfd.readouterr().out
    network = reconstruct(Session(f"zoo:any_{N}", "cpu"), other)
    np.testing.assert_allclose(np.load("object.npz")["object"], network.object, atol=1e-4)
    alone = ptychonnx.reconstruct(None, other, provider="cpu", refine=0)
    np.testing.assert_allclose(alone.object, network.object, atol=1e-5)
    # Iterations follow if nothing is chosen.
    assert command(monkeypatch, *arguments) == 0
    assert "epochs of mPIE" in capfd.readouterr().out
    refined = refine(other, network, "auto")
    np.testing.assert_allclose(np.load("object.npz")["object"], refined.object, atol=1e-3)
    assert Path("object.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("size", "changes", "remedy", "pixel_size"),
    [
        (64, "64 x 64 pixels binned by 2 to 32 x 32", "--fit-patterns, --crop 32 or --rebin 2", 1e-8),
        (40, "cropped to 32 x 32, which keeps", "--fit-patterns, --crop 32", 1.25e-8),
        (28, "28 x 28 pixels padded to 32 x 32", "padded to 32 x 32: --fit-patterns", 0.875e-8),
    ],
)
def test_patterns_of_another_size_are_fitted_if_that_is_allowed(
    zoo, monkeypatch, capfd, size, changes, remedy, pixel_size
):
    write_scan("scan.npz", scan_of_size(size))
    arguments = ["reconstruct", "scan.npz", "--out", "object.npz"]
    assert command(monkeypatch, *arguments) == 2
    refusal = " ".join(capfd.readouterr().err.split())
    assert f"patterns are {size} x {size} pixels, and the zoo has general networks for 32 x 32" in refusal
    assert remedy in refusal
    assert command(monkeypatch, *arguments, "--fit-patterns") == 0
    assert changes in " ".join("".join(capfd.readouterr()).split())
    assert np.load("object.npz")["pixel_size"] == pytest.approx(pixel_size)


ALL = np.ones((N, N), dtype=bool)
OUTER = np.hypot(*np.indices((N, N)) - N // 2) > 8


@pytest.mark.parametrize(
    ("probe", "mask", "brighter", "options", "code", "line"),
    [
        (
            lambda probe: resampled_probe(probe, 48),
            ALL,
            1,
            [],
            2,
            "has 48 x 48 pixels, the patterns have 32 x 32",
        ),
        (
            lambda probe: resampled_probe(probe, 48),
            ALL,
            1,
            ["--resample-probe"],
            0,
            "resampled from 48 x 48 to 32 x 32",
        ),
        (lambda probe: probe[:, :20], ALL, 1, ["--resample-probe"], 2, "expected complex [modes, N, N]"),
        (lambda probe: 0 * probe, ALL, 1, [], 2, "probe is zero everywhere"),
        (lambda probe: np.nan * probe, ALL, 1, [], 2, "probe holds NaN"),
        (lambda probe: probe, OUTER, 1, [], 2, "% of the counts of the empty beam"),
        (lambda probe: probe, ALL, 1e3, [], 0, "more than the network was trained for"),
    ],
)
def test_a_beam_that_does_not_fit_gets_one_line(
    artifact, other, tmp_path, monkeypatch, capfd, probe, mask, brighter, options, code, line
):
    monkeypatch.chdir(tmp_path)
    amplitudes = np.where(mask, other.diffraction * np.sqrt(brighter), 0).astype(np.float32)
    write_scan("scan.npz", replace(other, diffraction=amplitudes, mask=mask))
    np.save("probe.npy", probe(other.probe))
    arguments = ["reconstruct", artifact, "scan.npz", "--probe", "probe.npy", "--out", "object.npz"]
    assert command(monkeypatch, *arguments, *options) == code
    assert Path("object.npz").exists() == (code == 0)
    said = "".join(capfd.readouterr())
    assert line in " ".join(said.split())
    assert said.count("Error:") == (code != 0)


def test_a_scan_without_a_probe_is_refused_with_what_to_give(artifact, other):
    with pytest.raises(InputError, match=r"has no probe.*--probe FILE .*--estimate-probe"):
        reconstruct(Session(artifact, "cpu"), replace(other, probe=None))


def deploy(monkeypatch, *arguments):
    return command(monkeypatch, "deploy", *arguments)


def test_a_general_artifact_is_deployed_with_the_beam_of_a_scan(artifact, other, tmp_path, monkeypatch):
    write_scan(tmp_path / "scan.npz", other)
    options = ["--specialise", tmp_path / "scan.npz", "--repository", tmp_path / "repo"]
    assert deploy(monkeypatch, "triton", artifact, *options) == 0
    served = Session(tmp_path / "repo" / "general" / "1" / "model.onnx", "cpu")
    general = Session(artifact, "cpu")
    patterns = other.diffraction[:4, None]
    expected = general.predict(patterns, beam=general.beam(other))
    assert np.abs(served.predict(patterns) - expected).max() < 1e-5


def test_an_engine_that_answers_otherwise_is_not_deployed(artifact, other, tmp_path, monkeypatch, capfd):
    pytest.importorskip("openvino")
    write_scan(tmp_path / "scan.npz", other)
    opened = engines.open_openvino

    class Halved:
        def __init__(self, data):
            self._engine = opened(data)
            self.name = self._engine.name

        def __call__(self, *inputs):
            return self._engine(*inputs) / 2

    monkeypatch.setattr(engines, "open_openvino", Halved)
    options = ["--specialise", tmp_path / "scan.npz", "--repository", tmp_path / "ovms"]
    assert deploy(monkeypatch, "openvino", artifact, *options) == 1
    assert "in OpenVINO, which the server runs" in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "ovms").exists()


def test_a_probe_of_any_power_is_scaled_to_the_photons(artifact, other):
    beam = beam_of_probe(artifact, 17 * other.probe, other.flux, None, "probe.npy")
    expected = beam_of_scan(artifact, other)
    assert np.allclose(beam.arrays["scale"], expected.arrays["scale"])
    power = np.sum(np.square(beam.arrays["probe"]))
    assert power == pytest.approx(other.flux, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probe": np.zeros((1, N, N), np.complex64)}, "zero everywhere"),
        ({"probe": np.full((1, N, N), np.nan, np.complex64)}, "not finite"),
        ({"probe": np.ones((1, 2 * N, 2 * N), np.complex64)}, "64 x 64 pixels, the patterns have 32 x 32"),
        ({"photons": 0.0}, "above 0"),
    ],
)
def test_a_probe_that_cannot_be_used_is_refused(artifact, other, change, message):
    arguments = {"probe": other.probe, "photons": 1e6} | change
    with pytest.raises(InputError, match=message):
        beam_of_probe(artifact, arguments["probe"], arguments["photons"], None, "probe.npy")


def test_a_wrong_beam_is_refused_by_the_session(artifact, other):
    session = Session(artifact, "cpu")
    beam = dict(session.beam(other))
    patterns = other.diffraction[:2, None]
    with pytest.raises(InputError, match="expected probe, mask, scale"):
        session.predict(patterns, beam={"probe": beam["probe"]})
    with pytest.raises(InputError, match="mask is float64"):
        session.predict(patterns, beam=beam | {"mask": beam["mask"].astype(np.float64)})


def test_a_keras_network_takes_the_beam_of_the_scan(other, tmp_path):
    pytest.importorskip("tensorflow")
    config = NetworkConfig(n=N, width=4, blocks=1, first_steps=2, final_steps=1)
    training = TrainingConfig(epochs=1, batch=8, overlap=1)
    train(scan_with("zone-plate"), get_architecture("cnn"), config, training, tmp_path / "run")
    contract = export_run(tmp_path / "run", tmp_path / "cnn.onnx", ExportOptions(general=True)).contract
    assert (contract.general, contract.beam.modes) == (True, None)
    darker = other.probe * (np.arange(N) / N) ** np.arange(2)[:, None, None]
    session = Session(tmp_path / "cnn.onnx", "cpu")
    network = load_network(tmp_path / "run", read_run(tmp_path / "run")).general()
    for scan in (other, replace(other, probe=darker.astype(np.complex64))):
        beam, patterns = session.beam(scan), other.diffraction[:5, None]
        parts = network.predict(patterns, *beam_arrays(scan).values())
        expected = np.moveaxis(parts[..., 0] + 1j * parts[..., 1], -1, 1)
        assert np.abs(session.predict(patterns, beam=beam) - expected).max() < 1e-4
        assert np.abs(session.predict(patterns) - expected).max() > 0.01


def test_counts_with_the_mask_as_an_input(run, other, tmp_path, caplog):
    out = tmp_path / "counts.onnx"
    export_run(run, out, ExportOptions(general=True, input="counts", batch=4))
    session = Session(out, "cpu")
    # A fixed batch fixes all sizes, the number of modes too.
    assert session.contract.beam.modes == 1
    session.beam(replace(other, probe=np.concatenate([0.5 * other.probe, other.probe])))
    assert "20.0 % of the power is lost" in caplog.text
    beam = dict(session.beam(other))
    beam["mask"] = beam["mask"].copy()
    beam["mask"][3] = 0
    counts = np.rint(other.diffraction[:3, None] ** 2 / 1000).astype(np.uint16)
    cleared = counts.copy()
    cleared[:, :, 3] = 0
    assert np.array_equal(session.predict(counts, beam=beam), session.predict(cleared, beam=beam))


def test_general_artifacts_are_not_deployed_as_they_are(artifact):
    with pytest.raises(InputError, match="--specialise SCAN"):
        read_artifacts([artifact])


def test_the_same_weights_serve_patterns_of_another_size(run, tmp_path):
    out = tmp_path / "larger.onnx"
    contract = export_run(run, out, ExportOptions(general=True), n=40).contract
    assert (contract.n, contract.trained_for.n) == (40, [N])
    config = LinesConfig(n=40, step=4, train_grid=6, photons=1e6)
    scan = simulate_scan(config, 6, np.random.SeedSequence(3), "larger.npz")
    reconstruction = reconstruct(Session(out, "cpu"), scan)
    assert reconstruction.misfit.verdict != "wrong"
    assert reconstruction.warnings[0].startswith("N: the network was trained on patterns of 32 pixels")
    with pytest.raises(InputError, match="--general"):
        export_run(run, tmp_path / "a.onnx", n=40)
    with pytest.raises(InputError, match="at least 16"):
        export_run(run, tmp_path / "a.onnx", ExportOptions(general=True), n=8)


def test_options_that_contradict_are_refused(run, tmp_path):
    with pytest.raises(InputError, match="--modes 2"):
        export_run(run, tmp_path / "a.onnx", ExportOptions(modes=2))
    with pytest.raises(InputError, match="--precision fp16"):
        export_run(run, tmp_path / "a.onnx", ExportOptions(general=True, precision="fp16"))
