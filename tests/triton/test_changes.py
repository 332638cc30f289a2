"""A server to which something happens while it is asked."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ptychonnx.runtime.errors import ServerError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.remote import Credentials, RemoteSession
from ptychonnx.runtime.progress import Callback, ProgressUpdate
from ptychonnx.runtime.reconstruction import reconstruct
from tests.certificates import make_certificates
from tests.triton.server import add_model, add_version

SCHEMES = ["http", "grpc"]
POLL = ("--model-control-mode=poll", "--repository-poll-secs=1")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_killed_in_the_middle_of_a_reconstruction_loses_no_pattern(
    triton, scheme, four_artifacts, lines_scan, tmp_path
):
    add_model(tmp_path / "repository", "pinn_fno", four_artifacts[1])
    server = triton()
    expected = reconstruct(Session(four_artifacts[1], "cpu"), lines_scan)
    session = RemoteSession(server.url(scheme, "pinn_fno"), in_flight=4)
    done = []

    def progress(step: ProgressUpdate) -> None:
        done.append(step.done)
        if len(done) == 20:
            server.kill()
            server.start(wait=False)

    found = reconstruct(session, lines_scan, batch=1, progress=Callback(progress))
    session.close()
    assert len(done) == 64
    np.testing.assert_array_equal(found.stitched.object, expected.stitched.object)
    np.testing.assert_array_equal(found.stitched.weight, expected.stitched.weight)
    assert found.requests is not None
    assert found.requests.requests == found.requests.patterns == 64
    assert found.requests.retries > 0
    # The server was away for longer than any request of a server that is there takes.
    assert found.requests.longest_ms > 300


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_does_not_come_back_ends_the_reconstruction_in_one_line(
    triton, scheme, four_artifacts, lines_scan, tmp_path
):
    add_model(tmp_path / "repository", "pinn_fno", four_artifacts[1])
    server = triton()
    session = RemoteSession(server.url(scheme, "pinn_fno"), patience=1.0)
    done = []

    def progress(step: ProgressUpdate) -> None:
        done.append(step.done)
        if len(done) == 5:
            server.kill()

    began = time.monotonic()
    with pytest.raises(ServerError, match=r"; \d+ of 64 groups of lines were answered$") as caught:
        reconstruct(session, lines_scan, batch=1, progress=Callback(progress))
    session.close()
    assert time.monotonic() - began < 10
    assert "\n" not in str(caught.value)


def load(server, scheme, model, scan, stop, in_flight=3):
    """Reconstruct again and again until told to stop: (version, object) of each."""
    session = RemoteSession(server.url(scheme, model), in_flight=in_flight, patience=0)
    found = []
    try:
        while not stop.is_set():
            made = reconstruct(session, scan, batch=4)
            found.append((made.requests.versions, made.stitched.object))
    finally:
        session.close()
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_new_version_is_picked_up_without_a_failed_request(
    triton, scheme, four_artifacts, lines_scan, tmp_path
):
    old, new = four_artifacts[1], four_artifacts[2]
    add_model(tmp_path / "repository", "network", old)
    server = triton(*POLL)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        # Without patience: a single failed request would end the run with an error.
        running = pool.submit(load, server, scheme, "network", lines_scan, stop)
        try:
            time.sleep(1)
            add_version(tmp_path / "repository", "network", 2, new.read_bytes())
            server.wait(lambda: server.ready("network", "2"), 20, "ready with version 2")
            server.wait(lambda: not server.ready("network", "1"), 20, "done with version 1")
            time.sleep(0.5)
        finally:
            stop.set()
        found = running.result(30)
    versions = [each for each, _ in found]
    assert versions[0] == ("1",)
    assert versions[-1] == ("2",)
    expected = {
        ("1",): reconstruct(Session(old, "cpu"), lines_scan).stitched.object,
        ("2",): reconstruct(Session(new, "cpu"), lines_scan).stitched.object,
    }
    for each, image in found:
        if len(each) == 1:
            np.testing.assert_array_equal(image, expected[each])
    assert server.metric("nv_inference_request_failure", "network") == 0


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_corrupt_version_is_refused_while_the_old_one_serves(
    triton, scheme, damage, four_artifacts, lines_scan, tmp_path
):
    artifact = four_artifacts[1]
    content = artifact.read_bytes()
    add_model(tmp_path / "repository", "network", artifact)
    server = triton(*POLL)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(load, server, scheme, "network", lines_scan, stop)
        try:
            time.sleep(0.5)
            damaged = content[: len(content) // 2] if damage == "cut" else b"not a model"
            add_version(tmp_path / "repository", "network", 2, damaged)
            server.wait(
                lambda: "failed to load 'network' version 2" in server.log(), 20, "refusing version 2"
            )
            time.sleep(1)
        finally:
            stop.set()
        found = running.result(30)
    assert {version for version, _ in found} == {("1",)}
    assert not server.ready("network", "2")
    # And a client that comes now is served as well, though Triton calls itself not ready.
    session = RemoteSession(server.url(scheme, "network"))
    image = reconstruct(session, lines_scan).stitched.object
    session.close()
    np.testing.assert_array_equal(image, reconstruct(Session(artifact, "cpu"), lines_scan).stitched.object)


def test_a_token_opens_what_is_restricted_over_http(triton, four_artifacts, lines_scan, tmp_path):
    add_model(tmp_path / "repository", "network", four_artifacts[1])
    server = triton(
        "--http-restricted-api=inference,metadata,model-config:authorization=Bearer right-word",
    )
    url = server.url("http", "network")
    session = RemoteSession(url, credentials=Credentials(token="right-word"))
    assert reconstruct(session, lines_scan).patterns == 64
    session.close()
    for access in (Credentials(), Credentials(token="wrong-word")):
        with pytest.raises(ServerError, match="requires a token, or rejects this one") as caught:
            RemoteSession(url, credentials=access)
        assert "word" not in str(caught.value)


@pytest.fixture
def certificates(tmp_path) -> Path:
    return make_certificates(tmp_path)


def test_grpc_with_certificates_on_both_sides(triton, certificates, four_artifacts, lines_scan, tmp_path):
    add_model(tmp_path / "repository", "network", four_artifacts[1])
    server = triton(
        "--grpc-use-ssl=true",
        "--grpc-use-ssl-mutual=true",
        f"--grpc-server-cert={certificates / 'server.pem'}",
        f"--grpc-server-key={certificates / 'server.key'}",
        f"--grpc-root-cert={certificates / 'authority.pem'}",
    )
    url = server.url("grpcs", "network")
    ours = {"certificate": certificates / "client.pem", "key": certificates / "client.key"}
    session = RemoteSession(url, credentials=Credentials(ca=certificates / "authority.pem", **ours))
    assert reconstruct(session, lines_scan).patterns == 64
    session.close()
    with pytest.raises(ServerError, match="certificate of the server is not trusted"):
        RemoteSession(url, credentials=Credentials(ca=certificates / "stranger.pem", **ours))
    with pytest.raises(ServerError, match="grpcs://"):
        RemoteSession(url, credentials=Credentials(ca=certificates / "authority.pem"), timeout=5)
    with pytest.raises(ServerError, match="grpc://"):
        RemoteSession(server.url("grpc", "network"), timeout=5)
