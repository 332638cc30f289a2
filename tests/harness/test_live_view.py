"""The page of a live reconstruction, over HTTP and in a real browser."""

from __future__ import annotations

import http.client
import itertools
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ptychonnx.harness.view import live_view, page_server
from ptychonnx.harness.view.live_view import BrowserState, LiveView
from ptychonnx.harness.view.page_server import PageServer
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.live.events import PositionsEnd, SeriesEnd
from ptychonnx.runtime.live.growing_object import TILE
from ptychonnx.runtime.live.live_reconstruction import LiveReconstruction
from ptychonnx.runtime.live.live_run import LiveRun
from ptychonnx.runtime.live.position_table import PositionTable

from .chromium import CHROMIUM, chromium
from .live_streams import FAST, Experiment, Script, frames_of, mosaic, samples_of

pytest.importorskip("websockets")
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

# JavaScript: the number of colours of a canvas, and whether the amplitude has only greys.
PIXELS = (
    "new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer)"
)
COLOURS = f"canvas => new Set({PIXELS}).size"
GREY = f"(canvas => {PIXELS}.every(pixel => (pixel & 255) === (pixel >> 16 & 255)))(amplitude.canvas)"


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


class Viewer:
    """A browser's side of the WebSocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.tiles: dict[tuple[int, int], np.ndarray] = {}
        self.positions, self.patterns, self.state = np.empty((0, 2)), {}, {}

    def receive(self) -> Viewer:
        """Take messages until the page would be drawn."""
        while isinstance(message := self.socket.recv(30), bytes):
            self.take(message)
        self.state = json.loads(message)
        return self

    def take(self, message: bytes) -> None:
        kind, _, first, second = struct.unpack_from("<4i", message)
        if kind == 1:
            new = np.frombuffer(message, "<f4", offset=16).reshape(-1, 2)
            self.positions = np.concatenate([self.positions, new])
            return
        values = np.frombuffer(message, "<f2", offset=16).astype(np.float32)
        if kind == 0:
            self.tiles[first, second] = values.view(np.complex64).reshape(TILE, TILE)
        else:
            self.patterns[kind] = values.reshape(first, first)


@contextmanager
def viewer(url: str, **headers: str) -> Iterator[Viewer]:
    host, query = re.match(r"http://([^/]+)/(.*)", url).groups()
    address = f"ws://{host}/changes{query}"
    with connect(address, max_size=None, compression=None, additional_headers=headers) as socket:
        yield Viewer(socket)


def look(url: str, **headers: str) -> Viewer:
    """What a browser sees first."""
    with viewer(url, **headers) as browser:
        return browser.receive()


def test_the_page_has_figures_and_pictures_of_the_object(view: LiveView, experiment: Experiment) -> None:
    with PageServer("127.0.0.1:0", view) as server:
        code, page, headers = get(server.url, "/")
        assert get(server.url, "/../etc/passwd")[0] == 404
        first, second = look(server.url), look(server.url)
    assert (code, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"</html>" in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    # A second browser, or a reload, sees the whole.
    assert first.tiles.keys() == second.tiles.keys()
    state = second.state
    assert (state["phase"], state["frames"], state["placed"], state["duplicates"]) == ("finished", 64, 64, 2)
    assert state["misfit"] < 0.2
    rows, columns = experiment.offline.shape
    seen = mosaic(second.tiles, experiment.scan)[:rows, :columns]
    reached = np.isfinite(seen)
    assert reached.mean() > 0.9
    np.testing.assert_allclose(seen[reached], experiment.offline[reached], atol=2e-3)
    # One dot for each position, a pattern, and the one that the object predicts.
    np.testing.assert_allclose(second.positions, experiment.scan.positions, rtol=1e-6)
    assert second.patterns[2].shape == second.patterns[3].shape == (experiment.scan.size,) * 2
    np.testing.assert_allclose(second.patterns[2], np.log1p(experiment.scan.diffraction[-1]), rtol=1e-3)


def test_a_browser_gets_only_the_tiles_that_have_changed(experiment: Experiment) -> None:
    gate, view = threading.Event(), LiveView("zmq://x:1")
    # Far apart: the first two rows of eight patterns are in other tiles than most of the next.
    scan = replace(experiment.scan, positions=12 * experiment.scan.positions)
    frames = Script([*frames_of(scan), SeriesEnd(1)], gate=gate, stop_at=16)
    run = LiveRun(
        experiment.network,
        frames,
        Script([samples_of(scan), PositionsEnd()]),
        experiment.settings,
        FAST,
        lambda series: None,
        lambda current, waiting: view.update(current, waiting, final=current.finished),
    )
    first, second, seen = {}, {}, BrowserState()

    def follow(tiles: dict, placed: int) -> None:
        nonlocal seen
        end = time.monotonic() + 60
        while seen.positions < placed and time.monotonic() < end:
            messages, seen = view.changes(seen)
            for message in messages:
                if isinstance(message, bytes) and message[:4] == bytes(4):
                    tiles[struct.unpack_from("<2i", message, 8)] = message
            time.sleep(0.02)
        assert seen.positions == placed

    with run:
        thread = threading.Thread(target=run.run)
        thread.start()
        follow(first, 16)
        gate.set()
        follow(second, 64)
        thread.join()
    corners = np.floor(scan.positions - scan.size // 2).astype(int)
    ends = corners + scan.size - 1
    for tiles, part in ((first, slice(16)), (second, slice(16, 64))):
        assert set(tiles) == {
            (row, column)
            for low, high in zip(corners[part] // TILE, ends[part] // TILE, strict=True)
            for row in range(low[0], high[0] + 1)
            for column in range(low[1], high[1] + 1)
        }
    # No comparison of bytes, which a failure would print.
    assert len(set(first) - set(second)) > 1


def test_copies_are_made_eight_times_a_second_whatever_the_rate_of_frames(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that counts steps: one millisecond each."""
    clock = itertools.count()
    fake = SimpleNamespace(monotonic=lambda: next(clock) / 1000, time=time.time)
    monkeypatch.setattr(live_view, "time", fake)
    view, seen, drawn = LiveView("zmq://x:1"), BrowserState(), 0
    current = LiveReconstruction(experiment.network, experiment.settings, 1, PositionTable())
    while fake.monotonic() < 10:
        view.update(current, 0)
        messages, seen = view.changes(seen)
        drawn += bool(messages)
    assert 50 <= drawn <= 100


def test_before_the_first_frame_there_is_a_page_without_pictures() -> None:
    with PageServer("127.0.0.1:0", LiveView("zmq://x:1")) as server:
        browser = look(server.url)
    assert (browser.state["phase"], browser.tiles, browser.patterns) == ("waiting", {}, {})


def test_other_names_for_this_machine_and_missing_tokens_are_refused(view: LiveView) -> None:
    with PageServer("127.0.0.1:0", view) as server:
        assert get(server.url, "/", Host="attacker.example")[0] == 403
        with pytest.raises(InvalidStatus, match="403"):
            look(server.url, Origin="http://attacker.example")
        own = re.match(r"(http://[^/]+)/", server.url)[1]
        assert look(server.url, Origin=own).state["phase"] == "finished"
    with PageServer("0.0.0.0:0", view) as server:
        token = server.url.partition("?")[2]
        assert token.startswith("token=")
        assert get(server.url, "/")[0] == 403
        assert get(server.url, "/?token=guess")[0] == 403
        assert get(server.url, f"/?{token}")[0] == 200
        with pytest.raises(InvalidStatus, match="403"):
            look(server.url.partition("?")[0])
        assert look(server.url).state["phase"] == "finished"


def test_hostile_browsers_end_nothing(view: LiveView) -> None:
    with PageServer("127.0.0.1:0", view) as server:
        port = int(re.match(r"http://[^/]+:(\d+)/", server.url)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as rude:
            rude.sendall(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
            assert b"200" not in rude.recv(1024)
        with viewer(server.url) as talkative:
            talkative.receive().socket.send(b"x" * 2000)
            with pytest.raises(ConnectionClosedError, match="1009"):
                talkative.receive()
        with deaf_browser(server.url):
            assert look(server.url).state["phase"] == "finished"


@contextmanager
def deaf_browser(url: str) -> Iterator[socket.socket]:
    """It asks for everything, and reads nothing."""
    port = int(re.match(r"http://[^/]+:(\d+)/", url)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as deaf:
        deaf.sendall(
            f"GET /changes HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
        )
        yield deaf


def test_a_browser_that_takes_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Much(LiveView):
        def changes(self, seen: BrowserState) -> tuple[list[bytes | str], BrowserState]:
            return [bytes(10**7)], seen

    monkeypatch.setattr(page_server, "_SLOWEST", 0.5)
    with PageServer("127.0.0.1:0", Much("zmq://x:1")) as server, deaf_browser(server.url) as deaf:
        end = time.monotonic() + 60
        with suppress(ConnectionResetError, BrokenPipeError):
            while True:
                deaf.sendall(b"\x8a\x80\0\0\0\0")
                assert time.monotonic() < end
                time.sleep(0.05)


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
    frames = Script([*frames_of(experiment.scan), SeriesEnd(1)], gate=gate)
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
    drawn = f"[...document.querySelectorAll('canvas')].map({COLOURS}).map(colours => colours > 5).join()"
    zoom = (
        "[...document.querySelectorAll('canvas')]"
        ".map(canvas => new DOMMatrix(getComputedStyle(canvas).transform).a > 1).join()"
    )
    phase = "document.querySelector('#phase')?.textContent"
    with run, PageServer("127.0.0.1:0", view) as server, chromium(tmp_path / "profile") as page:
        thread = threading.Thread(target=run.run)
        thread.start()
        page.call("Page.navigate", url=server.url)
        page.wait_for(phase, "waiting")
        # However slowly frames come, those that are in the object are in the picture.
        pictures = []
        for count in (8, 16, 24, 32):
            frames.stop_at = count
            page.wait_for(placed, str(count))
            pictures.append(page.evaluate("document.querySelector('#amplitude').toDataURL()"))
        assert len(set(pictures)) == 4
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
        # Other colours and limits draw the object anew; what is saved is what is seen.
        before = page.evaluate(f"({COLOURS})(document.querySelector('#amplitude'))")
        page.evaluate(
            "{ const [low, high] = amplitude.inputs; low.value = 0; high.value = 1e-9; low.oninput(); }"
        )
        assert page.evaluate(f"({COLOURS})(document.querySelector('#amplitude'))") <= 2 < before
        page.evaluate("amplitude.inputs.forEach(input => { input.value = ''; input.oninput(); })")
        page.evaluate("{ amplitude.select.value = 'viridis'; amplitude.select.onchange(); }")
        assert page.evaluate(GREY) is False
        page.evaluate(
            "HTMLAnchorElement.prototype.click = function () { window.saved = [this.download, this.href]; };"
            "document.querySelector('#amplitude').closest('figure').querySelector('button').click()"
        )
        page.wait_for("window.saved?.[0]", "amplitude.png")
        size = (
            "new Promise(done => Object.assign(new Image(), "
            "{onload: event => done(event.target.width), src: saved[1]}))"
        )
        assert page.evaluate(size) == page.evaluate("document.querySelector('#amplitude').width")
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
                assert get(server.url, "/")[0] == 200
                break
            except (OSError, http.client.HTTPException):
                assert time.monotonic() < end
                time.sleep(0.1)
