"""Positions from PVs, from HDF5 files that grow, from plans, and from sources of other packages."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions
from ptychonnx.runtime.live.events import PositionsEnd, SeriesEnd
from ptychonnx.runtime.live.live_reconstruction import FinishedSeries
from ptychonnx.runtime.live.live_run import LiveRun
from ptychonnx.runtime.live.positions.growing_table import GrowingTable
from ptychonnx.runtime.live.sources import open_frames, open_positions
from ptychonnx.runtime.reconstruction import reconstruct

from .live_streams import FAST, Experiment, Script, frames_of, free_port

pytest.importorskip("bitshuffle")


def object_with(experiment: Experiment, url: str) -> FinishedSeries:
    """The series of the experiment with the positions of a source, whose unit it states."""
    done: list[FinishedSeries] = []
    settings = replace(experiment.settings, reading=ReadOptions())
    frames = Script([*frames_of(experiment.scan), SeriesEnd(1)])
    with LiveRun(experiment.network, frames, open_positions(url), settings, FAST, done.append) as run:
        run.run()
    return done[0]


@pytest.mark.parametrize("kind", ["table", "group"])
def test_positions_come_from_a_pv_with_the_number_of_the_frame(experiment: Experiment, kind: str) -> None:
    from p4p import Type, Value
    from p4p.nt import NTTable
    from p4p.server import Server
    from p4p.server.thread import SharedPV

    positions, connected = experiment.scan.positions, threading.Event()
    scalar = ("S", None, [("value", "d")])
    group = Type([("frame", ("S", None, [("value", "i")])), ("x", scalar), ("y", scalar)])
    table = NTTable([("frame", "i"), ("x", "d"), ("y", "d")])

    def value(numbers: list[int]) -> Value:
        rows = [{"frame": n, "x": positions[n, 1], "y": positions[n, 0]} for n in numbers]
        if kind == "table":
            return table.wrap(rows)
        return Value(group, {name: {"value": rows[0][name]} for name in rows[0]})

    class Connected:
        def onFirstConnect(self, pv: SharedPV) -> None:
            connected.set()

    # The value at connection is that of the scan before.
    pv = SharedPV(handler=Connected(), initial=value([5]))
    port = free_port()
    settings = {"EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1", "EPICS_PVAS_SERVER_PORT": str(port)}
    settings["EPICS_PVAS_AUTO_BEACON_ADDR_LIST"] = "NO"

    def post() -> None:
        assert connected.wait(30)
        time.sleep(0.5)
        step = 8 if kind == "table" else 1
        for start in range(0, 64, step):
            pv.post(value(list(range(start, start + step))))
            time.sleep(0.005)

    with Server(providers=[{"stage": pv}], conf=settings, useenv=False):
        thread = threading.Thread(target=post)
        thread.start()
        series = object_with(experiment, f"pva://127.0.0.1:{port}/stage?unit=px")
        thread.join()
    assert series.report.without_position == []
    assert series.reconstruction.object.tobytes() == experiment.offline.tobytes()


# A writer in a process of its own; it makes places ahead of the values, as some do.
WRITER = """
import sys, time
import h5py, numpy as np
positions = np.load(sys.argv[2])
with h5py.File(sys.argv[1], "w", libver="latest") as file:
    new = dict(shape=(0,), dtype="f8", maxshape=(None,), chunks=(16,), fillvalue=np.nan)
    sets = [file.create_dataset(name, **new) for name in ("x", "y", "number")]
    sets[1].attrs["units"] = "px"
    file.swmr_mode = True
    for start in range(0, 64, 8):
        rows = slice(start, start + 8)
        for dataset, part in zip(sets, (positions[rows, 1], positions[rows, 0], np.arange(start, start + 8))):
            dataset.resize(min(64, start + 12), axis=0)
            dataset[rows] = part
            dataset.flush()
        time.sleep(0.02)
    time.sleep(1)
"""


@pytest.mark.parametrize("numbered", [False, True])
def test_positions_come_from_datasets_that_grow(
    experiment: Experiment, tmp_path: Path, numbered: bool
) -> None:
    path = tmp_path / "positions.h5"
    np.save(tmp_path / "positions.npy", experiment.scan.positions)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path, tmp_path / "positions.npy"])
    url = f"swmr+file://{path}?x=/x&y=/y&frames=64" + ("&frame=/number" if numbered else "")
    series = object_with(experiment, url)
    assert writer.wait() == 0
    assert series.reconstruction.object.tobytes() == experiment.offline.tobytes()


def test_several_samples_in_a_file_are_averaged(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["x"], file["y"] = [1.0, 3.0, 5.0, 7.0], [0.0, 0.0, 1.0, 1.0]
    source = open_positions(f"swmr+file://{tmp_path}/p.h5?x=/x&y=/y&samples=2&frames=2&unit=um")
    samples = source.receive(5)
    np.testing.assert_array_equal(samples.numbers, [0, 0, 1, 1])
    np.testing.assert_array_equal(samples.values[:, 1], [1, 3, 5, 7])
    assert (source.receive(5), source.unit) == (PositionsEnd(), "um")
    source.close()


def test_a_planned_raster_stands_for_measured_positions(experiment: Experiment) -> None:
    series = object_with(experiment, "raster://8x8?step=6.5&unit=px&snake=1")
    rows, columns = np.divmod(np.arange(64), 8)
    columns = np.where(rows % 2, 7 - columns, columns)
    np.testing.assert_array_equal(series.scan.positions, 6.5 * np.stack([rows, columns], axis=1))
    planned = replace(series.scan, diffraction=experiment.scan.diffraction)
    assert series.reconstruction.object.tobytes() == reconstruct(experiment.network, planned).object.tobytes()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("raster://8x?step=1", r"expected raster://ROWSxCOLUMNS"),
        ("raster://8x8?step=0", "step = '0': expected a value greater than 0"),
        ("raster://8x8?step=1&unit=inch", "unit = 'inch': expected 'px', 'm'"),
        ("raster://99999x99999?step=1", "at most 10000000 points"),
        ("swmr+file:///tmp/p.h5?x=/x", "setting y: field required"),
        ("swmr+file:///no/folder/p.h5?x=/x&y=/y", "no such folder"),
        ("swmr+file:///tmp/p.h5?x=/x&y=/y&samples=0", "samples = '0'"),
        ("pva://127.0.0.1/?unit=um", "no name of a PV"),
        ("pva://127.0.0.1/stage?unit=feet", "unit = 'feet'"),
        ("pva://127.0.0.1/stage?first=1", "first = '1': unknown setting"),
    ],
)
def test_positions_that_cannot_be_read_are_refused(url: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        open_positions(url)


@pytest.mark.parametrize("idle", ["nan", "inf", "-1"])
@pytest.mark.parametrize("url", ["swmr+file:///tmp/f.h5?", "pva://127.0.0.1/frames?first=1&"])
def test_frames_of_a_source_that_would_never_be_idle_are_refused(url: str, idle: str) -> None:
    with pytest.raises(InputError, match=f"idle = '{idle}'"):
        open_frames(f"{url}idle={idle}")


def test_datasets_of_another_kind_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["x"], file["y"] = np.zeros((3, 2)), np.zeros(3)
    source = open_positions(f"swmr+file://{tmp_path}/p.h5?x=/x&y=/y")
    with pytest.raises(InputError, match=r"/x is no dataset \[m\] of numbers"):
        source.receive(5)
    source.close()


def test_another_package_adds_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution with entry points, as pip leaves it."""
    (tmp_path / "their_beamline.py").write_text(
        "def frames(url):\n    return 'frames of ' + url\n\ndef positions(url):\n    return 'positions of ' + url\n"
    )
    metadata = tmp_path / "their_beamline-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their-beamline\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[ptychonnx.live.frames]\ntheirs = their_beamline:frames\n"
        "[ptychonnx.live.positions]\ntheirs = their_beamline:positions\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert open_frames("theirs://hutch") == "frames of theirs://hutch"
    assert open_positions("theirs://hutch") == "positions of theirs://hutch"
    with pytest.raises(InputError, match=r"zmq://.*theirs://"):
        open_frames("others://hutch")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8", "utf-8-sig"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_table_in_utf_16_grows_by_any_number_of_bytes(tmp_path: Path, encoding: str, size: int) -> None:
    path = tmp_path / "positions.csv"
    content = "frame\tx_um\ty_um\r\n0\t1.5\t2.5\r\n1\t3.5\t4.5\r\n".encode(encoding)
    table, values = GrowingTable(str(path)), []
    for start in range(0, len(content), size):
        with path.open("ab") as file:
            file.write(content[start : start + size])
        if (event := table.receive(0)) is not None:
            values.extend(event.values.tolist())
    assert (values, table.unit) == ([[2.5, 1.5], [4.5, 3.5]], "um")
