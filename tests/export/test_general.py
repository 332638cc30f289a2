"""General artifacts: the beam is an input; specialised ones hold one beam and agree with it."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest

pytest.importorskip("lightning")
pytest.importorskip("onnx_ir")

import torch

from ptychonnx.export.artifact.artifact_checks import check_artifact
from ptychonnx.export.artifact.export_options import ExportOptions
from ptychonnx.export.artifact.export_run import export_run
from ptychonnx.export.artifact.specialise import beam_of_probe, beam_of_scan, specialise
from ptychonnx.export.deploy.deployable import read_artifacts
from ptychonnx.export.verification import engines
from ptychonnx.harness.cli.app import main
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.scan.beam_arrays import beam_arrays
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
    return out


@pytest.fixture(scope="module")
def other():
    return scan_with("disk", 1e7)


def native(run, scan, patterns):
    module = load_network(run, read_run(run)).module
    beam = {name: torch.from_numpy(np.asarray(value)) for name, value in beam_arrays(scan, 1).items()}
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


def test_the_general_artifact_explains_a_scan_that_one_with_a_fixed_beam_does_not(run, artifact, other):
    fixed = run.parent / "fixed.onnx"
    export_run(run, fixed)
    general, special = (reconstruct(Session(path, "cpu"), other) for path in (artifact, fixed))
    assert special.misfit.verdict == "wrong"
    assert special.warnings[0].startswith("probe: the scan has another beam")
    assert [line.split(":")[0] for line in general.warnings] == ["photons"]
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


def deploy(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["ptychonnx", "deploy", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return end.code
    return 0


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
        ({"probe": np.ones((1, 2 * N, 2 * N), np.complex64)}, "64 x 64 pixels, .* takes 32 x 32"),
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


def test_counts_with_the_mask_as_an_input(run, other, tmp_path):
    out = tmp_path / "counts.onnx"
    export_run(run, out, ExportOptions(general=True, input="counts", batch=4))
    session = Session(out, "cpu")
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
