"""What the page shows: tiles of the growing object that have changed, and figures, as messages for browsers."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.live.growing_object import GrowingObject
from ptychonnx.runtime.live.live_reconstruction import LiveReconstruction
from ptychonnx.runtime.live.live_report import number_ranges

__all__ = ["SECONDS_PER_COPY", "BrowserState", "LiveView"]

# Copies are made, and sent, at most this often, and only while somebody looks.
SECONDS_PER_COPY = 0.125
_LOOKING_SECONDS = 3.0
# How long the page is served after the end, if somebody looks.
_LAST_LOOK_SECONDS = 1.0
# Longest side of the object on the page, in its pixels; of larger ones every second, fourth... pixel is shown.
_LARGEST_SIDE = 2048
_RATE_SECONDS = 2.0
# At the beginning of a binary message: kind of the content, number of the object, and two numbers.
_HEADER = struct.Struct("<4i")
_TILE, _POSITIONS, _PATTERN, _PREDICTION = range(4)


@dataclass(frozen=True)
class BrowserState:
    """What a browser has: version of the tiles of an object, and the number of positions."""

    number: int = -1
    version: int = -1
    positions: int = 0


class LiveView:
    """Copies of a live reconstruction; one thread updates, another asks for browsers.

    An object has a number, which changes with the series, and when fewer of its pixels are shown.
    """

    def __init__(self, source: str) -> None:
        self._lock = threading.Lock()
        self._object: GrowingObject | None = None
        # Of each tile, the version and the pixels as float16 [TILE, TILE, 2], real and imaginary part.
        self._tiles: dict[tuple[int, int], tuple[int, bytes]] = {}
        self._number, self._step, self._drawn = 0, 1, -1
        self._centres = np.empty((0, 2), np.float32)
        self._patterns: list[tuple[int, NDArray[np.float32]]] = []
        self._state: dict[str, Any] = {"phase": "waiting", "source": source}
        self._version = 0
        self._asked = self._copied = float("-inf")
        self._history: deque[tuple[float, int]] = deque()

    def update(self, current: LiveReconstruction, waiting: int, *, final: bool = False) -> None:
        """Copy what browsers may ask for, unless the last copy is fresh or nobody looks."""
        now = time.monotonic()
        fresh = now - self._copied < SECONDS_PER_COPY
        if not final and (fresh or now - self._asked > _LOOKING_SECONDS):
            return
        self._copied = now
        state = self._figures(current, waiting, now, final=final)
        patterns = [] if current.last_pattern is None else [(_PATTERN, current.last_pattern[1])]
        if current.checks.predicted is not None:
            patterns.append((_PREDICTION, current.checks.predicted))
        with self._lock:
            self._copy_tiles(current.object)
            self._patterns, self._state = patterns, {**state, "step": self._step}
            self._version += 1

    def changes(self, seen: BrowserState) -> tuple[list[bytes | str], BrowserState]:
        """Messages for a browser that has seen something: what has changed since, and figures; none if nothing has.

        Binary messages have a header of four int32: kind, number of the object, and

        * 0: row and column of a tile; its pixels, float16 [TILE, TILE, 2], real and imaginary part, NaN where no patch
          reaches;
        * 1: zeros; the next positions, float32 [m, 2] (row, column), in pixels of the object;
        * 2 and 3: N and zero; logarithm of the last pattern and of its prediction, float16 [N, N].

        The last message is JSON, upon which the page is drawn.
        """
        self._asked = time.monotonic()
        with self._lock:
            number = self._number
            if seen.number != number:
                seen = BrowserState(number)
            elif seen.version == self._version:
                return [], seen
            messages: list[bytes | str] = [
                _HEADER.pack(_TILE, number, *tile) + pixels
                for tile, (version, pixels) in self._tiles.items()
                if version > seen.version
            ]
            if len(self._centres) > seen.positions:
                new = self._centres[seen.positions :]
                messages.append(_HEADER.pack(_POSITIONS, number, 0, 0) + new.tobytes())
            for kind, pattern in self._patterns:
                header = _HEADER.pack(kind, number, len(pattern), 0)
                messages.append(header + np.log1p(pattern).astype("<f2").tobytes())
            messages.append(json.dumps({**self._state, "object": number}))
            return messages, BrowserState(number, self._version, len(self._centres))

    def wait_for_browsers(self) -> None:
        """Give browsers that look the time to take the last picture."""
        if time.monotonic() - self._asked < _LOOKING_SECONDS:
            time.sleep(_LAST_LOOK_SECONDS)

    def _copy_tiles(self, growing: GrowingObject) -> None:
        """Copy the tiles that have changed; all of an object that is new, or is shown with fewer pixels."""
        if not growing.version:
            return
        step = self._step if growing is self._object else 1
        while max(growing.shape) > step * _LARGEST_SIDE:
            step *= 2
        if growing is not self._object or step != self._step:
            self._number += 1
            self._object, self._step, self._drawn, self._tiles = growing, step, -1, {}
        changed = growing.changed(self._drawn)
        for row, column in {(row // step, column // step) for row, column in changed}:
            pixels = growing.tile(row, column, step)
            with np.errstate(over="ignore"):
                halves = np.stack([pixels.real, pixels.imag], axis=-1).astype("<f2")
            self._tiles[row, column] = self._version + 1, halves.tobytes()
        self._drawn, self._centres = growing.version, growing.centres().astype("<f4")

    def _figures(
        self, current: LiveReconstruction, waiting: int, now: float, *, final: bool
    ) -> dict[str, Any]:
        report, checks = current.report, current.checks
        self._history.append((now, report.frames))
        while now - self._history[0][0] > _RATE_SECONDS:
            self._history.popleft()
        (before, count) = self._history[0]
        latencies = report.latencies[-256:]
        return {
            "phase": "finished" if final else "running",
            "source": self._state["source"],
            "time": time.time(),
            "series": current.series_name,
            "frames": report.frames,
            "placed": current.placed,
            "positions": len(current.positions),
            "waiting": waiting,
            "rate": (report.frames - count) / (now - before) if now > before and not final else None,
            "latency": float(np.median(latencies)) if latencies else None,
            "duplicates": report.duplicates,
            "left_out": number_ranges(report.left_out) if report.left_out else "",
            "photons": checks.photons,
            "misfit": checks.misfit,
            "warnings": checks.warnings + (report.warnings() if final else list(report.beam.values())),
        }
