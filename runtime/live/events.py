"""What sources of frames and positions report, and the protocols that they follow."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError

__all__ = [
    "Frame",
    "FrameEvent",
    "FrameSource",
    "PositionEvent",
    "PositionSamples",
    "PositionSource",
    "PositionsBegin",
    "PositionsEnd",
    "SeriesBegin",
    "SeriesEnd",
    "UnreadableFrame",
    "pairs",
    "position_samples",
]


@dataclass(frozen=True)
class SeriesBegin:
    """A detector begins a series; `frames` is the number of frames that it announces, if it does."""

    series: int
    frames: int | None = None


@dataclass(frozen=True)
class Frame:
    """One detector frame.

    * `series`, `number`: of the detector. Numbers begin at 0.
    * `image`: [rows, columns], counts as the detector sends them.
    * `received`: time of arrival, on the clock of `time.monotonic`, in seconds.
    """

    series: int
    number: int
    image: NDArray
    received: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class UnreadableFrame:
    """A frame whose number is known and whose image cannot be decoded; `reason` says why."""

    series: int
    number: int
    reason: str


@dataclass(frozen=True)
class SeriesEnd:
    """The detector has sent the last frame of a series."""

    series: int


FrameEvent = SeriesBegin | Frame | UnreadableFrame | SeriesEnd


@dataclass(frozen=True)
class PositionsBegin:
    """The positions of another scan begin."""


@dataclass(frozen=True)
class PositionSamples:
    """Encoder samples.

    * `numbers`: int [m], number of the frame to which each sample belongs; there may be several for one frame.
    * `values`: float64 [m, 2] (row, column), in the unit of the source.
    """

    numbers: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class PositionsEnd:
    """The last position of a scan has been reported."""


PositionEvent = PositionsBegin | PositionSamples | PositionsEnd


class FrameSource(Protocol):
    """A detector, or a file that a detector writes.

    A third party adds a source with an entry point in the group ``ptychonnx.live.frames``: its name is the scheme of
    the URL, and it refers to a function that takes the URL and returns the source, which is connected but has not
    received anything.
    """

    def receive(self, timeout: float) -> FrameEvent | None:
        """The next event, or None if there is none within `timeout` seconds.

        Called by one thread. While it is not called, the source must hold events back (back-pressure); one that cannot
        leaves gaps in the numbers, which are reported.

        Raises InputError if what arrives is no stream of this protocol.
        """

    def close(self) -> None:
        """Disconnect; called by the thread that receives."""


class PositionSource(Protocol):
    """Encoders, or a file that a motion controller writes; entry points are in ``ptychonnx.live.positions``.

    `unit`: unit of the positions if the source states it, such as ``um``; it is asked for after the first samples.
    """

    unit: str | None

    def receive(self, timeout: float) -> PositionEvent | None:
        """The next event, or None if there is none within `timeout` seconds; see `FrameSource.receive`."""

    def close(self) -> None:
        """Disconnect; called by the thread that receives."""


def position_samples(numbers: Any, rows: Any, columns: Any, where: str) -> PositionSamples:
    """Samples from the number of the frame, the row and the column of each.

    Raises InputError if they differ in length or are no numbers.
    """
    try:
        numbers = np.atleast_1d(np.asarray(numbers))
        if numbers.dtype.kind not in "iuf" or not np.array_equal(numbers, np.rint(numbers)):
            raise ValueError("frame holds no whole numbers")
        return PositionSamples(numbers.astype(np.int64), pairs(rows, columns, len(numbers)))
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}, expected frame, x and y of each sample") from error


def pairs(rows: Any, columns: Any, count: int) -> NDArray[np.float64]:
    """(row, column) float64 [count, 2]; raises ValueError if the lengths differ."""
    pair = [np.atleast_1d(np.asarray(axis, dtype=np.float64)) for axis in (rows, columns)]
    if {axis.shape for axis in pair} != {(count,)}:
        raise ValueError(f"x and y differ in length, expected {count} each")
    return np.stack(pair, axis=1)
