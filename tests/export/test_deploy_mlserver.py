"""MLServer: the layout, and, where it is installed, the server itself on this machine's loopback."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptychonnx.export.deploy.deploy_options import DeployOptions, MLServerOptions
from ptychonnx.export.deploy.deployable import read_artifacts
from ptychonnx.export.deploy.mlserver import plan_mlserver
from ptychonnx.export.deploy.versioned_folder import apply
from ptychonnx.export.verification.reference_pair import contract_reference
from ptychonnx.harness.evaluation.evaluate import evaluate
from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.remote import RemoteSession
from ptychonnx.runtime.scan import Reference
from ptychonnx.runtime.validation import checked
from tests.export.deployed import (
    artifact,
    counts_artifact,
    files_of,
    fixed_artifact,
    golden,
    offsets_artifact,
)
from tests.export.small_network import scan_of_noise

VERSION_FILES = ("model.onnx", "model-settings.json", "ptychonnx_mlserver.py")


def deploy(root, *paths, server=MLServerOptions(), **options):  # noqa: B008 - frozen
    plan = plan_mlserver(root, read_artifacts(paths), DeployOptions(**options), server)
    apply(plan)
    return plan


def settings_of(root, name="small", version=1):
    return json.loads((root / name / str(version) / "model-settings.json").read_text())


def test_the_folder_is_the_golden_one(tmp_path):
    root = tmp_path / "mlserver"
    deploy(root, artifact(tmp_path / "small.onnx"), threads=2)
    assert files_of(root) == {"settings.json", "small/README.md"} | {
        f"small/1/{name}" for name in VERSION_FILES
    }
    for name, path in (
        ("mlserver_model.json", "small/1/model-settings.json"),
        ("mlserver.json", "settings.json"),
    ):
        text = (root / path).read_text()
        assert text == golden(name, text)


def test_it_listens_on_the_loopback_unless_told_otherwise(tmp_path):
    deploy(tmp_path / "a", artifact(tmp_path / "small.onnx"))
    assert json.loads((tmp_path / "a" / "settings.json").read_text())["host"] == "127.0.0.1"
    with pytest.raises(InputError, match="setting host"):
        checked(MLServerOptions, {"host": "a b"})


def test_settings_that_are_there_stay(tmp_path):
    root = tmp_path / "mlserver"
    path = artifact(tmp_path / "small.onnx")
    deploy(root, path)
    (root / "settings.json").write_text('{"host": "127.0.0.1", "mine": 1}')
    plan = deploy(root, path, append_version=True)
    assert plan.notes == (f"keep    {root / 'settings.json'}, which exists already",)
    assert (root / "settings.json").read_text() == '{"host": "127.0.0.1", "mine": 1}'


def test_versions_carry_their_number_and_go(tmp_path):
    root = tmp_path / "mlserver"
    path = artifact(tmp_path / "small.onnx")
    deploy(root, path)
    deploy(root, path, append_version=True)
    deploy(root, path, append_version=True, prune=2)
    assert sorted(name for name in files_of(root) if name.endswith(".onnx")) == [
        "small/2/model.onnx",
        "small/3/model.onnx",
    ]
    assert settings_of(root, version=3)["parameters"]["version"] == "3"


def test_a_fixed_batch_is_not_batched(tmp_path):
    deploy(tmp_path / "mlserver", fixed_artifact(tmp_path / "small.onnx", 4))
    settings = settings_of(tmp_path / "mlserver")
    assert "max_batch_size" not in settings
    assert settings["inputs"] == [{"name": "diffraction", "datatype": "FP32", "shape": [4, 1, 16, 16]}]


def test_counts_are_uint16(tmp_path):
    deploy(tmp_path / "mlserver", counts_artifact(tmp_path / "small.onnx"))
    assert settings_of(tmp_path / "mlserver")["inputs"][0]["datatype"] == "UINT16"


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def ask(url: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"{}")


def body(array: np.ndarray, datatype: str = "FP32") -> dict[str, Any]:
    tensor = {
        "name": "diffraction",
        "datatype": datatype,
        "shape": array.shape,
        "data": array.ravel().tolist(),
    }
    return {"inputs": [tensor]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, int]]:
    """MLServer with five models, one of them in two versions: (folder, base of addresses, gRPC port)."""
    executable = os.environ.get("PTYCHONNX_MLSERVER")
    if not executable:
        pytest.skip("PTYCHONNX_MLSERVER names no mlserver, see `make test-mlserver`")
    folder = tmp_path_factory.mktemp("mlserver")
    http, grpc, metrics = free_ports(3)
    root = folder / "root"
    paths = [
        artifact(folder / "small.onnx"),
        fixed_artifact(folder / "fixed.onnx", 4),
        counts_artifact(folder / "counts.onnx"),
        offsets_artifact(folder / "offsets.onnx"),
    ]
    deploy(
        root, *paths, server=MLServerOptions(http_port=http, grpc_port=grpc, metrics_port=metrics), threads=1
    )
    artifact(folder / "small.onnx", label="second")
    deploy(root, folder / "small.onnx", append_version=True, threads=1)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([executable, "start", "."], cwd=root, stdout=log, stderr=log)
    try:
        base = f"http://127.0.0.1:{http}/v2"
        for _ in range(240):
            assert process.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                ask(f"{base}/health/ready")
                break
            time.sleep(0.25)
        else:
            pytest.fail((folder / "log").read_text())
        yield root, base, grpc
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.mlserver
@pytest.mark.parametrize(("name", "datatype"), [("small", "FP32"), ("fixed", "FP32"), ("counts", "UINT16")])
def test_rest_answers_like_the_artifact(served, name, datatype):
    root, base, _ = served
    session = Session(root / name / "1" / "model.onnx", "cpu")
    _, (inputs,) = contract_reference(session.contract)
    answer = ask(f"{base}/models/{name}/infer", body(inputs, datatype))
    (output,) = answer["outputs"]
    found = np.array(output["data"], np.float32).reshape(output["shape"])
    np.testing.assert_allclose(
        np.moveaxis(found[..., 0] + 1j * found[..., 1], -1, 1), session.predict(inputs), rtol=1e-6
    )
    assert (output["name"], output["datatype"]) == ("object", "FP32")


@pytest.mark.mlserver
def test_inputs_of_different_batches_are_refused(served):
    root, base, _ = served
    _, (patterns, offsets) = contract_reference(
        Session(root / "offsets" / "1" / "model.onnx", "cpu").contract
    )
    tensors = [
        {"name": name, "shape": values.shape, "datatype": "FP32", "data": values.ravel().tolist()}
        for name, values in (("diffraction", patterns), ("offsets", offsets[:1]))
    ]
    with pytest.raises(urllib.error.HTTPError) as refusal:
        ask(f"{base}/models/offsets/infer", {"inputs": tensors})
    assert "batches of different sizes" in refusal.value.read().decode()


@pytest.mark.mlserver
def test_grpc_answers_like_the_artifact(served):
    grpc = pytest.importorskip("tritonclient.grpc")
    root, _, port = served
    session = Session(root / "small" / "2" / "model.onnx", "cpu")
    _, (inputs,) = contract_reference(session.contract)
    given = grpc.InferInput("diffraction", inputs.shape, "FP32")
    given.set_data_from_numpy(inputs)
    with grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
        found = client.infer("small", [given]).as_numpy("object")
    np.testing.assert_allclose(
        np.moveaxis(found[..., 0] + 1j * found[..., 1], -1, 1), session.predict(inputs), rtol=1e-6
    )


@pytest.mark.mlserver
@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("name", ["small", "fixed", "counts", "offsets"])
def test_a_scan_is_judged_on_the_server_as_it_is_here(served, name, protocol, tmp_path):
    pytest.importorskip("tritonclient")
    root, base, grpc = served
    newest = max((root / name).glob("*/model.onnx"))
    rng = np.random.default_rng(1)
    noise = scan_of_noise(49)
    known = np.exp(1j * rng.random((80, 80))) * (1 - 0.3 * rng.random((80, 80)))
    scan = replace(noise, reference=Reference(known.astype(np.complex64)))
    address = base.removesuffix("/v2") if protocol == "http" else f"grpc://127.0.0.1:{grpc}"
    with contextlib.closing(RemoteSession(f"{address}/{name}", artifact=newest)) as remote:
        here = evaluate([Session(newest, "cpu")], [scan], tmp_path / "here").rows[0].results[scan.name]
        there = evaluate([remote], [scan], tmp_path / "there").rows[0].results[scan.name]
    np.testing.assert_allclose(there.object, here.object, rtol=1e-5, atol=1e-6)
    for quantity in ("amplitude", "phase"):
        ours, theirs = (getattr(found.comparison, quantity) for found in (here, there))
        for metric in ("mae", "pearson", "ssim"):
            assert getattr(theirs, metric) == pytest.approx(getattr(ours, metric), rel=1e-5)
    assert there.requests.requests > 0


@pytest.mark.mlserver
def test_the_newest_version_answers_with_its_contract(served):
    root, base, _ = served
    found = ask(f"{base}/models/small")
    assert found["versions"] == ["2"]
    contract = Contract.from_json(found["parameters"]["ptychonnx.contract"], "the server")
    assert contract == Session(root / "small" / "2" / "model.onnx", "cpu").contract
    assert contract.label == "second"
    older = ask(f"{base}/models/small/versions/1")["parameters"]["ptychonnx.contract"]
    assert Contract.from_json(older, "the server").label == "small"


@pytest.mark.mlserver
@pytest.mark.parametrize(
    ("shape", "datatype", "reason"),
    [
        ((2, 1, 16, 8), "FP32", "has shape"),
        ((2, 16, 16), "FP32", "has shape"),
        ((2, 1, 16, 16), "FP64", "is float64"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_one_line(served, shape, datatype, reason):
    _, base, _ = served
    with pytest.raises(urllib.error.HTTPError) as error:
        ask(f"{base}/models/small/infer", body(np.ones(shape), datatype))
    assert error.value.code == 400
    assert reason in json.loads(error.value.read())["error"]
