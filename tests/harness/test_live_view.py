"""The page of a live reconstruction, over HTTP and in a real browser."""

from __future__ import annotations

import html
import http.client
import io
import json
import re
import shutil
import socket
import subprocess

import numpy as np
import pytest
from PIL import Image

from ptychonnx.harness.view.live_view import LiveView
from ptychonnx.harness.view.page_server import PageServer
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.live.events import PositionsEnd, SeriesEnd
from ptychonnx.runtime.live.live_run import LiveRun

from .live_streams import FAST, Experiment, Script, frames_of, samples_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


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
def test_a_browser_shows_the_object(view: LiveView) -> None:
    with PageServer("127.0.0.1:0", view) as server:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"]
        page = subprocess.run(
            [CHROMIUM, *options, server.url], capture_output=True, text=True, timeout=120, check=True
        ).stdout
    assert re.search(r'id="phase"[^>]*>finished<', page)
    assert re.search(r"<dt>in the object</dt><dd>64</dd>", page)
    assert len(re.findall(r'<img id="[a-z-]+" alt="[^"]+" src="blob:', page)) == 3
    # A name from outside is text, not markup.
    assert html.escape("zmq://<detector>:9999") in page
