"""Replay of a scan: frames at a fixed rate, positions in batches, with faults on request."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan

__all__ = ["Detector", "PositionSender", "ReplayOptions", "Replayed", "ScanCounts", "frame_order", "replay"]

# Largest distance of a square from a whole number, relative to it, that float32 amplitudes explain.
_ROUNDING = 1e-6
_BLOCK = 64


class ReplayOptions(BaseModel):
    """How a scan is replayed."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Rate and faults")

    rate: float = Field(default=500.0, ge=1e-6, allow_inf_nan=False, description="Frames per second")
    jitter: float = Field(
        default=0.0, ge=0, le=1, description="Random part of the interval between frames, from 0 to 1"
    )
    drop: float = Field(default=0.0, ge=0, lt=1, description="Fraction of the frames that are never sent")
    duplicate: float = Field(
        default=0.0, ge=0, le=1, description="Fraction of the frames that are sent twice"
    )
    reorder: int = Field(default=1, ge=1, description="Frames are shuffled in groups of this many")
    positions_late: int = Field(
        default=0, ge=0, description="Frames by which the positions follow the frames"
    )
    positions_batch: int = Field(default=20, ge=1, description="Frames whose positions are sent together")
    samples: int = Field(default=1, ge=1, le=10_000, description="Samples of the position for each frame")
    series: int = Field(default=1, ge=0, description="Number of the series")
    seed: int = Field(default=0, ge=0, description="Seed of the faults")


class Detector(Protocol):
    """Sends frames as a detector does."""

    def begin(self, frames: int) -> None:
        """A series of so many frames begins; waits for a receiver."""

    def send(self, number: int, image: NDArray) -> None:
        """Send one frame; waits if the receiver holds it back."""

    def end(self) -> None:
        """The series has ended."""

    def close(self) -> None:
        """Close, once everything has been sent."""


class PositionSender(Protocol):
    """Receives samples [m, 2] (row, column) in pixels, in order; `first` is the number of the first of them."""

    def begin(self) -> None:
        """The scan begins."""

    def send(self, first: int, samples: NDArray[np.float64]) -> None:
        """Send samples."""

    def end(self, frames: int) -> None:
        """The scan has ended after so many frames."""

    def close(self) -> None:
        """Close, once everything has been sent."""


class ScanCounts:
    """Photon counts by number, as the detector sent them: squares of the amplitudes, rounded to whole photons.

    * `dtype`: uint16, or uint32 if a count needs it.
    * `rounded`: True if amplitudes are no square roots of whole numbers, so that the counts differ from them.
    """

    def __init__(self, scan: Scan) -> None:
        self._scan, self.rounded, largest = scan, False, 0.0
        for start in range(0, len(scan), _BLOCK):
            photons = np.square(scan.diffraction[start : start + _BLOCK], dtype=np.float64)
            self.rounded |= bool((np.abs(photons - np.rint(photons)) > _ROUNDING * photons + 1e-9).any())
            largest = max(largest, float(photons.max()))
        # The largest value of a type marks bad pixels.
        self.dtype = np.dtype(np.uint16 if largest < np.iinfo(np.uint16).max else np.uint32)

    def __len__(self) -> int:
        return len(self._scan)

    def __getitem__(self, number: int) -> NDArray:
        photons = np.square(self._scan.diffraction[number], dtype=np.float64)
        return np.rint(photons).astype(self.dtype)


@dataclass(frozen=True)
class Replayed:
    """What was sent: frames, duplicates among them, the numbers that were dropped, and the duration in seconds."""

    frames: int
    duplicates: int
    dropped: tuple[int, ...]
    seconds: float


def replay(
    scan: Scan,
    detector: Detector,
    encoders: PositionSender,
    options: ReplayOptions,
    progress: Progress = SILENT,
) -> Replayed:
    """Send a scan once.

    Frames are due at fixed times; a receiver that holds them back delays all that follow. Positions of a frame are due
    `options.positions_late` frames later.
    """
    counts, rng = ScanCounts(scan), np.random.default_rng(options.seed)
    order, dropped = frame_order(len(scan), options, rng)
    positions = _PositionPlan(scan.positions, encoders, options)
    encoders.begin()
    detector.begin(len(scan))
    start = time.perf_counter()
    for step, number in enumerate(order):
        due = start + (step + options.jitter * rng.uniform(-0.5, 0.5)) / options.rate
        time.sleep(max(0.0, due - time.perf_counter()))
        detector.send(number, counts[number])
        positions.send_until(step + 1 - options.positions_late)
        progress.update(step + 1)
    detector.end()
    positions.send_until(len(scan), whole=True)
    encoders.end(len(scan))
    seconds = time.perf_counter() - start
    return Replayed(len(order), len(order) - len(set(order)), dropped, seconds)


def frame_order(
    count: int, options: ReplayOptions, rng: np.random.Generator
) -> tuple[list[int], tuple[int, ...]]:
    """Numbers in the order in which frames are sent, and those that are not sent."""
    numbers = np.arange(count)
    kept = numbers[rng.random(count) >= options.drop]
    order = np.concatenate(
        [rng.permutation(kept[i : i + options.reorder]) for i in range(0, len(kept), options.reorder)]
    )
    twice = np.where(rng.random(len(order)) < options.duplicate, 2, 1)
    return np.repeat(order, twice).tolist(), tuple(np.setdiff1d(numbers, kept).tolist())


class _PositionPlan:
    """Positions that are sent in batches, some time after their frames."""

    def __init__(
        self, positions: NDArray[np.float64], encoders: PositionSender, options: ReplayOptions
    ) -> None:
        self._positions, self._encoders, self._options = positions, encoders, options
        self._sent = 0

    def send_until(self, stop: int, *, whole: bool = False) -> None:
        """Send the positions of frames before `stop` in whole batches; `whole`: also the rest."""
        batch, samples = self._options.positions_batch, self._options.samples
        stop = min(stop, len(self._positions))
        while self._sent < stop and (whole or stop - self._sent >= batch):
            part = self._positions[self._sent : min(self._sent + batch, stop)]
            self._encoders.send(self._sent * samples, np.repeat(part, samples, axis=0))
            self._sent += len(part)
