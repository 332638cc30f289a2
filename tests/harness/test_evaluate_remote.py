from __future__ import annotations

import json

import pytest

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed, extra [serve]")

from ptychonnx.harness.evaluation.evaluate import evaluate
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.readers.native import write_scan
from ptychonnx.runtime.inference.remote import RemoteSession
from tests.harness.conftest import make_contract
from tests.runtime.failing_server import FailingGrpcServer, FailingHttpServer


@pytest.fixture(params=[FailingHttpServer, FailingGrpcServer])
def server(request, lines_scan):
    made = request.param(make_contract("pinn_fno", lines_scan).to_json(), lines_scan.size)
    yield made
    made.close()


def url(server) -> str:
    return f"{server.scheme}://127.0.0.1:{server.port}/network"


def test_a_model_that_changes_during_the_scan_is_noted(server, lines_scan, tmp_path):
    session = RemoteSession(url(server))
    # One for the batch that is not counted, and the first of four that are.
    server.script.orders.extend(["", "newer"])
    evaluate([session], [lines_scan], tmp_path)
    session.close()
    row = json.loads((tmp_path / "metrics.json").read_text())["rows"]["pinn_fno"]
    assert row["file"] == url(server)
    assert row["timing"]["requests"]["requests"] == 4
    assert row["timing"]["requests"]["versions"] == ["1", "2"]
    assert any("versions 1 and 2 answered" in note for note in row["notes"])


def test_the_same_label_here_and_on_a_server_is_told_apart(server, four_artifacts, lines_scan, tmp_path):
    session = RemoteSession(url(server))
    evaluate([four_artifacts[1], session], [lines_scan], tmp_path)
    rows = json.loads((tmp_path / "metrics.json").read_text())["rows"]
    assert list(rows) == ["pinn_fno (pinn_fno)", f"pinn_fno ({url(server)})"]
    with pytest.raises(InputError, match="both are labelled 'pinn_fno'"):
        evaluate([session, session], [lines_scan], tmp_path)
    session.close()


def test_arguments_that_contradict_are_refused(server, run, four_artifacts, lines_scan, tmp_path):
    scan = tmp_path / "scan.npz"
    write_scan(scan, lines_scan)
    out = ["--out", tmp_path / "o.h5"]
    for arguments, message in (
        (
            [four_artifacts[0], *out],
            "got 1 files, expected a scan, or an artifact (or --server URL) and a scan",
        ),
        ([four_artifacts[0], scan, "--server", url(server), *out], "got 2 files, expected scans alone"),
        (
            [scan, "--server", url(server), "--contract", "a", "--contract", "b", *out],
            "got 2 --contract for 1 --server",
        ),
        ([scan, "--server", "ftp://x", *out], "ftp://x: not a model URL"),
    ):
        code, _, error = run("reconstruct", *arguments)
        assert code == 2
        assert message in error
        assert error.count("\n") == 1
    code, _, error = run("evaluate", "--scan", scan, "--out", tmp_path / "report")
    assert code == 2
    assert "got 0 artifacts" in error


def test_a_token_from_the_environment_reaches_the_server_and_nothing_else(
    server, run, lines_scan, tmp_path, monkeypatch
):
    monkeypatch.setenv("PTYCHONNX_SERVER_TOKEN", "s3cret-word")
    write_scan(tmp_path / "scan.npz", lines_scan)
    options = ["--scan", tmp_path / "scan.npz", "--out", tmp_path / "report"]
    code, out, error = run("evaluate", "--server", url(server), *options)
    assert code == 0, error
    assert server.script.tokens == {"Bearer s3cret-word"}
    written = b"".join(path.read_bytes() for path in (tmp_path / "report").iterdir())
    assert "s3cret" not in out + error
    assert b"s3cret" not in written
