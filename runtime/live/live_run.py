"""The loop of a live reconstruction: receives, joins, reconstructs, and ends series."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from types import TracebackType
from typing import Self

from ptychonnx.runtime.errors import PtychonnxError, ServerError
from ptychonnx.runtime.inference import Predictor
from ptychonnx.runtime.live.events import (
    FrameEvent,
    FrameSource,
    PositionEvent,
    PositionSamples,
    PositionsBegin,
    PositionsEnd,
    PositionSource,
    SeriesBegin,
    SeriesEnd,
)
from ptychonnx.runtime.live.inbox import Inbox, Receiver
from ptychonnx.runtime.live.live_options import LiveOptions
from ptychonnx.runtime.live.live_reconstruction import FinishedSeries, LiveReconstruction
from ptychonnx.runtime.live.live_settings import LiveSettings
from ptychonnx.runtime.live.position_table import PositionTable

__all__ = ["LiveRun"]

_logger = logging.getLogger("ptychonnx.runtime.live")
# A source without an end mark: how long a last sample may follow when every frame has a position, in seconds.
_LAST_SAMPLE_SECONDS = 0.5

Observer = Callable[[LiveReconstruction, int], None]


class LiveRun:
    """Receives frames and positions in two threads, and reconstructs in the caller's.

    Leaving the `with` block ends the threads and closes the sources.
    """

    def __init__(
        self,
        network: Predictor,
        frames: FrameSource,
        positions: PositionSource,
        settings: LiveSettings,
        options: LiveOptions,
        finished: Callable[[FinishedSeries], None],
        observe: Observer = lambda current, waiting: None,
        batch_seconds: float = 0.0,
    ) -> None:
        """Prepare; entering the `with` block begins to receive.

        * `finished`: called with each series at its end, or at an interruption: writes the file.
        * `observe`: called after every step with the growing series and the number of frames that wait.
        * `batch_seconds`: how long a batch takes, as `warm_up` measured it.
        """
        self._network, self._settings, self._options = network, settings, options
        self._batch_seconds = batch_seconds
        self._finished, self._observe = finished, observe
        self._positions = positions
        self._frame_inbox: Inbox[FrameEvent] = Inbox(1e9 * options.buffer)
        self._position_inbox: Inbox[PositionEvent] = Inbox(float("inf"))
        self._receivers = [
            Receiver(frames, self._frame_inbox, "frames"),
            Receiver(positions, self._position_inbox, "positions"),
        ]
        self._stack = ExitStack()
        # One table for each scan that positions were announced for; the first is that of the current series.
        self._tables = deque([PositionTable()])
        self._current: LiveReconstruction | None = None
        self._announced: int | None = None
        self._ended: float | None = None
        self._heard = self._moved = time.monotonic()
        self.done = 0

    def __enter__(self) -> Self:
        for receiver in self._receivers:
            receiver.start()
            self._stack.callback(receiver.stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self) -> None:
        """Reconstruct as many series as the options say.

        Raises KeyboardInterrupt, ServerError if the detector is silent for too long, or PtychonnxError if a stream or
        the network fails, each after the object so far has been passed on.
        """
        self._heard = time.monotonic()
        try:
            while self.done < self._options.series:
                self._step()
        except (KeyboardInterrupt, PtychonnxError):
            self._rescue()
            raise

    def _step(self) -> None:
        # A batch that is not full takes as long as one that is. Run early, it would hold up the frames behind it, and
        # the queue would never empty although the network is fast enough.
        wait = max(self._options.linger, self._batch_seconds)
        events = self._frame_inbox.take(
            self._settings.batch, wait if self._ended is None else _LAST_SAMPLE_SECONDS / 5
        )
        if events:
            self._heard = time.monotonic()
        # Patches whose positions came meanwhile do not wait for the next prediction.
        self._place()
        # Without its header and end, one series follows another in the same batch.
        for series, group in groupby(events, key=lambda event: event.series):
            self._use(series, list(group))
        self._place()
        if self._current is not None:
            self._observe(self._current, len(self._frame_inbox))
            if self._is_over(self._current):
                self._finish()
        if not events and time.monotonic() - self._heard > self._options.silence and self._ended is None:
            raise ServerError(
                f"{self._settings.source}: no {'frame' if self._current else 'message'} for "
                f"{self._options.silence:g} s, expected frames of a detector: is the address right, does it send, and "
                "is no other receiver connected?"
            )

    def _place(self) -> None:
        self._take_positions()
        if self._current is not None:
            self._current.place(self._positions.unit)

    def _use(self, series: int, events: list[FrameEvent]) -> None:
        """Take events of one series: a header, an end, or images."""
        begin = next((event for event in events if isinstance(event, SeriesBegin)), None)
        if begin is not None:
            self._begin(series, begin.frames)
        elif self._current is None or self._current.series != series:
            if all(isinstance(event, SeriesEnd) for event in events):
                return
            self._begin(series, None)
        if self._current is None:
            return
        if images := [event for event in events if not isinstance(event, SeriesBegin | SeriesEnd)]:
            start = time.monotonic()
            self._current.add(images)
            self._batch_seconds = time.monotonic() - start
        if any(isinstance(event, SeriesEnd) for event in events):
            self._ended = time.monotonic()

    def _begin(self, series: int, announced: int | None) -> None:
        if self._current is not None and self._current.report.frames:
            _logger.warning("series %d did not end before series %d began", self._current.series, series)
            self._finish()
        if self.done < self._options.series:
            self._current = LiveReconstruction(self._network, self._settings, series, self._tables[0])
        self._announced, self._ended = announced, None

    def _take_positions(self) -> None:
        while events := self._position_inbox.take(1, 0):
            (event,) = events
            self._moved = time.monotonic()
            if isinstance(event, PositionSamples):
                self._tables[-1].add(event)
            elif isinstance(event, PositionsEnd):
                self._tables[-1].end()
            elif isinstance(event, PositionsBegin) and (len(self._tables[-1]) or self._tables[-1].ended):
                self._tables.append(PositionTable())

    def _is_over(self, current: LiveReconstruction) -> bool:
        if self._ended is None:
            return False
        quiet = time.monotonic() - max(self._ended, self._moved)
        return (
            current.positions.ended
            or (current.complete and quiet > min(_LAST_SAMPLE_SECONDS, self._options.positions_timeout))
            or quiet > self._options.positions_timeout
        )

    def _finish(self, *, again: bool = True) -> None:
        """Pass the current series on, and prepare for the next; an interruption leaves it to be passed on again."""
        assert self._current is not None
        try:
            # Every position is settled now.
            self._current.positions.end()
            self._current.place(self._positions.unit)
            self._current.finished = True
            self._observe(self._current, len(self._frame_inbox))
            announced = None if self._ended is None else self._announced
            self._finished(self._current.finish(announced, again=again))
        except PtychonnxError:
            self._current = None
            raise
        self._current = self._announced = self._ended = None
        self.done += 1
        if len(self._tables) > 1:
            self._tables.popleft()
        else:
            self._tables[0] = PositionTable()

    def _rescue(self) -> None:
        """Pass on what there is of the current series, with the frames and positions that have arrived already."""
        if self._current is None or not self._current.report.frames:
            return
        # What ends the run is the error to report, not that of the rescue.
        for step in (self._take_the_rest, partial(self._finish, again=False)):
            try:
                step()
            except PtychonnxError as error:
                _logger.warning("%s", error)

    def _take_the_rest(self) -> None:
        assert self._current is not None
        while waiting := self._frame_inbox.take(self._settings.batch, 0):
            self._current.add(
                [
                    event
                    for event in waiting
                    if not isinstance(event, SeriesBegin | SeriesEnd) and event.series == self._current.series
                ]
            )
        self._take_positions()
