"""Streams for the tests of live reconstruction: a small experiment, and sources that report what they are told."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
import zmq

from ptychonnx.harness.replay.detectors import open_detector, open_encoders
from ptychonnx.harness.replay.replay import ReplayOptions, ScanCounts, replay
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.formats.readers.native import write_scan
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.live.events import (
    Frame,
    FrameEvent,
    PositionEvent,
    PositionSamples,
)
from ptychonnx.runtime.live.growing_object import TILE
from ptychonnx.runtime.live.live_options import LiveOptions
from ptychonnx.runtime.live.live_reconstruction import FinishedSeries
from ptychonnx.runtime.live.live_run import LiveRun
from ptychonnx.runtime.live.live_settings import LiveSettings
from ptychonnx.runtime.live.sources import open_frames
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.scan import Scan

BATCH = 16
FAST = LiveOptions(silence=60, positions_timeout=10, linger=0.05)


def counted(scan: Scan) -> Scan:
    """The scan with whole photon counts, and positions that are no whole pixels."""
    counts = np.rint(4 * np.square(scan.diffraction, dtype=np.float64))
    shift = np.random.default_rng(1).uniform(0, 0.9, scan.positions.shape)
    return replace(
        scan,
        diffraction=np.sqrt(counts).astype(np.float32),
        positions=scan.positions + shift,
        reference=None,
    )


@dataclass(frozen=True)
class Experiment:
    """A scan with 64 patterns, its file, an artifact that knows its patterns, and its object from the file."""

    scan: Scan
    path: Path
    network: Session
    offline: np.ndarray
    settings: LiveSettings


@dataclass
class Script:
    """A source that reports what it was given, and then nothing; from `stop_at` on, when the gate is open."""

    events: list
    unit: str | None = None
    delay: float = 0.0
    gate: threading.Event | None = None
    stop_at: int = 0
    received: int = 0
    closed: bool = field(default=False)

    def receive(self, timeout: float) -> FrameEvent | PositionEvent | None:
        held = self.gate is not None and self.received >= self.stop_at and not self.gate.is_set()
        if held or self.received == len(self.events):
            time.sleep(min(timeout, 0.01))
            return None
        time.sleep(self.delay)
        self.received += 1
        return self.events[self.received - 1]

    def close(self) -> None:
        self.closed = True


def frames_of(scan: Scan, numbers: list[int] | None = None, series: int = 1) -> list[Frame]:
    counts = ScanCounts(scan)
    return [Frame(series, n, counts[n]) for n in (range(len(scan)) if numbers is None else numbers)]


def samples_of(scan: Scan, numbers: list[int] | None = None) -> PositionSamples:
    chosen = np.arange(len(scan)) if numbers is None else np.array(numbers)
    return PositionSamples(chosen, scan.positions[chosen])


def live(
    experiment: Experiment, frames: list, positions: list, options: LiveOptions = FAST, **settings: object
) -> list[FinishedSeries]:
    done: list[FinishedSeries] = []
    sources = Script(frames), Script(positions)
    with LiveRun(
        experiment.network, *sources, replace(experiment.settings, **settings), options, done.append
    ) as run:
        run.run()
    assert all(source.closed for source in sources)
    return done


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def replayed(
    scan: Scan, options: ReplayOptions, positions: str, protocol: str = "zmq", address: str = ""
) -> Iterator[str]:
    """The scan, sent by a thread over loopback; the URL of its frames."""
    address = address or f"127.0.0.1:{free_port()}"
    detector, encoders = open_detector(protocol, address, options, 20), open_encoders(positions, options, 20)
    thread = threading.Thread(target=replay, args=(scan, detector, encoders, options))
    thread.start()
    yield f"{protocol}://{address}"
    thread.join()
    detector.close()
    encoders.close()


def live_experiment(known: Scan, write_artifact: Callable[[Path, Scan], Path], folder: Path) -> Experiment:
    """The experiment of a scan with its object."""
    scan = counted(known)
    artifact = write_artifact(folder / "oracle.onnx", replace(known, diffraction=scan.diffraction))
    network = Session(artifact, "cpu")
    write_scan(folder / "scan.npz", scan)
    read = read_scan(folder / "scan.npz", probe=folder / "scan.npz", estimate_probe=True)
    settings = LiveSettings(
        reading=ReadOptions(positions_unit="px"),
        stitching=ReconstructOptions(),
        probe=known.probe,
        batch=BATCH,
        source="the test",
    )
    offline = reconstruct(network, read, batch=BATCH).object
    return Experiment(scan, folder / "scan.npz", network, offline, settings)


@contextmanager
def pieces_appear(scan: Scan, folder: Path) -> Iterator[None]:
    """Data files of 20 frames that appear one by one, complete."""

    def write() -> None:
        frames = np.stack([frame.image for frame in frames_of(scan)])
        for start in range(0, 64, 20):
            with h5py.File(folder / "partial", "w") as file:
                file["d"] = frames[start : start + 20]
            (folder / "partial").rename(folder / f"scan_data_{start:06d}.h5")
            time.sleep(0.1)

    thread = threading.Thread(target=write)
    thread.start()
    yield
    thread.join()


def mosaic(tiles: dict[tuple[int, int], np.ndarray], scan: Scan) -> np.ndarray:
    """Tiles by row and column as one array that begins with the corner of the scan's object."""
    low, high = np.min([*tiles], axis=0), np.max([*tiles], axis=0)
    canvas = np.full(TILE * (1 + high - low), np.nan, np.complex64)
    for tile, pixels in tiles.items():
        top, left = TILE * (np.array(tile) - low)
        canvas[top : top + TILE, left : left + TILE] = pixels
    top, left = np.floor(scan.positions.min(axis=0)).astype(int) - scan.size // 2 - TILE * low
    return canvas[top:, left:]


def received(*parts: dict | bytes, scheme: str = "zmq") -> list:
    """The event of one message, sent over loopback."""
    return received_all(list(parts), scheme=scheme)


def received_all(*messages: list[dict | bytes], scheme: str = "zmq") -> list:
    """The events of messages, sent over loopback."""
    port = free_port()
    with zmq.Context.instance().socket(zmq.PUSH) as sender:
        sender.bind(f"tcp://127.0.0.1:{port}")
        source = open_frames(f"{scheme}://127.0.0.1:{port}")
        for parts in messages:
            sender.send_multipart(
                [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]
            )
        try:
            return [source.receive(10) for _ in messages]
        finally:
            source.close()
