"""Reading, inference and stitching overlap, and nothing of it shows in the result."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.progress import Callback
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.reconstruction.background import BackgroundReader, BackgroundWorker
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import LazyAmplitudes
from tests.runtime.test_session import contract, write_identity

ROOT = Path(__file__).resolve().parents[2]
# `getrusage` would tell the peak of the process that started this one, if that was larger.
MEASURE = """
import re, sys
from pathlib import Path
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.inference import Session
scan = read_scan(Path(sys.argv[2]), estimate_probe=True)
assert reconstruct(Session(Path(sys.argv[1]), "cpu"), scan).patterns == int(sys.argv[3])
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


class Recorded:
    """Amplitudes of a file of which each reading is written down; `fail` names a pattern that cannot be read."""

    def __init__(self, patterns, block=4, fail=None):
        self.asked: list[tuple[int, int, str]] = []
        self.patterns, self.fail = patterns, fail
        self.amplitudes = LazyAmplitudes(patterns.shape, self.read, block, "recorded")

    def read(self, start, stop):
        self.asked.append((start, stop, threading.current_thread().name))
        if self.fail is not None and start <= self.fail < stop:
            raise InputError(f"recorded[{self.fail}] cannot be read")
        return self.patterns[start:stop].copy()

    @property
    def ranges(self):
        return [(start, stop) for start, stop, _ in self.asked]


@pytest.fixture
def patterns():
    return np.random.default_rng(0).random((40, 16, 16), dtype=np.float32)


@pytest.fixture
def positions():
    rows, columns = np.divmod(np.arange(40), 8)
    return np.stack([rows * 4.0, columns * 4.0], axis=1) + 0.25


@pytest.fixture
def session(tmp_path):
    return Session(write_identity(tmp_path / "identity.onnx", contract()))


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    stages = ("ptychonnx-read", "ptychonnx-stitch")  # those of a session end with it
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith(stages)]
    assert left == []


@pytest.mark.parametrize("gridsize", [1, 2])
@pytest.mark.parametrize("batch", [1, 3, 16, 100])
def test_a_scan_in_a_file_gives_the_object_of_the_scan_in_memory(
    patterns, positions, tmp_path, gridsize, batch
):
    session = Session(write_identity(tmp_path / "i.onnx", contract(gridsize), gridsize))
    recorded = Recorded(patterns)
    found = reconstruct(session, Scan(recorded.amplitudes, positions), batch=batch)
    expected = reconstruct(session, Scan(patterns, positions), batch=batch)
    np.testing.assert_array_equal(found.stitched.object, expected.stitched.object)
    np.testing.assert_array_equal(found.stitched.weight, expected.stitched.weight)
    assert all(thread.startswith("ptychonnx-read") for *_, thread in recorded.asked)
    if gridsize == 1:
        assert recorded.ranges == [(start, start + 4) for start in range(0, 40, 4)]


def test_patterns_that_groups_share_are_read_once(patterns, positions, tmp_path):
    session = Session(write_identity(tmp_path / "i.onnx", contract(2), 2))
    recorded = Recorded(patterns)
    reconstruct(session, Scan(recorded.amplitudes, positions), batch=5)
    read = np.concatenate([np.arange(*each) for each in recorded.ranges])
    np.testing.assert_array_equal(np.sort(read), np.arange(40))


def test_forgotten_patterns_are_read_again(patterns, positions, tmp_path, monkeypatch):
    monkeypatch.setattr("ptychonnx.runtime.reconstruction.background._CACHE_BYTES", 6 * patterns[0].nbytes)
    session = Session(write_identity(tmp_path / "i.onnx", contract(2), 2))
    recorded = Recorded(patterns)
    found = reconstruct(session, Scan(recorded.amplitudes, positions), batch=5)
    expected = reconstruct(session, Scan(patterns, positions), batch=5)
    np.testing.assert_array_equal(found.stitched.object, expected.stitched.object)
    assert sum(stop - start for start, stop in recorded.ranges) > 40


def test_reading_is_ahead_by_two_blocks_and_no_more(patterns):
    recorded = Recorded(patterns)
    with BackgroundReader(recorded.amplitudes, np.arange(40)[:, None]) as ahead:
        np.testing.assert_array_equal(ahead[np.arange(3)[:, None]][:, 0], patterns[:3])
        # Behind everything that the thread has been told to read.
        ahead._worker.submit(lambda: None).result()
        assert recorded.ranges == [(0, 4), (4, 8), (8, 12)]


def test_patterns_out_of_turn_are_read_at_once_and_the_turn_stays(patterns):
    recorded = Recorded(patterns)
    with BackgroundReader(recorded.amplitudes, np.arange(40)[:, None]) as ahead:
        np.testing.assert_array_equal(ahead[np.array([[30], [2]])][:, 0], patterns[[30, 2]])
        np.testing.assert_array_equal(ahead[5:7], patterns[5:7])
        np.testing.assert_array_equal(ahead[7], patterns[7])
        for start in range(0, 40, 7):
            wanted = np.arange(start, min(start + 7, 40))
            np.testing.assert_array_equal(ahead[wanted[:, None]][:, 0], patterns[wanted])
        np.testing.assert_array_equal(np.asarray(ahead), patterns)


def test_a_pattern_that_cannot_be_read_comes_out_as_it_is(patterns, positions, session):
    recorded = Recorded(patterns, fail=21)
    done = []
    with pytest.raises(InputError, match=r"^recorded\[21\] cannot be read$"):
        reconstruct(session, Scan(recorded.amplitudes, positions), batch=4, progress=Callback(done.append))
    assert done[-1].done == 20


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_between_batches_comes_out_as_it_is(patterns, positions, session, error):
    def stop(done):
        raise error("stop")

    with pytest.raises(error, match="stop"):
        reconstruct(session, Scan(Recorded(patterns).amplitudes, positions), batch=4, progress=Callback(stop))


def test_an_error_of_the_network_comes_out_as_it_is(patterns, positions, tmp_path):
    counting = contract(input={"scale": 1.0, "scale_rule": "none", "domain": "counts", "dtype": "uint16"})
    session = Session(write_identity(tmp_path / "counts.onnx", counting, counts=True))
    bright = patterns.copy()
    bright[17, 3, 3] = 1000
    with pytest.raises(InputError, match="a pixel holds 1000000 counts"):
        reconstruct(session, Scan(Recorded(bright).amplitudes, positions), batch=4)


def test_an_error_of_the_stitcher_comes_out_as_it_is(patterns, positions, session, monkeypatch):
    def broken(self, patches, positions):
        raise ZeroDivisionError("stitcher")

    monkeypatch.setattr("ptychonnx.runtime.reconstruction.stitching.Stitcher.add", broken)
    with pytest.raises(ZeroDivisionError, match="stitcher"):
        reconstruct(session, Scan(Recorded(patterns).amplitudes, positions), batch=40)


def test_work_behind_waits_when_it_is_too_far_behind():
    gate, begun = threading.Event(), []

    def work(number):
        begun.append(number)
        gate.wait(10)

    with BackgroundWorker(work, "work") as behind:
        for number in range(4):
            behind.submit(number)
        late = threading.Thread(target=behind.submit, args=(4,))
        late.start()
        late.join(0.1)
        assert late.is_alive()
        gate.set()
        late.join(10)
        behind.finish()
    assert begun == [0, 1, 2, 3, 4]
    assert behind.seconds > 0


def test_a_product_of_a_streamed_scan_has_the_exact_flux(patterns, positions, tmp_path, session):
    from ptychonnx.runtime.formats.writers.reconstruction_file import write_reconstruction

    recorded = Recorded(patterns)
    probe = np.ones((1, 16, 16), np.complex64)
    scan = Scan(recorded.amplitudes, positions, probe=probe, pixel_size=1e-8, probe_estimated=True)
    result = reconstruct(session, scan)
    before = len(recorded.asked)
    write_reconstruction(tmp_path / "o.h5", result, scan, session.contract)
    assert len(recorded.asked) == before
    flux = replace(scan, diffraction=patterns).flux
    with h5py.File(tmp_path / "o.h5") as file:
        assert file.attrs["probe_photon_count"] == flux
        assert np.sum(np.abs(file["probe"][()]) ** 2) == pytest.approx(flux, rel=1e-6)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_scan(tmp_path):
    """Ten times the patterns over the same field of view: read whole, they would take 170 MiB more."""
    artifact = write_identity(tmp_path / "i.onnx", contract(n=128), n=128)
    rng = np.random.default_rng(0)
    frames = rng.poisson(2.0, (50, 128, 128)).astype(np.uint16)
    peaks = {}
    for count in (300, 3000):
        with h5py.File(tmp_path / f"{count}.h5", "w") as file:
            storage = {"chunks": (1, 128, 128), "compression": "lzf"}
            data = file.create_dataset("patterns", (count, 128, 128), np.uint16, **storage)
            for start in range(0, count, len(frames)):
                data[start : start + len(frames)] = frames
            # Whole pixels, of the middles of windows.
            x, y = rng.integers(64, 128, (2, count)) - 0.5
            file["probe_position_x_px"], file["probe_position_y_px"] = x, y
        command = [sys.executable, "-c", MEASURE, str(artifact), str(tmp_path / f"{count}.h5"), str(count)]
        found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        peaks[count] = 1024 * int(found.stdout)
    assert peaks[3000] - peaks[300] < 30 * 2**20
