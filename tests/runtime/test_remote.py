"""What a remote session does when things go wrong; `tests/triton` shows that it works with a real server."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed, extra [serve]")

from ptychonnx.runtime.errors import InputError, ServerError
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.remote import Credentials, RemoteSession
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import cut_windows
from tests.certificates import make_certificates
from tests.runtime.failing_server import FailingGrpcServer, FailingHttpServer
from tests.runtime.test_session import SIZE, contract, write_identity

SERVERS = {"http": FailingHttpServer, "grpc": FailingGrpcServer}
GROUPS = np.arange(20)[:, None]


@pytest.fixture
def oracle(truth, positions) -> Scan:
    return Scan(cut_windows(np.abs(truth), positions, SIZE), positions, name="oracle")


@pytest.fixture(params=list(SERVERS))
def serve(request):
    """`serve()`: a server, `serve(None)`: one without a contract, and `serve.session(...)`: a session on the last one.

    All are closed at the end.
    """
    with contextlib.ExitStack() as stack:

        def start(*stamp, **options):
            (made,) = stamp or (contract(),)
            text = None if made is None else made.to_json()
            server = SERVERS[request.param](text, **({"side": SIZE} | options))
            stack.callback(server.close)
            start.url = f"{server.scheme}://127.0.0.1:{server.port}/network"
            start.scheme = server.scheme
            return server.script

        def session(**options):
            made = RemoteSession(start.url, **({"timeout": 30.0, "patience": 60.0} | options))
            stack.callback(made.close)
            return made

        start.session = session
        yield start


def answers(session, scan, batch=3):
    """[20, N, N], in the order of the scan."""
    parts = list(session.batches(scan, GROUPS, batch))
    assert np.concatenate([index for index, _ in parts])[:, 0].tolist() == list(range(20))
    return np.concatenate([patches for _, patches in parts])[:, 0]


@pytest.mark.parametrize("in_flight", [1, 3, 30])
def test_answers_come_in_order_and_requests_are_bounded(serve, oracle, in_flight):
    script = serve()
    script.pause = 0.02
    session = serve.session(in_flight=in_flight)
    np.testing.assert_array_equal(answers(session, oracle, 1), oracle.diffraction * np.complex64(1 + 0.5j))
    assert len(script.seen) == 20
    assert script.most_together <= in_flight
    assert in_flight == 1 or script.most_together > 1
    statistics = session.requests
    assert statistics.requests == statistics.patterns == 20
    assert statistics.retries == 0
    assert statistics.versions == ("1",)
    assert 20 <= statistics.median_ms <= statistics.p90_ms <= statistics.p99_ms <= statistics.longest_ms
    assert statistics.patterns_per_second == pytest.approx(20 / statistics.seconds)


def test_a_reconstruction_is_the_same_as_in_this_process(serve, oracle, tmp_path):
    serve()
    here = reconstruct(Session(write_identity(tmp_path / "i.onnx", contract())), oracle)
    there = reconstruct(serve.session(), oracle, batch=3)
    np.testing.assert_array_equal(there.stitched.object, here.stitched.object)
    assert here.requests is None
    assert there.requests.patterns == 20


def test_a_scan_in_a_file_is_read_ahead_of_a_server_too(serve, oracle, tmp_path):
    serve()
    np.savez(
        tmp_path / "s.npz",
        format="ptychonnx-scan-1",
        diffraction=oracle.diffraction,
        positions=oracle.positions,
    )
    there = reconstruct(serve.session(), read_scan(tmp_path / "s.npz"), batch=3)
    here = reconstruct(Session(write_identity(tmp_path / "i.onnx", contract())), oracle, batch=3)
    np.testing.assert_array_equal(there.stitched.object, here.stitched.object)
    bad = oracle.diffraction.copy()
    bad[11, 2, 2] = -1
    np.savez(tmp_path / "s.npz", format="ptychonnx-scan-1", diffraction=bad, positions=oracle.positions)
    with pytest.raises(InputError, match=r"s\.npz: diffraction\[11\] holds -1"):
        reconstruct(serve.session(), read_scan(tmp_path / "s.npz"), batch=3)
    assert not [each.name for each in threading.enumerate() if each.name.startswith("ptychonnx-read")]


def test_one_batch_is_predicted_as_in_this_process(serve, oracle):
    script = serve()
    session = serve.session()
    patterns = oracle.diffraction[:, None]
    script.orders.extend(["503"])
    np.testing.assert_array_equal(session.predict(patterns), patterns * np.complex64(1 + 0.5j))
    assert session.predict(patterns[:0]).shape == (0, 1, SIZE, SIZE)
    with pytest.raises(InputError, match="takes amplitude as float32, got float64"):
        session.predict(patterns.astype(np.float64))
    with pytest.raises(InputError, match=r"expected \[batch, 1, 16, 16\]"):
        session.predict(patterns[:, 0])
    script.orders.extend(["500"])
    with pytest.raises(ServerError, match="as told: 500"):
        session.predict(patterns)


@pytest.mark.parametrize("order", ["503", "429", "reset", "cut", "slow"])
def test_what_may_pass_is_tried_again_and_no_pattern_is_lost(serve, oracle, order):
    script = serve()
    if order in {"reset", "cut"} and serve.scheme == "grpc":
        pytest.skip("a server of gRPC in Python cannot break its connections; tests/triton kills the server")
    session = serve.session(in_flight=2, timeout=1.0 if order == "slow" else 30.0)
    script.orders.extend(["", order, order, "", order])
    np.testing.assert_array_equal(answers(session, oracle, 3), oracle.diffraction * np.complex64(1 + 0.5j))
    assert session.requests.requests == 7
    assert session.requests.retries == 3
    assert len(script.seen) == 10
    # The shortest pause before another attempt.
    assert session.requests.longest_ms > 50


@pytest.mark.parametrize("order", ["500", "400", "401", "404", "shape", "name", "garbage"])
def test_what_will_not_pass_is_not_tried_again(serve, oracle, order):
    script = serve()
    if order == "garbage" and serve.scheme == "grpc":
        pytest.skip("gRPC has no garbage")
    session = serve.session(in_flight=1)
    script.orders.extend(["", order])
    with pytest.raises(ServerError, match=r"network: .*; 3 of 20 groups of oracle were answered$") as caught:
        list(session.batches(oracle, GROUPS, 3))
    assert session.requests.retries == 0
    assert "\n" not in str(caught.value)
    # At most one more was on its way when the failure was read.
    assert len(script.seen) <= 3
    if order == "shape":
        assert "answered with float32 [3, 15, 16, 1, 2], expected float32 [3, 16, 16, 1, 2]" in str(
            caught.value
        )


HOSTILE = ["gzip", "long", "endless", "drip", "drip head", "bytes", "deep", "less"]


@pytest.mark.parametrize("order", HOSTILE)
def test_a_hostile_answer_is_refused_in_time_and_without_its_memory(serve, oracle, order):
    script = serve()
    if serve.scheme == "grpc" and order not in {"long", "bytes"}:
        pytest.skip("gRPC has no such answer")
    session = serve.session(in_flight=1, timeout=1.0, patience=0.0)
    script.orders.extend([order])
    with pytest.raises(ServerError, match=r"network: .*; 0 of 20 groups of oracle were answered$") as caught:
        list(session.batches(oracle, GROUPS, 3))
    assert "\n" not in str(caught.value)
    if order.startswith("drip"):
        assert "no answer in 1 s" in str(caught.value)
    if order in {"long", "endless", "gzip"}:
        assert (
            "longer than" in str(caught.value)
            or "compressed" in str(caught.value)
            or "larger" in str(caught.value)
        )
    # What the sockets of both sides hold, and not the gigabytes that were offered.
    assert script.poured < 3e7
    np.testing.assert_array_equal(answers(session, oracle), oracle.diffraction * np.complex64(1 + 0.5j))


def test_a_connection_that_the_server_closed_meanwhile_is_opened_again(oracle):
    server = FailingHttpServer(contract().to_json(), SIZE)
    try:
        session = RemoteSession(f"http://127.0.0.1:{server.port}/network", in_flight=1, patience=0.0)
        for _ in range(3):
            server.close_idle()
            time.sleep(0.1)
            assert len(answers(session, oracle)) == 20
            assert session.requests.retries == 0
        session.close()
    finally:
        server.close()


def test_patience_ends(serve, oracle):
    script = serve()
    session = serve.session(patience=0.5)
    script.orders.extend(["503"] * 1000)
    began = time.monotonic()
    with pytest.raises(ServerError, match="as told: 503; 0 of 20 groups"):
        list(session.batches(oracle, GROUPS, 3))
    assert time.monotonic() - began >= 0.5
    # The orders would last for minutes.
    assert script.orders


def test_a_run_that_is_given_up_stops_its_requests(serve, oracle):
    script = serve()
    session = serve.session(in_flight=1, patience=600.0)
    script.orders.extend([""] + ["503"] * 1000)
    running = session.batches(oracle, GROUPS, 3)
    next(running)
    running.close()
    # Waits for the request that is on its way, and not for the patience: the test would not end in time.
    session.close()
    seen = len(script.seen)
    time.sleep(0.5)
    assert len(script.seen) == seen < 100


def test_closing_does_not_wait_for_the_patience_of_a_run_that_was_interrupted(serve, oracle):
    script = serve()
    session = serve.session(in_flight=1, patience=600.0)
    script.orders.extend([""] + ["503"] * 1000)
    running = session.batches(oracle, GROUPS, 3)
    next(running)
    # With the patience this would not end in time.
    session.close()
    assert script.orders


def test_a_fixed_batch_is_filled_up_and_the_filling_dropped(serve, oracle, tmp_path):
    script = serve(contract(batch=8), batch=8)
    session = serve.session()
    np.testing.assert_array_equal(answers(session, oracle, 3), oracle.diffraction * np.complex64(1 + 0.5j))
    assert script.seen == [8, 8, 8]
    assert session.requests.patterns == 20


def test_a_server_that_keeps_another_shape_or_batch_is_refused(serve):
    serve(side=8)
    with pytest.raises(ServerError, match=r"shape \[batch, 1, 16, 16\], the server has \[-1, 1, 8, 8\]"):
        serve.session()
    serve(batch=4)
    with pytest.raises(
        ServerError, match="promises any batch of input 'diffraction', the server has a batch of 4"
    ):
        serve.session()
    serve(contract(batch=8), batch=4)
    with pytest.raises(ServerError, match="promises a batch of 8, the server takes at most 4"):
        serve.session()
    domain = {"domain": "counts", "dtype": "uint16", "scale": 1.0, "scale_rule": "none"}
    serve(contract(input=domain))
    with pytest.raises(ServerError, match="type UINT16, the server has FP32"):
        serve.session()


def test_the_contract_comes_from_the_server_or_from_the_artifact_and_they_may_not_differ(serve, tmp_path):
    artifact = write_identity(tmp_path / "identity.onnx", contract())
    serve(None)
    with pytest.raises(InputError, match=r"publishes no ptychonnx\.contract, expected --contract"):
        serve.session()
    assert serve.session(artifact=artifact).contract == contract()
    serve()
    assert serve.session(artifact=artifact).contract == contract()
    serve(contract(label="pinn_other"))
    with pytest.raises(ServerError, match=r"published contract differs from that of .* in label"):
        serve.session(artifact=artifact)
    bare = write_identity(tmp_path / "bare.onnx", None)
    with pytest.raises(InputError, match=r"bare\.onnx: no ptychonnx\.contract"):
        serve.session(artifact=bare)


def test_a_scan_that_does_not_fit_is_refused_before_anything_is_sent(serve, oracle):
    script = serve()
    session = serve.session()
    with pytest.raises(InputError, match=r"small: patterns are 8 x 8 pixels, .*network takes 16 x 16"):
        reconstruct(session, Scan(np.ones((5, 8, 8), np.float32), np.zeros((5, 2)), name="small"))
    with pytest.raises(InputError, match="batch is 0"):
        list(session.batches(oracle, GROUPS, 0))
    assert script.seen == []


def test_the_token_is_sent_and_not_shown(serve, oracle):
    script = serve()
    access = Credentials(token="s3cret")
    session = serve.session(credentials=access)
    script.orders.extend(["401"])
    with pytest.raises(ServerError) as caught:
        list(session.batches(oracle, GROUPS, 20))
    assert script.tokens == {"Bearer s3cret"}
    assert "s3cret" not in f"{caught.value} {access} {access!r} {session.provider}"


def test_a_server_without_binary_tensors_is_asked_in_json(oracle):
    server = FailingHttpServer(contract().to_json(), SIZE, binary=False)
    try:
        session = RemoteSession(f"http://127.0.0.1:{server.port}/network")
        np.testing.assert_array_equal(answers(session, oracle), oracle.diffraction * np.complex64(1 + 0.5j))
        session.close()
    finally:
        server.close()


def test_https_asks_for_a_certificate_that_is_trusted_and_shows_its_own(oracle, tmp_path):
    files = make_certificates(tmp_path)
    server = FailingHttpServer(contract().to_json(), SIZE, tls=files)
    url = f"https://127.0.0.1:{server.port}/network"
    ours = {"certificate": files / "client.pem", "key": files / "client.key"}
    try:
        session = RemoteSession(url, credentials=Credentials(ca=files / "authority.pem", **ours))
        np.testing.assert_array_equal(answers(session, oracle), oracle.diffraction * np.complex64(1 + 0.5j))
        session.close()
        with pytest.raises(ServerError, match="certificate of the server is not trusted"):
            RemoteSession(url, credentials=Credentials(ca=files / "stranger.pem", **ours))
        with pytest.raises(ServerError, match="https://"):
            RemoteSession(url, credentials=Credentials(ca=files / "authority.pem"))
        with pytest.raises(ServerError, match="http://"):
            RemoteSession(url.replace("https", "http"))
        bad = files / "bad.pem"
        bad.write_text("no certificate")
        with pytest.raises(InputError, match=r"bad\.pem cannot be used"):
            RemoteSession(url, credentials=Credentials(ca=bad))
    finally:
        server.close()


PROGRAM = """
import sys
import ptychonnx
sys.modules["tritonclient"] = None  # importing it fails, as where it is not installed
from ptychonnx.runtime.inference.remote import RemoteSession
try:
    RemoteSession(sys.argv[1])
except ptychonnx.PtychonnxError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("grpc", "tritonclient is not installed, pip install 'ptychonnx[serve]' brings it"),
        ("http", "no server answers"),  # needs no extra
    ],
)
def test_without_the_extra_the_error_names_it(scheme, message):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"{scheme}://127.0.0.1:9/network"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert message in done.stdout
