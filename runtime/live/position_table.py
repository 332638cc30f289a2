"""Positions by the number of their frame; several samples of one frame are averaged."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.live.events import PositionSamples

__all__ = ["PositionTable"]


class PositionTable:
    """Samples in any order.

    A position is settled when a sample of a later frame has arrived, or the scan has ended: until then, further samples
    of the same frame may follow.

    `ended`: whether the source has reported the end of the scan.
    """

    def __init__(self) -> None:
        self._samples: dict[int, list[NDArray[np.float64]]] = {}
        self._highest = -1
        self.ended = False

    def __len__(self) -> int:
        return len(self._samples)

    def __contains__(self, number: int) -> bool:
        return number in self._samples

    @property
    def numbers(self) -> list[int]:
        """Numbers of all frames that have a position."""
        return sorted(self._samples)

    def add(self, samples: PositionSamples) -> None:
        """Add samples.

        Raises InputError if a sample is not finite, or a number negative.
        """
        finite = np.isfinite(samples.values).all(axis=1)
        if not finite.all():
            number = samples.numbers[int(np.argmin(finite))]
            raise InputError(f"position of frame {number} is not finite, expected two numbers")
        if len(samples.numbers) and samples.numbers.min() < 0:
            raise InputError(f"position of frame {samples.numbers.min()}, expected numbers from 0")
        order = np.argsort(samples.numbers, kind="stable")
        numbers, starts = np.unique(samples.numbers[order], return_index=True)
        values = np.split(samples.values[order], starts[1:])
        for number, part in zip(numbers.tolist(), values, strict=True):
            self._samples.setdefault(number, []).append(part)
            self._highest = max(self._highest, number)

    def end(self) -> None:
        """No further samples come."""
        self.ended = True

    def is_settled(self, number: int) -> bool:
        """Whether the position of a frame is known and will not change unless samples come late."""
        return number in self._samples and (self.ended or number < self._highest)

    def positions(self, numbers: Iterable[int]) -> NDArray[np.float64]:
        """Positions float64 [m, 2] of frames that have one, the mean of their samples."""
        groups = [
            parts[0] if len(parts) == 1 else np.concatenate(parts)
            for parts in (self._samples[number] for number in numbers)
        ]
        if not groups:
            return np.empty((0, 2))
        # With the same number of samples for each frame, the same sum as when a finished file is averaged.
        if len({len(group) for group in groups}) == 1:
            return np.stack(groups).mean(axis=1)
        return np.stack([group.mean(axis=0) for group in groups])

    def interpolated(self, numbers: Iterable[int]) -> dict[int, NDArray[np.float64]]:
        """Positions of frames without one, linear between their neighbours; frames outside the range are left out."""
        known = self.numbers
        if not known:
            return {}
        positions = self.positions(known)
        inside = [number for number in numbers if known[0] < number < known[-1] and number not in self]
        axes = [np.interp(inside, known, positions[:, axis]) for axis in (0, 1)]
        return dict(zip(inside, np.stack(axes, axis=1), strict=True))
