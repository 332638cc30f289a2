"""Detectors that are not ours: the simulators of LiberTEM-live and of pvaPy; `make test-live` installs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from ptychonnx.runtime.live.events import PositionsEnd
from ptychonnx.runtime.live.live_reconstruction import FinishedSeries
from ptychonnx.runtime.live.live_run import LiveRun
from ptychonnx.runtime.live.sources import open_frames

from .live_streams import FAST, Experiment, Script, frames_of, free_port, samples_of

pytest.importorskip("bitshuffle")
LISTENS = re.compile(r"RustedReplay listening on tcp://127\.0\.0\.1:(\d+)")
PEERS = Path(os.environ.get("PTYCHONNX_LIVE", "/nonexistent")) / "bin"

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not PEERS.is_dir(), reason="needs the simulators, see `make test-live`"),
]


@contextmanager
def running(*command: object) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def object_of(experiment: Experiment, url: str) -> FinishedSeries:
    done: list[FinishedSeries] = []
    positions = Script([samples_of(experiment.scan), PositionsEnd()])
    with LiveRun(
        experiment.network, open_frames(url), positions, experiment.settings, FAST, done.append
    ) as run:
        run.run()
    return done[0]


def test_the_simulator_of_libertem_live_is_a_detector(experiment: Experiment, tmp_path: Path) -> None:
    """It sends what a DECTRIS detector sent once; that recording is made from our frames."""
    import bitshuffle

    frames = frames_of(experiment.scan)
    rows, columns = frames[0].image.shape
    series, kind = 34, frames[0].image.dtype
    configuration = {
        "bit_depth_image": 8 * kind.itemsize,
        "compression": "bslz4",
        "nimages": 1,
        "ntrigger": len(frames),
        "trigger_mode": "exte",
        "x_pixels_in_detector": columns,
        "y_pixels_in_detector": rows,
    }
    lines: list[dict | bytes] = [
        {"header_detail": "basic", "htype": "dheader-1.0", "series": series},
        configuration,
    ]
    for frame in frames:
        data = bytes(12) + bitshuffle.compress_lz4(frame.image.reshape(-1)).tobytes()
        lines += [
            {"frame": frame.number, "hash": "", "htype": "dimage-1.0", "series": series},
            {
                "encoding": f"bs{8 * kind.itemsize}-lz4<",
                "htype": "dimage_d-1.0",
                "shape": [columns, rows],
                "size": len(data),
                "type": kind.name,
            },
            data,
            {"htype": "dconfig-1.0", "real_time": 500000, "start_time": 0, "stop_time": 500000},
        ]
    lines.append({"htype": "dseries_end-1.0", "series": series})
    with (tmp_path / "recording").open("wb") as file:
        for line in lines:
            content = line if isinstance(line, bytes) else json.dumps(line).encode()
            file.write(np.int64(len(content)).tobytes() + content)
    api = free_port()
    arm = urllib.request.Request(
        f"http://127.0.0.1:{api}/detector/api/1.8.0/command/arm", data=b"{}", method="PUT"
    )
    armed = threading.Event()

    def start() -> None:
        while not armed.is_set():
            with suppress(OSError):
                urllib.request.urlopen(arm, timeout=5).read()
                armed.set()
            time.sleep(0.2)

    # Version 0.3.0 opens a port that is given several times, and so fails: it chooses one and says which.
    command = [PEERS / "libertem-live-dectris-sim", "--port", api, "--zmqport", 0, tmp_path / "recording"]
    with running(*command) as simulator:
        port = next(match[1] for line in simulator.stdout if (match := LISTENS.search(line)))
        thread = threading.Thread(target=start)
        thread.start()
        try:
            done = object_of(experiment, f"zmq://127.0.0.1:{port}")
        finally:
            armed.set()
            thread.join()
    assert done.series == series
    assert not done.report.missing
    assert done.reconstruction.object.tobytes() == experiment.offline.tobytes()


def test_the_simulator_of_pvapy_is_a_detector(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It numbers frames from 1, and repeats them until it is ended."""
    np.save(tmp_path / "frames.npy", np.stack([frame.image for frame in frames_of(experiment.scan)]))
    # It is found by UDP only, so it has the usual port.
    monkeypatch.setenv("EPICS_PVAS_INTF_ADDR_LIST", "127.0.0.1")
    command = [PEERS / "pvapy-ad-sim-server", "-cn", "sim:image", "-if", tmp_path / "frames.npy", "-dc"]
    with running(*command, "-fps", 50, "-nf", 64, "-rt", 60, "-std", 15, "-shd", 1) as simulator:
        # It is ready, and begins to send 15 seconds later.
        assert any("producer is done" in line for line in simulator.stdout)
        done = object_of(experiment, "pva://127.0.0.1/sim:image?first=1&frames=64")
    assert done.report.missing == []
    assert done.reconstruction.object.tobytes() == experiment.offline.tobytes()
