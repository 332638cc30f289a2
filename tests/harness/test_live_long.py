"""Long scans: frames far ahead of positions, two receivers of one socket, a network on a server."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import zmq

from ptychonnx.harness.replay.replay import ReplayOptions, replay
from ptychonnx.harness.replay.zeromq_senders import Stream1Detector
from ptychonnx.runtime.inference.remote import RemoteSession
from ptychonnx.runtime.live.events import PositionsEnd, SeriesEnd
from ptychonnx.runtime.live.live_reconstruction import FinishedSeries, LiveReconstruction
from ptychonnx.runtime.live.live_run import LiveRun
from ptychonnx.runtime.live.sources import open_frames, open_positions
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.scan import Scan

from .live_streams import FAST, Experiment, Script, frames_of, free_port, mosaic, replayed, samples_of

pytest.importorskip("bitshuffle")
LATE = 700


@pytest.fixture(scope="module")
def long_scan(experiment: Experiment) -> Scan:
    """The scan of the experiment sixteen times, side by side: 1024 patterns."""
    scan = experiment.scan
    extent = np.ptp(scan.positions, axis=0) + 6
    shifts = np.stack(np.divmod(np.arange(16), 4), axis=1) * extent
    positions = (shifts[:, None] + scan.positions).reshape(-1, 2)
    return replace(scan, diffraction=np.tile(scan.diffraction[:], (16, 1, 1)), positions=positions)


def test_frames_700_ahead_of_their_positions_are_shown_without_shear(
    experiment: Experiment, long_scan: Scan
) -> None:
    options, port = ReplayOptions(rate=1e6, positions_late=LATE), free_port()
    done: list[FinishedSeries] = []
    ahead, shown = [], []

    def observe(current: LiveReconstruction, waiting: int) -> None:
        ahead.append(current.report.frames - len(current.positions))
        # Both parts of the object that grows, at the end of the frames and at the end of the positions.
        if current.placed in (0, len(long_scan)) or current.finished:
            return
        shown[:] = [{tile: current.object.tile(*tile) for tile in current.object.changed(-1)}]

    with (
        replayed(long_scan, options, f"127.0.0.1:{port}") as url,
        LiveRun(
            experiment.network,
            open_frames(url),
            open_positions(f"zmq://127.0.0.1:{port}"),
            experiment.settings,
            FAST,
            done.append,
            observe,
        ) as run,
    ):
        run.run()
    (series,) = done
    assert max(ahead) >= LATE
    assert len(series.scan) == len(long_scan)
    # The probe of the series has the brightness that was received; patterns and positions are those of the file.
    file = replace(series.scan, diffraction=long_scan.diffraction, positions=long_scan.positions)
    expected = reconstruct(experiment.network, file).object
    assert series.reconstruction.object.tobytes() == expected.tobytes()
    # What was seen on the way is a part of that object: nothing is at another place.
    seen = mosaic(shown[0], long_scan)[: expected.shape[0], : expected.shape[1]]
    whole = expected[: seen.shape[0], : seen.shape[1]]
    reached = np.isfinite(seen)
    assert reached.sum() > 1000
    assert np.median(np.abs(seen[reached] - whole[reached])) < 1e-5


def test_two_commands_on_one_socket_say_so(experiment: Experiment, long_scan: Scan, tmp_path: Path) -> None:
    """A PUSH socket deals its frames out; each process of its own gets a part of the numbers."""
    frames, table, probe = free_port(), tmp_path / "positions.csv", tmp_path / "probe.npy"
    np.save(probe, long_scan.probe)
    lines = [f"{index},{x!r},{y!r}" for index, (y, x) in enumerate(long_scan.positions.tolist())]
    table.write_text("\n".join(["frame,x_px,y_px", *lines, "# end", ""]))
    outputs = [tmp_path / "first.h5", tmp_path / "second.h5"]
    logs = [out.with_suffix(".txt") for out in outputs]
    with closing(Stream1Detector(f"127.0.0.1:{frames}", 120, 1)) as detector:
        connections = detector._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        processes = [start(experiment, frames, table, probe, out) for out in outputs]
        for _ in processes:
            assert connections.poll(120_000)
            connections.recv_multipart()
        replay(long_scan, detector, Nobody(), ReplayOptions(rate=1e6))
        detector._socket.disable_monitor()
        said = "is another receiver connected to the same socket?"
        wait_until(lambda: all(said in log.read_text() for log in logs))
        # The end of the series went to one of them; the other waits for it, and writes what it has when it is ended.
        wait_until(lambda: any(process.poll() is not None for process in processes))
        for process in processes:
            process.terminate()
        assert sorted(process.wait(120) for process in processes) == [0, 130], [
            log.read_text() for log in logs
        ]
    numbers = []
    for out, log in zip(outputs, logs, strict=True):
        assert "frames that never came: " in log.read_text()
        with h5py.File(out) as file:
            numbers.append(len(file["probe_position_x_m"]))
    assert min(numbers) >= 64
    assert sum(numbers) <= len(long_scan)


def start(experiment: Experiment, port: int, table: Path, probe: Path, out: Path) -> subprocess.Popen:
    with out.with_suffix(".txt").open("w") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "ptychonnx", "live", experiment.network.path, "--probe", probe),
                *("--frames", f"zmq://127.0.0.1:{port}", "--positions", table, "--silence", "300"),
                *("--pixel-size", str(experiment.scan.pixel_size), "--out", out),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


class Nobody:
    """Encoders whose positions are in a file."""

    def begin(self) -> None:
        pass

    def send(self, first: int, samples: np.ndarray) -> None:
        pass

    def end(self, frames: int) -> None:
        pass

    def close(self) -> None:
        pass


def test_the_network_may_run_on_a_server(experiment: Experiment) -> None:
    """Over gRPC; one request of those that carry the scan is refused for the moment."""
    pytest.importorskip("tritonclient.grpc")
    from tests.runtime.failing_server import FailingGrpcServer

    server = FailingGrpcServer(experiment.network.contract.to_json(), experiment.scan.size)
    network = RemoteSession(f"grpc://127.0.0.1:{server.port}/network")
    done: list[FinishedSeries] = []
    server.script.orders.extend(["", "503"])
    with (
        closing(server),
        closing(network),
        LiveRun(
            network,
            Script([*frames_of(experiment.scan), SeriesEnd(1)]),
            Script([samples_of(experiment.scan), PositionsEnd()]),
            experiment.settings,
            FAST,
            done.append,
        ) as run,
    ):
        run.run()
        assert not server.script.orders
    file = replace(done[0].scan, diffraction=experiment.scan.diffraction)
    server = FailingGrpcServer(experiment.network.contract.to_json(), experiment.scan.size)
    with closing(server), closing(RemoteSession(f"grpc://127.0.0.1:{server.port}/network")) as network:
        expected = reconstruct(network, file).object
    assert done[0].reconstruction.object.tobytes() == expected.tobytes()
