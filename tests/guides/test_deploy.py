"""The deploy guide: every command that needs no container and no cluster, as written, on the ports that it names."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.reconstruction import reconstruct
from tests.guides.page import ROOT, commands

PAGE = "docs/how-to/deploy.md"


def same_object(found: Path, artifact: Path, scan) -> None:
    """The file holds what the artifact gives in this process."""
    expected = reconstruct(Session(artifact, "cpu"), scan).stitched.object
    with h5py.File(found) as file:
        np.testing.assert_allclose(np.squeeze(file["object"][()]), expected, rtol=1e-5, atol=1e-6)


def environment_of(variable: str, folder: str) -> Path:
    """A folder that `make test-...` sets up."""
    home = Path(os.environ.get(variable, ROOT / folder))
    if not (home / "installed").is_file():
        pytest.skip(f"nothing is installed in {home}, `make test-{folder.removeprefix('.')}` does it")
    return home


@pytest.mark.triton
def test_triton_in_five_minutes(terminal, patiently, four_artifacts, lines_scan):
    environment_of("PTYCHONNX_TRITON", ".triton")
    deploy, serve, use = commands(PAGE, "Triton")
    assert terminal.run(deploy).count("model.onnx") == 4
    terminal.start(serve, [8000, 8001, 8002])
    said = patiently(lambda: terminal.run(use))
    assert '"ptychonnx.contract"' in said
    assert "on grpc://127.0.0.1:8001/pinn_fno" in said
    same_object(terminal.folder / "object.h5", four_artifacts[1], lines_scan)
    assert (terminal.folder / "repo/pinn_fno/2/model.onnx").is_file()


def test_the_folder_of_openvino_in_five_minutes(terminal):
    (deploy,) = commands(PAGE, "OpenVINO Model Server")
    assert terminal.run(deploy).count("model.onnx") == 4
    assert (terminal.folder / "ovms/config.json").is_file()


@pytest.mark.mlserver
def test_mlserver_in_five_minutes(terminal, patiently, four_artifacts, lines_scan):
    environment_of("PTYCHONNX_MLSERVER_HOME", ".mlserver")
    install, serve, use = commands(PAGE, "MLServer")
    terminal.run(install)
    terminal.start(serve, [8080, 8081])
    said = patiently(lambda: terminal.run(use))
    assert '"ptychonnx.contract"' in said
    same_object(terminal.folder / "object.h5", four_artifacts[1], lines_scan)


@pytest.mark.kserve
def test_the_files_that_a_pod_of_kserve_fetches_are_served(terminal, patiently, four_artifacts, lines_scan):
    """The copy to the storage as written, to an S3 on this machine; fetched by KServe's storage initializer; served."""
    kserve = environment_of("PTYCHONNX_KSERVE", ".kserve")
    environment_of("PTYCHONNX_TRITON", ".triton")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    terminal.environment |= {
        "PATH": f"{terminal.environment['PATH']}:{kserve / 'bin'}",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    terminal.start(f"exec moto_server -H 127.0.0.1 -p {port}", [port])
    terminal.run("aws s3 mb s3://bucket")
    deploy, copy = commands(PAGE, "KServe")
    terminal.run(deploy)
    terminal.run(copy)
    service = yaml.safe_load((terminal.folder / "repo/inference-service.yaml").read_text())
    uri = service["spec"]["predictor"]["model"]["storageUri"]
    fetch = "import sys; from kserve_storage import Storage; Storage.download(*sys.argv[1:])"
    subprocess.run(
        [kserve / "bin/python", "-c", fetch, uri, "pod"],
        cwd=terminal.folder, env=terminal.environment, check=True, timeout=120,
    )  # fmt: skip
    terminal.start("make serve-triton REPOSITORY=pod", [8000, 8001, 8002])
    url = "grpc://127.0.0.1:8001/pinn_fno"
    patiently(lambda: terminal.run(f"ptychonnx reconstruct --server {url} data/test.npz --out object.h5"))
    same_object(terminal.folder / "object.h5", four_artifacts[1], lines_scan)
