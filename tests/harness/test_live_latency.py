"""How long a frame waits on its way to the growing object."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.live.events import PositionEvent, PositionsEnd, SeriesEnd
from ptychonnx.runtime.live.live_reconstruction import FinishedSeries, LiveReconstruction
from ptychonnx.runtime.live.live_run import LiveRun

from .live_streams import BATCH, FAST, Experiment, Script, frames_of, samples_of


@dataclass
class SlowNetwork:
    """A network that takes at least so many seconds for a batch."""

    network: Session
    seconds: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def batches(self, *args: Any, **options: Any) -> Any:
        time.sleep(self.seconds)
        return self.network.batches(*args, **options)


def test_frames_wait_for_a_full_batch_as_long_as_a_batch_takes(experiment: Experiment) -> None:
    """A batch that is not full takes as long: run early, it keeps a queue that never empties."""
    done: list[FinishedSeries] = []
    run = LiveRun(
        SlowNetwork(experiment.network, 0.3),  # type: ignore[arg-type]
        Script([*frames_of(experiment.scan), SeriesEnd(1)]),
        Script([samples_of(experiment.scan), PositionsEnd()]),
        experiment.settings,
        FAST,
        done.append,
        batch_seconds=0.2,
    )
    waits: list[float] = []
    take = run._frame_inbox.take

    def recorded(count: int, timeout: float) -> list:
        waits.append(timeout)
        return take(count, timeout)

    run._frame_inbox.take = recorded  # type: ignore[method-assign]
    with run:
        run.run()
    assert waits[0] == 0.2 > FAST.linger
    batches = len(experiment.scan) // BATCH
    assert all(wait >= 0.3 for wait in waits[1:batches])
    assert done[0].reconstruction.object.tobytes() == experiment.offline.tobytes()


def test_a_settled_patch_does_not_wait_for_the_next_prediction(experiment: Experiment) -> None:
    """The positions of the first batch come after it, and before the second is predicted."""
    placed: list[int] = []
    current: list[LiveReconstruction] = []
    sent = threading.Event()

    class Watched(SlowNetwork):
        def batches(self, *args: Any, **options: Any) -> Any:
            if current:
                placed.append(current[0].placed)
            return super().batches(*args, **options)

    class LatePositions(Script):
        def receive(self, timeout: float) -> PositionEvent | None:
            if not current:
                time.sleep(0.01)
                return None
            if self.received:
                # The first samples are in the inbox: the second batch may come.
                sent.set()
            return super().receive(timeout)

    first = list(range(BATCH + 1))
    rest = list(range(BATCH + 1, len(experiment.scan)))
    positions = [samples_of(experiment.scan, first), samples_of(experiment.scan, rest), PositionsEnd()]
    with LiveRun(
        Watched(experiment.network, 0.0),  # type: ignore[arg-type]
        Script([*frames_of(experiment.scan), SeriesEnd(1)], gate=sent, stop_at=BATCH),
        LatePositions(positions),
        experiment.settings,
        FAST,
        lambda series: None,
        lambda series, waiting: current.append(series) if series.report.frames else None,
    ) as run:
        run.run()
    assert placed[0] >= BATCH
