"""A server that only answers: the same networks, there and here."""

from __future__ import annotations

import contextlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ptychonnx.harness.evaluation.evaluate import evaluate
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.remote import RemoteSession
from ptychonnx.runtime.progress import Callback
from ptychonnx.runtime.reconstruction import reconstruct
from tests.harness.conftest import make_contract, small_scan, write_oracle
from tests.triton.server import add_model

SCHEMES = ["http", "grpc"]
LABELS = ["pinn_cnn", "pinn_fno", "pinn_hybrid", "baseline"]


def figures(row: dict) -> dict[str, float]:
    """All numbers in the metrics of a row."""
    found = {}

    def walk(value, name):
        if isinstance(value, dict):
            for key, each in value.items():
                walk(each, f"{name}.{key}")
        elif isinstance(value, list):
            for index, each in enumerate(value):
                walk(each, f"{name}.{index}")
        elif isinstance(value, float):
            found[name] = value

    walk({"amplitude": row["amplitude"], "phase": row["phase"]}, "")
    return found


def same_metrics(server, scheme, artifacts, names, scan, out):
    """Evaluate artifacts here and on the server; their metrics agree to 1e-5."""
    with contextlib.ExitStack() as stack:
        remote = [RemoteSession(server.url(scheme, name)) for name in names]
        for session in remote:
            stack.callback(session.close)
        evaluate([*artifacts, *remote], [scan], out)
    rows = json.loads((out / "metrics.json").read_text())["rows"]
    for artifact, session in zip(artifacts, remote, strict=True):
        label = session.contract.label
        here, there = rows[f"{label} ({artifact.stem})"], rows[f"{label} ({session.name})"]
        assert here["collapsed"] == there["collapsed"]
        assert here["timing"]["requests"] is None
        assert there["timing"]["requests"]["patterns"] == len(scan)
        assert there["timing"]["requests"]["retries"] == 0
        expected, found = figures(here), figures(there)
        assert expected.keys() == found.keys()
        assert len(expected) > 10
        for name, value in expected.items():
            # A point of a correlation curve may be near 0: it is judged on the scale of the curve, which is 1.
            scale = 1.0 if ".frc.correlation." in name else abs(value)
            assert abs(found[name] - value) <= 1e-5 * scale, (label, name, value, found[name])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_artifact_evaluates_as_it_does_here(served, scheme, four_artifacts, lines_scan, tmp_path):
    same_metrics(served, scheme, four_artifacts, LABELS, lines_scan, tmp_path / "report")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_trained_networks_evaluate_as_they_do_here(triton, scheme, tmp_path):
    demo = Path(os.environ.get("PTYCHONNX_DEMO", Path(__file__).resolve().parents[2] / "demo"))
    artifacts = sorted((demo / "models").glob("*.onnx"))
    if not artifacts:
        pytest.skip(f"no trained networks in {demo}, `make demo` trains them")
    for artifact in artifacts:
        add_model(tmp_path / "repository", artifact.stem, artifact)
    scan = read_scan(demo / "data" / "test.npz").subset(slice(0, 100))
    names = [artifact.stem for artifact in artifacts]
    same_metrics(triton(), scheme, artifacts, names, scan, tmp_path / "report")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_object_is_the_same_bit_for_bit_in_any_batch(served, scheme, batch, four_artifacts, lines_scan):
    expected = reconstruct(Session(four_artifacts[1], "cpu"), lines_scan, batch=batch)
    session = RemoteSession(served.url(scheme, "pinn_fno"), in_flight=5)
    done = []
    found = reconstruct(session, lines_scan, batch=batch, progress=Callback(done.append))
    session.close()
    np.testing.assert_array_equal(found.stitched.object, expected.stitched.object)
    assert done[-1].done == 64
    assert found.requests is not None
    assert found.requests.requests == len(done) == -(-64 // batch)
    assert found.requests.versions == ("1",)
    assert 0 < found.requests.median_ms <= found.requests.p99_ms <= found.requests.longest_ms


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_batch_larger_than_the_model_takes_is_sent_in_parts(served, scheme, lines_scan):
    session = RemoteSession(served.url(scheme, "patient"))
    found = reconstruct(session, lines_scan, batch=64)
    session.close()
    assert found.requests is not None
    assert found.requests.requests == 8


@pytest.mark.parametrize("scheme", SCHEMES)
def test_requests_of_one_pattern_are_computed_in_batches(served, scheme, lines_scan):
    def counters():
        return {
            name: served.metric(f"nv_inference_{name}", "patient")
            for name in ("request_success", "count", "exec_count", "request_failure")
        }

    before = counters()
    session = RemoteSession(served.url(scheme, "patient"), in_flight=16)
    reconstruct(session, lines_scan, batch=1)
    session.close()
    change = {name: value - before[name] for name, value in counters().items()}
    assert change["request_success"] == change["count"] == 64
    assert change["request_failure"] == 0
    # 16 in flight, batches of 8: two or three each, and no more than four requests alone at the end.
    assert change["exec_count"] <= 16


@pytest.mark.parametrize("scheme", SCHEMES)
def test_sessions_side_by_side_do_not_mix_their_answers(served, scheme, four_artifacts, lines_scan):
    def judge(artifact):
        session = RemoteSession(served.url(scheme, artifact.stem))
        found = reconstruct(session, lines_scan, batch=3)
        session.close()
        return found.stitched.object

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(judge, four_artifacts))
    for artifact, image in zip(four_artifacts, found, strict=True):
        np.testing.assert_array_equal(
            image, reconstruct(Session(artifact, "cpu"), lines_scan).stitched.object
        )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_command_line_reconstructs_and_says_how_the_server_did(
    served, scheme, run, lines_scan, four_artifacts, tmp_path
):
    from ptychonnx.runtime.formats.readers.native import write_scan

    write_scan(tmp_path / "scan.npz", lines_scan)
    url = served.url(scheme, "pinn_fno")
    code, out, error = run("reconstruct", "--server", url, tmp_path / "scan.npz", "--out", tmp_path / "o.h5")
    assert code == 0, error
    assert f"on {url} (onnxruntime" in out
    assert "4 requests, at most 4 in flight: latency" in out
    code, out, error = run(
        "evaluate", four_artifacts[1], "--server", url, "--server", served.url(scheme, "silent"),
        "--contract", four_artifacts[1], "--contract", four_artifacts[0],
        "--scan", tmp_path / "scan.npz", "--out", tmp_path / "report",
    )  # fmt: skip
    assert code == 0, error
    assert out.count("requests, at most 4 in flight") == 2
    assert "requests, at most" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_not_there_is_said_in_one_line(served, scheme, run, lines_scan, four_artifacts, tmp_path):
    from ptychonnx.runtime.formats.readers.native import write_scan

    write_scan(tmp_path / "scan.npz", lines_scan)
    other = small_scan(size=8)
    small = write_oracle(tmp_path / "small.onnx", other, make_contract("pinn_small", other))
    closed = f"{scheme}://127.0.0.1:9/pinn_fno"
    cases = [
        (closed, [], "no server answers"),
        (served.url(scheme, "absent"), [], "the server has no model 'absent'"),
        (served.url(scheme, "pinn_fno/7"), [], "no version '7' of 'pinn_fno', it has 1"),
        (served.url(scheme, "silent"), [], "publishes no ptychonnx.contract, expected --contract"),
        (served.url(scheme, "silent"), ["--contract", small], "shape [batch, 1, 8, 8], the server has"),
        (served.url(scheme, "pinn_fno"), ["--contract", four_artifacts[0]], "published contract differs"),
    ]
    for url, more, message in cases:
        code, _, error = run(
            "reconstruct", "--server", url, tmp_path / "scan.npz", "--out", tmp_path / "o.h5", *more
        )
        assert code == (2 if "silent" in url and not more else 3), (url, error)
        assert message in error
        assert error.startswith(f"Error: {url}: ")
        assert error.count("\n") == 1
    assert not (tmp_path / "o.h5").exists()
