"""Speed is measured against the network that was exported, and the report keeps end-to-end results."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import ptychonnx
from ptychonnx.export.artifact.export_run import export_run
from ptychonnx.harness.bench.measuring_process import LoadedVariants, MeasuringProcess
from ptychonnx.harness.bench.openvino_variants import load_openvino
from ptychonnx.harness.bench.speed import measure_speed
from ptychonnx.harness.bench.speed_report import ArtifactSpeed, SpeedReport, write_report
from ptychonnx.runtime.errors import EnvironmentFailure, InputError, UnsupportedError
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.inference import Session
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.fitting import train
from ptychonnx.train.registry import get_architecture


def loaded(values=(1.0, 2.0), notes=None):
    return LoadedVariants(
        {f"form {value}": partial(np.full, 3, value, np.float32) for value in values}, notes
    )


def broken():
    raise ValueError("this cannot be compiled\nand more of it")


def gone():
    os._exit(9)


def threads_seen():
    return loaded(notes=(os.environ["OMP_NUM_THREADS"], os.environ["TF_NUM_INTRAOP_THREADS"], os.getpid()))


def test_forms_run_in_a_process_of_their_own_with_its_threads():
    with MeasuringProcess(threads_seen, 3) as process:
        openmp, tensorflow, identifier = process.notes
        assert (openmp, tensorflow) == ("3", "3")
        assert identifier != os.getpid()
        np.testing.assert_array_equal(process.outputs["form 2.0"], [2, 2, 2])
        assert process.time("form 1.0") > 0
    assert os.environ.get("OMP_NUM_THREADS") != "3"


@pytest.mark.parametrize(
    ("load", "message", "kind"),
    [
        (broken, "bench: this cannot be compiled$", UnsupportedError),
        (gone, "ended unexpectedly, possibly for lack of memory", EnvironmentFailure),
    ],
)
def test_a_variant_that_does_not_run_is_reported_in_one_line(load, message, kind):
    with pytest.raises(kind, match=message):
        MeasuringProcess(load, 1)


@pytest.fixture(scope="module")
def trained(lines_scan, tmp_path_factory):
    """A tiny run and its artifact."""
    pytest.importorskip("tf2onnx")
    folder = tmp_path_factory.mktemp("speed")
    config = NetworkConfig(n=16, width=4, blocks=1, first_steps=2, final_steps=1)
    train(lines_scan, get_architecture("baseline"), config, TrainingConfig(epochs=1, batch=8), folder / "run")
    return folder / "run", export_run(folder / "run", folder / "baseline.onnx").path


def test_an_artifact_is_measured_against_every_form_of_its_network(trained, tmp_path, run):
    folder, artifact = trained
    options = [
        "--run",
        folder,
        "--json",
        tmp_path / "bench.json",
        "--rounds",
        2,
        "--batch",
        4,
        "--threads",
        1,
    ]
    code, out, error = run("bench", artifact, *options)
    assert code == 0, error
    assert "tf.function" in out
    found = ArtifactSpeed.model_validate(
        {
            key: value
            for key, value in json.loads((tmp_path / "bench.json").read_text())["artifacts"][
                "baseline"
            ].items()
            if key != "end_to_end_ratio"
        }
    )
    forms = found.forms
    assert {"eager", "tf.function", "XLA", "artifact", "as exported"} <= set(forms)
    assert found.denormal_constants == 0
    assert 0 <= found.denormal_intermediates < 0.01
    assert "denormal 0.0%" in " ".join(out.split())  # the cell may be wrapped
    # The network that was exported, and no other.
    assert all(
        forms[name].relative_error < 1e-5 for name in ("tf.function", "XLA", "artifact", "as exported")
    )
    assert found.speedup_eager == forms["eager"].over_artifact
    assert found.compiled_form in ("tf.function", "XLA")
    assert forms[found.compiled_form].speedup_compiled == 1
    assert found.speedup_compiled == forms["artifact"].speedup_compiled
    assert found.judged["int8"].startswith(("accepted", "refused"))
    assert (
        ("int8" in forms) == found.judged["int8"].startswith("accepted") == (found.int8_speedup is not None)
    )
    # Two decoders of 5 convolutions each on 16 x 16 pixels, behind an encoder of two.
    by_hand = 16 * 16 * 9 * (4 + 16) + 2 * (8 * 8 * 9 * 2 * 16 + 16 * 16 * 9 * (16 + 4))
    assert found.gflop_trained == pytest.approx(2e-9 * by_hand)
    assert found.gflop_executed < found.gflop_trained


def test_lower_precisions_are_judged_on_the_scan_that_is_given(trained, lines_scan, scan_of, tmp_path, run):
    folder, artifact = trained
    scans = {"fitting": lines_scan, "wrong": scan_of(size=32)}
    for name, scan in scans.items():
        write_scan(tmp_path / f"{name}.npz", scan)
    options = [
        "--run",
        folder,
        "--rounds",
        1,
        "--batch",
        2,
        "--threads",
        1,
        "--json",
        tmp_path / "bench.json",
    ]
    code, _, error = run("bench", artifact, *options, "--judge-on", tmp_path / "fitting.npz")
    assert code == 0, error
    assert json.loads((tmp_path / "bench.json").read_text())["judged_on"] == "fitting.npz"
    code, _, error = run("bench", artifact, *options, "--judge-on", tmp_path / "wrong.npz")
    assert code == 2
    assert "wrong.npz" in error


@pytest.mark.parametrize(("patterns", "threads"), [(8, 2), (9, 2), (3, 2), (2, 1)])
def test_openvino_gives_what_onnxruntime_gives_shared_among_streams_or_not(
    four_artifacts, lines_scan, patterns, threads
):
    pytest.importorskip("openvino")
    session = Session(four_artifacts[0], "cpu", 1)
    groups = np.arange(2 * patterns).reshape(2, patterns, 1)
    (first,), (other,) = (session.inputs(lines_scan, each) for each in groups)
    (form,) = load_openvino(four_artifacts[0].read_bytes(), [first], threads, ["f32"]).variants.values()
    found = form()
    np.testing.assert_allclose(found, session._run([first], {}), rtol=1e-5, atol=1e-5)
    again = form.func(other)
    np.testing.assert_allclose(again, session._run([other], {}), rtol=1e-5, atol=1e-5)
    # What was given before is not overwritten by the next run.
    np.testing.assert_allclose(found, session._run([first], {}), rtol=1e-5, atol=1e-5)
    assert np.abs(found - again).max() > 1e-3


def test_the_native_network_does_as_many_last_steps_as_the_artifact(lines_scan, tmp_path, run):
    pytest.importorskip("tf2onnx")
    config = NetworkConfig(n=16, width=4, blocks=1, first_steps=2, final_steps=1)
    training = TrainingConfig(epochs=1, batch=8, overlap=1, learning_rate=0.02)
    train(lines_scan, get_architecture("cnn"), config, training, tmp_path / "run")
    artifact = tmp_path / "cnn.onnx"
    code, _, error = run("export", tmp_path / "run", "--out", artifact, "--final-steps", 2)
    assert code == 0, error
    assert "2 of phase retrieval" in run("inspect", artifact)[1]
    report = measure_speed([artifact], [tmp_path / "run"], batch=2, rounds=1, threads=1, reduced=False)
    forms = report.artifacts["cnn"].forms
    assert all(forms[name].relative_error < 1e-4 for name in ("tf.function", "artifact", "as exported"))


def test_without_its_run_an_artifact_is_measured_against_a_matrix_product(four_artifacts):
    report = measure_speed(four_artifacts[:1], batch=2, rounds=2, threads=1)
    found = report.artifacts["pinn_cnn"]
    assert (found.speedup_eager, found.speedup_compiled, found.gemm_fraction, found.int8_speedup) == (
        None,
    ) * 4
    assert found.gemm_fraction_executed > 0
    assert found.forms["artifact"].over_artifact == 1


def test_files_of_export_module_are_measured_on_their_own_inputs(tmp_path):
    torch = pytest.importorskip("torch")

    class Scaled(torch.nn.Module):
        def forward(self, x, scale, grid):
            return torch.fft.irfft(torch.fft.rfft(x) * grid, n=8) * scale[:, None], x.argmax(-1)

    torch.manual_seed(0)
    inputs = (torch.rand(2, 8), torch.rand(2), torch.rand(5))
    path = tmp_path / "scaled.onnx"
    ptychonnx.export_module(Scaled(), inputs, path, shared=["grid"])
    report = measure_speed([path], batch=3, rounds=1, threads=1)
    assert "artifact" in report.artifacts["scaled"].forms
    assert report.artifacts["scaled"].forms["artifact"].relative_error == 0
    plain = tmp_path / "plain.onnx"
    ptychonnx.export_module(torch.nn.Linear(4, 3), torch.rand(2, 4), plain)
    forms = measure_speed([plain], batch=4, rounds=1, threads=1).artifacts["plain"].forms
    assert all(form.relative_error < 1e-5 for form in forms.values())


def test_what_cannot_be_compared_is_refused(trained, four_artifacts, run):
    folder, artifact = trained
    with pytest.raises(InputError, match="no artifact was exported from this run"):
        measure_speed(four_artifacts[:1], [folder])
    with pytest.raises(InputError, match="same name"):
        measure_speed([artifact, artifact])
    with pytest.raises(InputError, match="numbers above 0"):
        measure_speed([artifact], rounds=0)
    for options, message in (
        (["--concurrency", 2], "Missing option '--scan'"),
        (["--rate", 5], "Missing option '--scan'"),
        (["--picture", "x.png"], "Missing option '--scan'"),
        (["--provider", "cuda"], "No such option: --provider"),
    ):
        code, _, error = run("bench", artifact, *options)
        assert code == 2
        assert message in error


def report(*names):
    one = ArtifactSpeed(
        speedup_eager=None,
        speedup_compiled=None,
        compiled_form=None,
        gemm_fraction=None,
        gemm_fraction_executed=0.5,
        int8_speedup=None,
        judged={},
        gflop_trained=None,
        gflop_executed=0.1,
        gemm_gflop_per_second=100.0,
        sha256="0",
        forms={},
    )
    return SpeedReport(
        batch=16,
        rounds=1,
        threads=1,
        processor="some",
        vector_instructions=[],
        versions={},
        artifacts=dict.fromkeys(names, one),
    )


def test_what_was_measured_of_the_pipeline_is_kept(tmp_path: Path):
    path, pipeline = tmp_path / "bench.json", tmp_path / "pipeline.json"
    write_report(report("a", "b"), path)
    assert json.loads(path.read_text())["memory_ratio"] is None
    pipeline.write_text(json.dumps({"end_to_end_ratio": {"a": 1.05}, "memory_ratio": 1.1, "batch": 16}))
    write_report(report("a", "b"), path, pipeline)
    write_report(report("a", "c"), path)
    found = json.loads(path.read_text())
    assert found["memory_ratio"] == 1.1
    assert {name: each["end_to_end_ratio"] for name, each in found["artifacts"].items()} == {
        "a": 1.05,
        "c": None,
    }


def test_a_file_that_is_no_result_is_refused_and_left_as_it_is(tmp_path: Path):
    path = tmp_path / "bench.json"
    path.write_text("[1]")
    with pytest.raises(InputError, match="holds a list, expected a JSON object"):
        write_report(report("a"), path)
    assert path.read_text() == "[1]"
    with pytest.raises(InputError, match="no such file"):
        write_report(report("a"), tmp_path / "new.json", tmp_path / "pipeline.json")
