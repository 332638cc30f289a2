"""Live reconstruction over real sockets: the object of the finished file, bit for bit, whatever happens on the way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptychonnx.harness.replay.replay import ReplayOptions
from ptychonnx.runtime.formats import ReadOptions
from ptychonnx.runtime.live.live_reconstruction import FinishedSeries
from ptychonnx.runtime.live.live_run import LiveRun
from ptychonnx.runtime.live.sources import open_frames, open_positions
from ptychonnx.runtime.reconstruction import reconstruct

from .live_streams import (
    FAST,
    Experiment,
    free_port,
    pieces_appear,
    replayed,
)

pytest.importorskip("bitshuffle")


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
            if name.startswith("entry/misfit"):  # reading a finished file, patterns are compared once more
                continue
            if isinstance(theirs[name], h5py.Dataset) and not name.endswith("title"):
                assert np.asarray(ours[name][()]).tobytes() == np.asarray(theirs[name][()]).tobytes(), name


@pytest.mark.parametrize("protocol", ["stream2", "swmr", "pieces", "pva"])
def test_every_source_gives_the_object_of_the_file(
    experiment: Experiment, tmp_path: Path, protocol: str
) -> None:
    table, done, scan = tmp_path / "positions.csv", [], experiment.scan
    faults = ReplayOptions(rate=300, drop=0.1) if protocol == "swmr" else ReplayOptions(rate=2000)
    with ExitStack() as stack:
        if protocol == "stream2":
            url = stack.enter_context(replayed(scan, faults, str(table), "stream2"))
        elif protocol == "pva":
            faults = ReplayOptions(rate=200)
            url = stack.enter_context(replayed(scan, faults, str(table), "pva"))
            url += "/ptychonnx:image?first=1&frames=64"
        elif protocol == "swmr":
            stack.enter_context(replayed(scan, faults, str(table), "swmr", str(tmp_path / "frames.h5")))
            url = f"swmr+file://{tmp_path}/frames.h5?frames=64&idle=0.5"
        else:
            stack.enter_context(replayed(scan, faults, str(table), "swmr", str(tmp_path / "x.h5")))
            url = f"swmr+file://{tmp_path}/scan_data_*.h5?data=/d&frames=64&idle=60"
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
