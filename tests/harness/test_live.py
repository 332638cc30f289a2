"""Live reconstruction over real sockets: the object of the finished file, bit for bit, whatever happens on the way."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import zmq

from ptychonnx.harness.replay.detectors import open_detector, open_encoders
from ptychonnx.harness.replay.frame_counts import ScanCounts
from ptychonnx.harness.replay.replay import replay
from ptychonnx.harness.replay.replay_options import ReplayOptions
from ptychonnx.runtime.errors import InputError, ServerError, UnsupportedError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.formats.readers.native import write_scan
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.live.events import (
    Frame,
    FrameEvent,
    PositionEvent,
    PositionSamples,
    PositionsBegin,
    PositionsEnd,
    SeriesBegin,
    SeriesEnd,
)
from ptychonnx.runtime.live.live_options import LiveOptions
from ptychonnx.runtime.live.live_reconstruction import FinishedSeries
from ptychonnx.runtime.live.live_run import LiveRun
from ptychonnx.runtime.live.live_settings import LiveSettings, check_network
from ptychonnx.runtime.live.sources import open_frames, open_positions
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.scan import Scan

from .conftest import make_contract, small_scan, write_oracle

pytest.importorskip("bitshuffle")

BATCH = 16
FAST = LiveOptions(silence=10, positions_timeout=2, linger=0.05)


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


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("live")
    known = small_scan(grid=8)
    scan = counted(known)
    network = Session(
        write_oracle(
            folder / "oracle.onnx",
            replace(known, diffraction=scan.diffraction),
            make_contract("pinn_fno", known),
        ),
        "cpu",
    )
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


@dataclass
class Script:
    """A source that reports what it was given, and then nothing."""

    events: list
    unit: str | None = None
    delay: float = 0.0
    received: int = 0
    closed: bool = field(default=False)

    def receive(self, timeout: float) -> FrameEvent | PositionEvent | None:
        if self.received == len(self.events):
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


@pytest.mark.parametrize(
    "faults",
    [
        {},
        {"rate": 2000, "positions_late": 50, "samples": 3, "positions_batch": 7},
        {"rate": 500, "reorder": 9, "duplicate": 0.3, "jitter": 1.0},
    ],
    ids=["plain", "late positions", "reordered and twice"],
)
def test_the_live_object_is_that_of_the_file_bit_for_bit(experiment: Experiment, faults: dict) -> None:
    options, port = ReplayOptions(**faults), free_port()
    done: list[FinishedSeries] = []
    with (
        replayed(experiment.scan, options, f"127.0.0.1:{port}") as url,
        LiveRun(
            experiment.network,
            open_frames(url),
            open_positions(f"zmq://127.0.0.1:{port}?samples={options.samples}"),
            experiment.settings,
            FAST,
            done.append,
        ) as run,
    ):
        run.run()
    (series,) = done
    assert series.reconstruction.object.tobytes() == experiment.offline.tobytes()
    assert series.report.frames == len(experiment.scan)
    assert (series.report.duplicates > 0) == ("duplicate" in faults)
    assert not series.report.missing
    assert not series.report.without_position


def test_positions_may_come_from_a_table_that_grows(experiment: Experiment, tmp_path: Path) -> None:
    table, done = tmp_path / "positions.csv", []
    source = open_positions(str(table))
    with (
        replayed(experiment.scan, ReplayOptions(samples=2, positions_late=20), str(table)) as url,
        LiveRun(
            experiment.network,
            open_frames(url),
            source,
            replace(experiment.settings, reading=ReadOptions()),
            FAST,
            done.append,
        ) as run,
    ):
        run.run()
    assert source.unit == "px"
    assert done[0].reconstruction.object.tobytes() == experiment.offline.tobytes()


def test_the_command_writes_the_file_that_reconstruct_writes(
    experiment: Experiment, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    """The replay runs in a process of its own, as a detector does."""
    frames, positions = free_port(), free_port()
    probe = ("--probe", experiment.path)
    detector = subprocess.Popen(
        [
            *(sys.executable, "-m", "ptychonnx", "replay", experiment.path, "--as", "zmq", "--rate", "500"),
            *("--frames", f"127.0.0.1:{frames}", "--positions", f"127.0.0.1:{positions}"),
        ]
    )
    code, text, _ = run(
        *("live", experiment.network.path, "--out", tmp_path / "live.h5", *probe),
        *("--frames", f"zmq://127.0.0.1:{frames}", "--positions", f"zmq://127.0.0.1:{positions}"),
        *("--positions-unit", "px", "--pixel-size", experiment.scan.pixel_size, "--silence", 120),
    )
    assert detector.wait() == code == 0
    assert "64 patterns" in text
    run("reconstruct", experiment.network.path, experiment.path, *probe, "--out", tmp_path / "file.h5")
    with h5py.File(tmp_path / "live.h5") as ours, h5py.File(tmp_path / "file.h5") as theirs:
        names: list[str] = []
        theirs.visit(names.append)
        assert {"object", "weight", "probe", "probe_position_x_m"} <= set(names)
        for name in names:
            if isinstance(theirs[name], h5py.Dataset) and not name.endswith("title"):
                assert np.asarray(ours[name][()]).tobytes() == np.asarray(theirs[name][()]).tobytes(), name


@pytest.mark.parametrize("protocol", ["stream2", "swmr", "pieces"])
def test_every_source_gives_the_object_of_the_file(
    experiment: Experiment, tmp_path: Path, protocol: str
) -> None:
    table, done, scan = tmp_path / "positions.csv", [], experiment.scan
    faults = ReplayOptions(rate=300, drop=0.1) if protocol == "swmr" else ReplayOptions(rate=2000)
    with ExitStack() as stack:
        if protocol == "stream2":
            url = stack.enter_context(replayed(scan, faults, str(table), "stream2"))
        elif protocol == "swmr":
            stack.enter_context(replayed(scan, faults, str(table), "swmr", str(tmp_path / "frames.h5")))
            url = f"swmr+file://{tmp_path}/frames.h5?frames=64&idle=0.5"
        else:
            stack.enter_context(replayed(scan, faults, str(table), "swmr", str(tmp_path / "x.h5")))
            url = f"swmr+file://{tmp_path}/scan_data_*.h5?data=/d&idle=1"
            stack.enter_context(pieces_appear(scan, tmp_path))
        run = LiveRun(
            experiment.network,
            open_frames(url),
            open_positions(str(table)),
            experiment.settings,
            FAST,
            done.append,
        )
        with run:
            run.run()
    (series,) = done
    numbers = sorted(set(range(64)) - set(series.report.missing))
    assert (len(numbers) < 64) == (protocol == "swmr")
    expected = experiment.offline
    if protocol == "swmr":
        left = replace(series.scan, diffraction=scan.diffraction[numbers], positions=scan.positions[numbers])
        expected = reconstruct(experiment.network, left).object
    assert series.reconstruction.object.tobytes() == expected.tobytes()


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


@pytest.mark.parametrize("suffix", ["lz4", "none", "big-endian"])
def test_every_encoding_of_stream_v1_is_read(suffix: str) -> None:
    import lz4.block

    image = np.random.default_rng(0).integers(0, 60000, (12, 20)).astype(np.uint16)
    encoding, data = {
        "lz4": ("lz4<", lz4.block.compress(image.tobytes(), store_size=False)),
        "none": ("<", image.tobytes()),
        "big-endian": (">", image.astype(">u2").tobytes()),
    }[suffix]
    (event,) = received(
        {"htype": "dimage-1.0", "series": 3, "frame": 7},
        {"htype": "dimage_d-1.0", "shape": [20, 12], "type": "uint16", "encoding": encoding},
        data,
    )
    assert (event.series, event.number) == (3, 7)
    np.testing.assert_array_equal(event.image, image)


def received(*parts: dict | bytes, scheme: str = "zmq") -> list:
    """The event of one message, sent over loopback."""
    port = free_port()
    with zmq.Context.instance().socket(zmq.PUSH) as sender:
        sender.bind(f"tcp://127.0.0.1:{port}")
        source = open_frames(f"{scheme}://127.0.0.1:{port}")
        sender.send_multipart(
            [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]
        )
        try:
            return [source.receive(10)]
        finally:
            source.close()


@pytest.mark.parametrize(
    ("changes", "data", "reason"),
    [
        ({"shape": [2**16, 2**16]}, b"", "expected at most"),
        ({}, (2**40).to_bytes(8, "big") + bytes(4), "declares 1099511627776 bytes, expected 512"),
        ({}, (512).to_bytes(8, "big") + bytes(12), "damaged bslz4 data"),
        ({"type": "complex64"}, b"", "is complex64"),
        ({"encoding": "bs32-lz4<"}, b"", "expected bs16-lz4<"),
    ],
)
def test_a_broken_frame_is_reported_by_number_and_ends_nothing(
    changes: dict, data: bytes, reason: str
) -> None:
    description = {"shape": [16, 16], "type": "uint16", "encoding": "bs16-lz4<", **changes}
    (event,) = received({"htype": "dimage-1.0", "series": 1, "frame": 5}, description, data)
    assert event.number == 5
    assert reason in event.reason


def test_what_is_no_stream_is_refused() -> None:
    with pytest.raises(InputError, match="expected DECTRIS Stream v1"):
        received(b"\x00\x01 not json")


def test_frames_wait_for_positions_that_come_after_the_last_of_them(experiment: Experiment) -> None:
    scan = experiment.scan
    positions = [samples_of(scan, list(range(i, i + 8))) for i in range(0, 64, 8)]
    frames = [SeriesBegin(1, 64), *frames_of(scan), SeriesEnd(1)]
    done: list[FinishedSeries] = []
    late = Script([PositionsBegin(), *positions, PositionsEnd()], delay=0.05)
    with LiveRun(experiment.network, Script(frames), late, experiment.settings, FAST, done.append) as run:
        run.run()
    assert done[0].reconstruction.object.tobytes() == experiment.offline.tobytes()


def test_a_full_inbox_holds_the_detector_back_and_loses_nothing(experiment: Experiment) -> None:
    frames = Script([*frames_of(experiment.scan), SeriesEnd(1)])
    done: list[FinishedSeries] = []
    three = 3 * frames.events[0].image.nbytes
    ahead = []

    def observe(current: object, waiting: int) -> None:
        ahead.append(frames.received - current.report.frames)

    run = LiveRun(
        experiment.network,
        frames,
        Script([samples_of(experiment.scan), PositionsEnd()]),
        replace(experiment.settings, batch=2),
        FAST.model_copy(update={"buffer": three / 1e9}),
        done.append,
        observe,
    )
    with run:
        time.sleep(0.3)
        # Three wait, and a fourth is in the hand of the receiver.
        assert frames.received == 4
        run.run()
    assert max(ahead) <= 4 + 1
    assert done[0].report.frames == 64
    assert not done[0].report.missing


def test_gaps_are_reported_by_number_and_interpolated_only_if_asked(experiment: Experiment) -> None:
    scan = experiment.scan
    frames = frames_of(scan, [n for n in range(64) if n not in (3, 40)])
    positions = samples_of(scan, [n for n in range(1, 64) if n != 20])
    (plain,) = live(experiment, [SeriesBegin(1, 64), *frames, SeriesEnd(1)], [positions, PositionsEnd()])
    assert plain.report.missing == [3, 40]
    assert plain.report.without_position == [0, 20]
    assert plain.report.without_frame == [3, 40]
    assert len(plain.scan) == 60
    chosen = [n for n in range(64) if n not in (0, 3, 20, 40)]
    expected = reconstruct(experiment.network, replace(plain.scan, diffraction=scan.diffraction[chosen]))
    assert plain.reconstruction.object.tobytes() == expected.object.tobytes()
    (filled,) = live(
        experiment,
        [SeriesBegin(1, 64), *frames, SeriesEnd(1)],
        [positions, PositionsEnd()],
        interpolate=True,
    )
    # Frame 0 is outside of the range of the positions.
    assert filled.report.interpolated == [20]
    assert filled.report.without_position == [0]
    row = filled.scan.positions[sorted(set(range(1, 64)) - {3, 40}).index(20)]
    np.testing.assert_allclose(row, (scan.positions[19] + scan.positions[21]) / 2)


def test_a_new_series_makes_a_new_object_even_if_the_one_before_did_not_end(experiment: Experiment) -> None:
    scan = experiment.scan
    half = list(range(32))
    frames = [SeriesBegin(1, 64), *frames_of(scan, half), SeriesBegin(2, 64)]
    frames += [*frames_of(scan, series=2), SeriesEnd(2)]
    positions = [PositionsBegin(), samples_of(scan, half), PositionsEnd()]
    positions += [PositionsBegin(), samples_of(scan), PositionsEnd()]
    first, second = live(experiment, frames, positions, FAST.model_copy(update={"series": 2}))
    assert (first.series, len(first.scan)) == (1, 32)
    # What was not measured is not missing.
    assert first.report.missing == []
    assert second.reconstruction.object.tobytes() == experiment.offline.tobytes()


def test_a_late_receiver_says_what_it_missed(experiment: Experiment) -> None:
    late = list(range(24, 64))
    (series,) = live(
        experiment,
        [*frames_of(experiment.scan, late), SeriesEnd(1)],
        [samples_of(experiment.scan), PositionsEnd()],
    )
    assert series.report.missing == list(range(24))
    assert len(series.scan) == 40


def test_bad_frames_are_left_out_by_number(experiment: Experiment) -> None:
    frames = frames_of(experiment.scan)
    frames[9] = Frame(1, 9, np.zeros_like(frames[9].image))
    frames[20] = Frame(1, 20, frames[20].image[:8])
    frames[33] = Frame(1, 33, np.full_like(frames[33].image, np.iinfo(frames[33].image.dtype).max))
    (series,) = live(experiment, [*frames, SeriesEnd(1)], [samples_of(experiment.scan), PositionsEnd()])
    assert set(series.report.left_out) == {9, 20, 33}
    assert series.report.left_out[9] == "no photons"
    assert series.report.left_out[20].startswith("8 x 16")
    assert "saturated" in series.report.left_out[33]
    assert len(series.scan) == 61


def test_silence_and_interruption_pass_on_the_object_so_far(experiment: Experiment) -> None:
    done: list[FinishedSeries] = []
    frames, positions = frames_of(experiment.scan, list(range(40))), samples_of(experiment.scan)
    quick = FAST.model_copy(update={"silence": 0.4})
    with (
        LiveRun(
            experiment.network, Script(frames), Script([positions]), experiment.settings, quick, done.append
        ) as run,
        pytest.raises(ServerError, match=r"no frame for 0\.4 s"),
    ):
        run.run()
    assert len(done[0].scan) == 40

    interruptions = [KeyboardInterrupt()]

    def interrupt(current: object, waiting: int) -> None:
        if interruptions:
            raise interruptions.pop()

    with (
        LiveRun(
            *(experiment.network, Script(frames), Script([positions]), experiment.settings, FAST),
            *(done.append, interrupt),
        ) as run,
        pytest.raises(KeyboardInterrupt),
    ):
        run.run()
    assert 16 <= len(done[1].scan) <= 40


def test_a_wrong_address_is_refused_after_a_stated_time(
    experiment: Experiment, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    options = ("--out", tmp_path / "o.h5", "--probe", experiment.path, "--silence", 0.3)
    code, _, error = run(
        *("live", experiment.network.path, "--frames", f"zmq://127.0.0.1:{free_port()}", *options),
        *("--positions", tmp_path / "p.csv"),
    )
    assert code == 3
    assert "no message for 0.3 s" in error
    for frames, expected in (("ftp://x", "unknown kind of source"), ("zmq://host", "no host and port")):
        code, _, error = run(
            *("live", experiment.network.path, "--frames", frames, *options),
            *("--positions", tmp_path / "p.csv"),
        )
        assert (code, expected in error) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_networks_of_groups_are_refused_before_anything_is_received(experiment: Experiment) -> None:
    class Groups(Session):
        def __init__(self) -> None:
            self.path = Path("grid2.onnx")
            self.contract = experiment.network.contract.model_copy(update={"gridsize": 2})

    with pytest.raises(UnsupportedError, match="expected a network of gridsize 1"):
        check_network(Groups(), experiment.settings)
    with pytest.raises(InputError, match="weighting 'probe' needs a probe"):
        check_network(experiment.network, replace(experiment.settings, probe=None))


def test_positions_without_a_unit_are_refused(experiment: Experiment) -> None:
    with pytest.raises(InputError, match="unit is unknown, expected --positions-unit"):
        live(
            experiment,
            [*frames_of(experiment.scan), SeriesEnd(1)],
            [samples_of(experiment.scan), PositionsEnd()],
            reading=ReadOptions(),
        )


def test_stream2_with_zstandard_and_without_compression_is_read() -> None:
    import bitshuffle
    import cbor2

    image = np.random.default_rng(0).integers(0, 60000, (12, 20)).astype(np.uint16)
    header = image.nbytes.to_bytes(8, "big") + (2048).to_bytes(4, "big")
    for content in (
        image.tobytes(),
        ["bszstd", 2, header + bitshuffle.compress_zstd(image.reshape(-1), 1024).tobytes()],
    ):
        message = {
            "type": "image",
            "series_id": 2,
            "image_id": 9,
            "data": {"threshold_1": [[12, 20], cbor2.CBORTag(69, content)]},
        }
        (event,) = received(cbor2.dumps(message), scheme="stream2")
        assert (event.series, event.number) == (2, 9)
        np.testing.assert_array_equal(event.image, image)
    message["data"] = {"threshold_1": [[2**14, 2**14], cbor2.CBORTag(69, ["bslz4", 2, b""])]}
    (event,) = received(cbor2.dumps(message), scheme="stream2")
    assert "expected at most" in event.reason
    with pytest.raises(InputError, match="expected Stream2"):
        received(b"\xff\xff", scheme="stream2")
