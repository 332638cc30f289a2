"""What `ptychonnx deploy triton` writes, on a Triton server in poll mode."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import numpy as np
import pytest

# The server of `make test-triton`.
pytest.importorskip("tests.triton.server")

from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.remote import RemoteSession
from ptychonnx.runtime.reconstruction import reconstruct
from tests.export.deployed import counts_artifact, group_artifact, offsets_artifact
from tests.export.small_network import scan_of_noise
from tests.harness.conftest import make_contract, write_oracle

grpc = pytest.importorskip("tritonclient.grpc")

POLL = ("--model-control-mode=poll", "--repository-poll-secs=1")


def ask(client, model: str, patterns: np.ndarray, version: str = "") -> tuple[str, np.ndarray]:
    """The version that answered, and complex patches."""
    given = grpc.InferInput("diffraction", patterns.shape, "FP32")
    given.set_data_from_numpy(patterns)
    answer = client.infer(model, [given], model_version=version)
    parts = answer.as_numpy("object")
    return answer.get_response().model_version, np.moveaxis(parts[..., 0] + 1j * parts[..., 1], -1, 1)


def label(client, model: str) -> str:
    """Run label in the contract that the server gives."""
    config = client.get_model_config(model).config
    return Contract.from_json(config.parameters[CONTRACT_KEY].string_value, "the server").label


def test_every_artifact_loads_warms_up_and_answers_like_the_file(
    triton, run, four_artifacts, lines_scan, tmp_path
):
    code, _, err = run("deploy", "triton", *four_artifacts, "--repository", tmp_path / "repository")
    assert code == 0, err
    server = triton("--log-verbose=1")
    patterns = lines_scan.diffraction[:5, None]
    with grpc.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        for path in four_artifacts:
            server.wait(lambda name=path.stem: server.ready(name, "1"), 60, f"ready for {path.stem}")
            version, found = ask(client, path.stem, patterns)
            assert version == "1"
            np.testing.assert_allclose(found, Session(path, "cpu").predict(patterns), rtol=1e-6)
            assert label(client, path.stem) == path.stem
            for size in (1, 16):
                assert f"model '{path.stem}' instance {path.stem}" in server.log()
                assert f"warmup sample 'reference_{size}'" in server.log()


def test_new_versions_take_over_without_a_failed_request(triton, run, lines_scan, tmp_path):
    repository = tmp_path / "repository"
    path = tmp_path / "net.onnx"

    def deploy(name: str, *options: object) -> None:
        write_oracle(path, lines_scan, make_contract(name, lines_scan))
        code, _, err = run("deploy", "triton", path, "--repository", repository, *options)
        assert code == 0, err

    deploy("first")
    server = triton(*POLL)
    server.wait(lambda: server.ready("net", "1"), 60, "ready")
    served: list[str] = []
    failed: list[Exception] = []
    stop = threading.Event()

    def load() -> None:
        with grpc.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
            while not stop.is_set():
                try:
                    served.append(ask(client, "net", lines_scan.diffraction[:1, None])[0])
                except Exception as error:
                    failed.append(error)
                    time.sleep(0.05)

    client = grpc.InferenceServerClient(f"127.0.0.1:{server.grpc}")
    asking = threading.Thread(target=load)
    asking.start()
    try:
        server.wait(lambda: bool(served), 10, "answering")
        deploy("second", "--append-version")
        server.wait(lambda: served[-1] == "2", 30, "at version 2")
        assert label(client, "net") == "second"
        deploy("third", "--append-version", "--prune", 2, "--serve", 2)
        server.wait(lambda: served[-1] == "3" and not server.ready("net", "1"), 30, "at version 3")
        assert server.ready("net", "2")
        name_a_corrupt_version(repository / "net", 4)
        server.wait(lambda: "failed to load 'net' version 4" in server.log(), 30, "at version 4")
        time.sleep(1)
        assert served[-1] == "3"
        # The next deployment leaves the corrupt version out.
        deploy("fifth", "--append-version")
        server.wait(lambda: served[-1] == "5", 30, "at version 5")
        assert label(client, "net") == "fifth"
    finally:
        stop.set()
        asking.join()
        client.close()
    assert not failed
    assert sorted(set(served)) == ["1", "2", "3", "5"]
    assert served == sorted(served)


def name_a_corrupt_version(folder: Path, version: int) -> None:
    """By hand, since the command checks what it deploys."""
    (folder / str(version)).mkdir()
    (folder / str(version) / "model.onnx").write_bytes(b"half a file")
    config = (folder / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text(
        config.replace(f"versions: {version - 1}\n", f"versions: {version - 1}\n    versions: {version}\n")
    )


@pytest.mark.parametrize(
    "make",
    [counts_artifact, group_artifact, offsets_artifact],
    ids=["counts", "gridsize 2", "gridsize 2 with offsets"],
)
def test_counts_and_groups_are_reconstructed_as_here(triton, run, make, tmp_path):
    path = make(tmp_path / "net.onnx")
    code, _, err = run("deploy", "triton", path, "--repository", tmp_path / "repository")
    assert code == 0, err
    server = triton()
    server.wait(lambda: server.ready("net", "1"), 60, "ready")
    scan = scan_of_noise(49)
    expected = reconstruct(Session(path, "cpu"), scan)
    for scheme in ("http", "grpc"):
        with contextlib.closing(RemoteSession(server.url(scheme, "net"))) as session:
            found = reconstruct(session, scan)
        np.testing.assert_allclose(found.stitched.object, expected.stitched.object, rtol=1e-5, atol=1e-6)
