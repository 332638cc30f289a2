"""Live reconstruction with a network that takes the beam of the scan."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.formats.readers.native import write_scan
from ptychonnx.runtime.formats.readers.probe import read_probe
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.live.events import PositionsEnd, SeriesEnd
from ptychonnx.runtime.live.live_reconstruction import FinishedSeries, warm_up
from ptychonnx.runtime.live.live_run import LiveRun
from ptychonnx.runtime.live.live_settings import LiveSettings, check_network
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.scan import Scan

from .live_streams import BATCH, FAST, Experiment, Script, counted, frames_of, mosaic, samples_of

pytest.importorskip("bitshuffle")


def general_experiment(folder: Path, n: int, patterns: int, batch: int) -> Experiment:
    """Patterns of N x N pixels, three of which are bad, for a general network of the zoo."""
    import ptychonnx

    scan = counted(ptychonnx.simulate_lines(grid=5, n=n, photons=1e5))
    mask = np.ones((n, n), dtype=bool)
    mask[20, 30:33] = False
    # As a reader of detector files leaves them: bad pixels hold nothing.
    scan = replace(
        scan, diffraction=scan.diffraction[:patterns] * mask, positions=scan.positions[:patterns], mask=mask
    )
    path = folder / f"scan_{n}.npz"
    write_scan(path, scan)
    network = Session(f"zoo:any_{n}", "cpu")
    settings = LiveSettings(
        reading=ReadOptions(positions_unit="px"),
        stitching=ReconstructOptions(),
        probe=read_probe(path),
        mask=mask,
        batch=batch,
        source="the test",
    )
    offline = reconstruct(network, read_scan(path, probe=path, estimate_probe=True), batch=batch).object
    return Experiment(scan, path, network, offline, settings)


@pytest.fixture(scope="module")
def general(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Twenty patterns at N = 64."""
    return general_experiment(tmp_path_factory.mktemp("general"), 64, 20, BATCH)


def run_of(
    experiment: Experiment, frames: list, done: list[FinishedSeries], observe: Callable = lambda *_: None
) -> LiveRun:
    sources = Script(frames), Script([samples_of(experiment.scan), PositionsEnd()])
    return LiveRun(experiment.network, *sources, experiment.settings, FAST, done.append, observe)


def test_the_object_of_a_general_network_is_that_of_the_file(general: Experiment) -> None:
    """The brightness of a scan is known at its end, so the first batches were predicted with another one."""
    done: list[FinishedSeries] = []
    growing = []
    warm_up(general.network, general.settings)
    with run_of(
        general,
        [*frames_of(general.scan), SeriesEnd(1)],
        done,
        lambda current, waiting: growing.append(current.object),
    ) as run:
        run.run()
    assert done[0].reconstruction.object.tobytes() == general.offline.tobytes()
    # What grows on the screen is nearly that: the same network, with the beam of the patterns so far.
    last, known = growing[-1], general.offline
    rows, columns = known.shape
    seen = mosaic({tile: last.tile(*tile) for tile in last.changed(-1)}, general.scan)[:rows, :columns]
    covered = np.isfinite(seen)
    assert np.corrcoef(np.abs(seen[covered]), np.abs(known[covered]))[0, 1] > 0.9


def test_patterns_of_128_pixels_are_reconstructed_live(tmp_path: Path) -> None:
    large = general_experiment(tmp_path, 128, 7, 4)
    done: list[FinishedSeries] = []
    with run_of(large, [*frames_of(large.scan), SeriesEnd(1)], done) as run:
        run.run()
    assert done[0].reconstruction.object.tobytes() == large.offline.tobytes()


def test_an_interruption_keeps_what_was_predicted(general: Experiment) -> None:
    """There may be no time to run the network again."""
    done: list[FinishedSeries] = []

    class Counting(Session):
        calls = 0

        def predict(self, *inputs: np.ndarray, **beam: object) -> np.ndarray:
            self.calls += 1
            return super().predict(*inputs, **beam)

    network = Counting("zoo:any_64", "cpu")

    before = []

    def interrupt(current: object, waiting: int) -> None:
        if current.placed == 16 and not before:
            before.append(network.calls)
            raise KeyboardInterrupt

    with (
        run_of(replace(general, network=network), frames_of(general.scan)[:16], done, interrupt) as run,
        pytest.raises(KeyboardInterrupt),
    ):
        run.run()
    assert len(done[0].scan) == 16
    assert [network.calls] == before


def test_another_beam_is_said_while_the_scan_runs(
    general: Experiment, caplog: pytest.LogCaptureFixture
) -> None:
    """Sixteen times fewer photons."""
    frames = [replace(frame, image=frame.image // 16) for frame in frames_of(general.scan)]
    done: list[FinishedSeries] = []
    said = []

    def observe(current: object, waiting: int) -> None:
        said.append(current.report.beam.get("photons"))

    with caplog.at_level(logging.WARNING), run_of(general, [*frames, SeriesEnd(1)], done, observe) as run:
        run.run()
    assert "fewer than the network was trained for" in said[0]
    assert caplog.text.count("fewer than the network was trained for") == 1
    assert any(line.startswith("photons:") for line in done[0].report.warnings())


def test_a_fixed_scale_gets_the_brightness_of_the_whole_scan_too(experiment: Experiment) -> None:
    """Sixteen times as bright as the network knows it."""
    counts = [16 * frame.image.astype(np.uint32) for frame in frames_of(experiment.scan)]
    frames = [
        replace(frame, image=image) for frame, image in zip(frames_of(experiment.scan), counts, strict=True)
    ]
    done: list[FinishedSeries] = []
    growing = []
    with run_of(
        experiment,
        [*frames, SeriesEnd(1)],
        done,
        lambda current, waiting: growing.append(current.object),
    ) as run:
        run.run()
    (line,) = [line for line in done[0].report.warnings() if line.startswith("photons:")]
    assert "patterns are multiplied by 0.25 for it" in line
    file = replace(done[0].scan, diffraction=np.sqrt(np.stack(counts)).astype(np.float32))
    expected = reconstruct(experiment.network, file, batch=BATCH).object
    assert done[0].reconstruction.object.tobytes() == expected.tobytes()
    # What grew on the screen was right as well.
    tiles = {tile: growing[0].tile(*tile) for tile in growing[0].changed(-1)}
    seen = mosaic(tiles, experiment.scan)[: expected.shape[0], : expected.shape[1]]
    reached = np.isfinite(seen)
    np.testing.assert_allclose(seen[reached], experiment.offline[reached], atol=1e-3)


def test_a_general_network_needs_a_probe(general: Experiment) -> None:
    with pytest.raises(InputError, match="needs the probe of the beam, expected --probe FILE"):
        check_network(general.network, replace(general.settings, probe=None))


def test_a_scan_of_the_beam_of_a_specialised_network_has_nothing_to_say(experiment: Experiment) -> None:
    done: list[FinishedSeries] = []
    with run_of(experiment, [*frames_of(experiment.scan), SeriesEnd(1)], done) as run:
        run.run()
    assert isinstance(done[0].scan, Scan)
    assert "photons" not in done[0].report.beam
