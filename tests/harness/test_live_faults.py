"""What comes late, twice, damaged or never during a live reconstruction."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError, ServerError, UnsupportedError
from ptychonnx.runtime.formats import ReadOptions
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.live.events import (
    Frame,
    PositionSamples,
    PositionsBegin,
    PositionsEnd,
    SeriesBegin,
    SeriesEnd,
)
from ptychonnx.runtime.live.live_reconstruction import FinishedSeries
from ptychonnx.runtime.live.live_run import LiveRun
from ptychonnx.runtime.live.live_settings import check_network
from ptychonnx.runtime.live.running_checks import RunningChecks
from ptychonnx.runtime.live.sources import check_apart
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.scan.forward_model import forward

from .live_streams import (
    FAST,
    Experiment,
    Script,
    frames_of,
    free_port,
    live,
    samples_of,
)

pytest.importorskip("bitshuffle")

# Patterns of 16 x 16 pixels and a limit of 20 kB for every file, by which writing fails as on a full disk.
FULL_DISK = """
import resource, signal, sys
from ptychonnx.harness.cli import main
from ptychonnx.harness.replay.detectors import open_detector, open_encoders
from ptychonnx.harness.replay.replay import replay
from ptychonnx.harness.replay.replay import ReplayOptions
from ptychonnx.runtime.formats import read_scan
import threading
artifact, scan, out, frames, positions = sys.argv[1:]
options = ReplayOptions(rate=5000)
detector, encoders = open_detector("zmq", frames, options, 20), open_encoders(positions, options, 20)
threading.Thread(target=replay, args=(read_scan(scan), detector, encoders, options), daemon=True).start()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.dont_write_bytecode = True  # compiled modules would be cut short too
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.argv = ["ptychonnx", "live", artifact, "--frames", f"zmq://{frames}", "--positions", f"zmq://{positions}"]
sys.argv += ["--positions-unit", "px", "--pixel-size", "1e-8", "--probe", scan, "--out", out]
main()
"""


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
        end = time.monotonic() + 60
        while frames.received < 4 and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)
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


def test_a_detector_that_starts_again_begins_a_new_object(experiment: Experiment) -> None:
    """Also with the number of the series before."""
    scan = experiment.scan
    half = list(range(32))
    frames = [SeriesBegin(1, 64), *frames_of(scan, half), SeriesBegin(1, 64), *frames_of(scan), SeriesEnd(1)]
    positions = [PositionsBegin(), samples_of(scan, half), PositionsEnd()]
    positions += [PositionsBegin(), samples_of(scan), PositionsEnd()]
    first, second = live(experiment, frames, positions, FAST.model_copy(update={"series": 2}))
    assert (len(first.scan), second.report.duplicates) == (32, 0)
    assert second.reconstruction.object.tobytes() == experiment.offline.tobytes()


def test_numbers_that_go_back_are_frames_that_came_twice(
    experiment: Experiment, caplog: pytest.LogCaptureFixture
) -> None:
    frames = frames_of(experiment.scan, [*range(40), *range(20), *range(40, 64)])
    (series,) = live(experiment, [*frames, SeriesEnd(1)], [samples_of(experiment.scan), PositionsEnd()])
    assert caplog.text.count("frame 0 of series 1 came again: the first counts") == 1
    assert series.report.duplicates == 20
    assert series.reconstruction.object.tobytes() == experiment.offline.tobytes()


def test_a_clock_that_jumps_changes_nothing(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = cycle([2e9, 0.0, 1e12, -5.0])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    positions = Script([samples_of(experiment.scan), PositionsEnd()], delay=0.2)
    done: list[FinishedSeries] = []
    frames = Script([*frames_of(experiment.scan), SeriesEnd(1)])
    with LiveRun(experiment.network, frames, positions, experiment.settings, FAST, done.append) as run:
        run.run()
    assert done[0].reconstruction.object.tobytes() == experiment.offline.tobytes()
    assert 0 <= done[0].report.seconds < 60


def test_a_second_receiver_on_the_same_socket_is_suspected(
    experiment: Experiment, caplog: pytest.LogCaptureFixture
) -> None:
    """A PUSH socket deals messages out in turn: one receiver gets the odd frames, another the even ones."""
    numbers = [2 * n for n in range(64)]
    images = frames_of(experiment.scan)
    frames = [Frame(1, number, images[number // 2].image) for number in numbers]
    table = PositionSamples(np.array(numbers), experiment.scan.positions)
    (series,) = live(experiment, [*frames, SeriesEnd(1)], [table, PositionsEnd()])
    assert "63 of 127 frames did not come" in caplog.text
    assert "is another receiver connected to the same socket?" in caplog.text
    assert series.report.missing == list(range(1, 127, 2))


def test_a_full_disk_is_said_in_one_line(experiment: Experiment, tmp_path: Path) -> None:
    """The patterns do not fit into the folder for temporary files."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    arguments = [experiment.network.path, experiment.path, tmp_path / "o.h5", *addresses]
    command = [sys.executable, "-c", FULL_DISK, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 3, result.stderr
    assert "cannot hold the pat" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


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
    frames[41] = Frame(1, 41, frames[41].image.astype(np.float32))
    (series,) = live(experiment, [*frames, SeriesEnd(1)], [samples_of(experiment.scan), PositionsEnd()])
    assert set(series.report.left_out) == {9, 20, 33, 41}
    assert series.report.left_out[9] == "no photons"
    assert series.report.left_out[20].startswith("8 x 16")
    assert "saturated" in series.report.left_out[33]
    expected = f"16 x 16 float32, expected 16 x 16 {frames[0].image.dtype} like the first frame"
    assert series.report.left_out[41] == expected
    assert len(series.scan) == 60


def test_a_detector_that_saturates_is_named(experiment: Experiment, caplog: pytest.LogCaptureFixture) -> None:
    frames = [replace(frame, image=np.minimum(frame.image, 300)) for frame in frames_of(experiment.scan)]
    live(experiment, [*frames, SeriesEnd(1)], [samples_of(experiment.scan), PositionsEnd()])
    (line,) = [line for line in caplog.messages if line.startswith("saturation")]
    assert "end at the same 300 counts" in line


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


@pytest.mark.parametrize(
    ("frames", "positions"),
    [
        ("zmq://host:9999", "zmq+sub://host:9999"),
        ("pva://host:5075/PV?first=1", "pva://host:5075/PV"),
    ],
)
def test_one_address_for_frames_and_positions_is_refused(frames: str, positions: str) -> None:
    with pytest.raises(
        InputError, match=r"--positions .* is the address of --frames, expected that of the enc"
    ):
        check_apart(frames, positions)


@pytest.mark.parametrize(
    ("frames", "positions"),
    [
        ("zmq://host:9999", "zmq://host:9998"),
        ("pva://host:5075/FRAMES", "pva://host:5075/TABLE"),
        ("swmr+file:///scan.h5", "swmr+file:///scan.h5?x=x&y=y"),
        ("pva://PV", "table.csv"),
        ("zmq://host:9999", "raster://3x4?step=1"),
    ],
)
def test_addresses_that_differ_and_files_that_hold_both_are_taken(frames: str, positions: str) -> None:
    check_apart(frames, positions)


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


def test_checks_notice_a_lost_beam_another_probe_and_an_empty_beam() -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[-16:16, -16:16]
    probe = np.exp(-(rows**2 + columns**2) / 40 + 0.01j * (rows**2 + columns**2)).astype(np.complex64)[None]
    other = np.roll(probe * np.exp(0.3j * rows), 5, axis=2)
    windows = np.exp(1j * rng.uniform(-1, 1, (200, 32, 32))).astype(np.complex64)
    checks = RunningChecks(1000 * probe)

    def look(first: int, beam: np.ndarray, objects: np.ndarray, light: float = 1000) -> list[str]:
        for number, window in enumerate(objects, first):
            measured = np.sqrt(rng.poisson((light * forward(window, beam)) ** 2)).astype(np.float32)
            checks.add_patterns(number, measured[None])
            checks.add_misfit(number, measured, window, None)
        return [line.partition(": ")[2] for line in checks.warnings]

    assert look(0, probe, windows[:80]) == []
    # One pattern of each batch is compared, five batches a second at least: within a second.
    assert "did the beam change" in look(80, other, windows[:5])[0]
    assert look(85, other, windows[5:40])
    assert look(120, probe, windows[:80]) == []
    assert "is the sample out of the beam?" in look(200, probe, np.ones_like(windows[:10]))[0]
    assert look(210, probe, np.ones_like(windows[:30]))
    assert look(240, probe, windows[:80]) == []
    (line,) = look(320, probe, windows[:1], light=100)
    assert line.endswith("is the beam lost?")
    assert look(321, probe, windows[:80]) == []
    # All photons of a pattern on pixels that are not valid: there is no misfit of it, and no page that stands still.
    before, nowhere = checks.misfit, np.zeros((32, 32), bool)
    checks.add_patterns(401, np.ones((1, 32, 32), np.float32), nowhere)
    checks.add_misfit(401, np.ones((32, 32), np.float32), windows[0], nowhere)
    assert checks.misfit == before
    assert np.isfinite(before)
