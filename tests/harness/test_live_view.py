"""The page of a live reconstruction, over HTTP and in a real browser."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptychonnx.harness.view.live_view import LiveView
from ptychonnx.harness.view.page_server import PageServer
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.live.events import PositionsEnd, SeriesEnd
from ptychonnx.runtime.live.live_run import LiveRun

from .chromium import CHROMIUM, chromium
from .live_streams import FAST, Experiment, Script, frames_of, samples_of


@pytest.fixture
def view(experiment: Experiment) -> LiveView:
    """The view of a scan that has ended, with two frames twice."""
    view = LiveView("zmq://<detector>:9999")
    frames = frames_of(experiment.scan)
    with LiveRun(
        experiment.network,
        Script([*frames, *frames[:2], SeriesEnd(1)]),
        Script([samples_of(experiment.scan), PositionsEnd()]),
        experiment.settings,
        FAST,
        lambda series: None,
        lambda current, waiting: view.update(current, waiting, final=current.finished),
    ) as run:
        run.run()
    return view


def get(url: str, path: str, **headers: str) -> tuple[int, bytes, http.client.HTTPMessage]:
    host = re.match(r"http://([^/]+)/", url)[1]
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers


def test_the_page_has_figures_and_pictures_of_the_object(view: LiveView, experiment: Experiment) -> None:
    with PageServer("127.0.0.1:0", view) as server:
        state = json.loads(get(server.url, "/state")[1])
        code, picture, headers = get(server.url, "/amplitude.png")
        assert get(server.url, "/")[0] == get(server.url, "/pattern.png")[0] == 200
        prediction = get(server.url, "/prediction.png")[1]
        dots = np.asarray(Image.open(io.BytesIO(get(server.url, "/positions.png")[1])))
        assert get(server.url, "/../etc/passwd")[0] == 404
    assert (code, headers["Content-Type"]) == (200, "image/png")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert (state["phase"], state["frames"], state["placed"], state["duplicates"]) == ("finished", 64, 64, 2)
    assert state["misfit"] < 0.2
    pixels = np.asarray(Image.open(io.BytesIO(picture)))
    # Grey where patches reach, transparent elsewhere; brighter where the object is.
    rows, columns = np.minimum(experiment.offline.shape, pixels.shape[:2])
    reached = pixels[:rows, :columns, 3] > 0
    shown, known = pixels[:rows, :columns, 0][reached], np.abs(experiment.offline)[:rows, :columns][reached]
    assert np.corrcoef(shown, known)[0, 1] > 0.95
    # One dot for each position, and a pattern that the object predicts.
    assert np.count_nonzero(dots[..., 3]) == 64
    assert Image.open(io.BytesIO(prediction)).size == (experiment.scan.size,) * 2


def test_before_the_first_frame_there_is_a_page_without_pictures() -> None:
    with PageServer("127.0.0.1:0", LiveView("zmq://x:1")) as server:
        assert json.loads(get(server.url, "/state")[1])["phase"] == "waiting"
        assert get(server.url, "/phase.png")[:2] == (204, b"")


def test_other_names_for_this_machine_and_missing_tokens_are_refused(view: LiveView) -> None:
    with PageServer("127.0.0.1:0", view) as server:
        assert get(server.url, "/state", Host="attacker.example")[0] == 403
    with PageServer("0.0.0.0:0", view) as server:
        token = server.url.partition("?")[2]
        assert token.startswith("token=")
        assert get(server.url, "/state")[0] == 403
        assert get(server.url, "/state?token=guess")[0] == 403
        assert get(server.url, f"/state?{token}")[0] == 200


def test_an_address_that_cannot_be_served_is_refused(view: LiveView) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for address in (f"127.0.0.1:{taken.getsockname()[1]}", "nonsense", "127.0.0.1:99999"):
            with pytest.raises(InputError, match="expected HOST:PORT"):
                PageServer(address, view)


def test_nobody_who_looks_costs_nothing(view: LiveView) -> None:
    class Untouchable:
        def __getattr__(self, name: str) -> None:
            raise AssertionError(name)

    view._asked = -100.0
    view.update(Untouchable(), 0)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_sees_the_object_grow(experiment: Experiment, tmp_path: Path) -> None:
    """The object appears, a reload shows it again, pictures zoom together, and the end of the scan is told."""
    gate, view = threading.Event(), LiveView("zmq://<detector>:9999")
    frames = Script([*frames_of(experiment.scan), SeriesEnd(1)], gate=gate, stop_at=32)
    run = LiveRun(
        experiment.network,
        frames,
        Script([samples_of(experiment.scan), PositionsEnd()]),
        experiment.settings,
        FAST,
        lambda series: None,
        lambda current, waiting: view.update(current, waiting, final=current.finished),
    )
    placed = "document.querySelector('#figures')?.innerText.match(/in the object\\s+(\\d+)/)?.[1]"
    drawn = "[...document.images].map(image => image.naturalWidth > 0).join()"
    zoom = "[...document.images].map(image => new DOMMatrix(getComputedStyle(image).transform).a > 1).join()"
    phase = "document.querySelector('#phase')?.textContent"
    with run, PageServer("127.0.0.1:0", view) as server, chromium(tmp_path / "profile") as page:
        thread = threading.Thread(target=run.run)
        thread.start()
        page.call("Page.navigate", url=server.url)
        page.wait_for(placed, "32")
        page.wait_for(drawn, "true,true,true,true,true")
        assert page.evaluate(phase) == "running"
        page.call("Page.reload")
        page.wait_for(placed, "32")
        page.wait_for(drawn, "true,true,true,true,true")
        page.evaluate(
            "document.querySelector('#phase-image').dispatchEvent(new WheelEvent('wheel',"
            "{deltaY: -400, clientX: 100, clientY: 300, bubbles: true, cancelable: true}))"
        )
        assert page.evaluate(zoom) == "true,true,true,false,false"
        gate.set()
        page.wait_for(phase, "finished")
        page.wait_for(placed, "64")
        # A name from outside is text, not markup.
        assert page.evaluate("document.querySelector('#source').innerHTML") == "zmq://&lt;detector&gt;:9999"
        thread.join()
    # The page of a scan that has ended stays as it is when its server ends.


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_says_that_its_server_is_lost(tmp_path: Path) -> None:
    phase = "document.querySelector('#phase')?.textContent"
    with chromium(tmp_path / "profile") as page:
        with PageServer("127.0.0.1:0", LiveView("zmq://x:1")) as server:
            page.call("Page.navigate", url=server.url)
            page.wait_for(phase, "waiting")
        page.wait_for(phase, "the reconstruction cannot be reached")


def test_connections_that_say_nothing_leave_room_for_the_reconstruction(view: LiveView) -> None:
    with PageServer("127.0.0.1:0", view) as server:
        port = int(re.match(r"http://[^/]+:(\d+)/", server.url)[1])
        silent = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(70)]
        # The last of them is refused, and not queued behind those that are open.
        assert silent[-1].recv(1) == b""
        for connection in silent:
            connection.close()
        end = time.monotonic() + 30
        while True:
            try:
                assert get(server.url, "/state")[0] == 200
                break
            except (OSError, http.client.HTTPException):
                assert time.monotonic() < end
                time.sleep(0.1)
