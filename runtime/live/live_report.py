"""What happened during a live reconstruction, in figures and in lines for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

__all__ = ["LiveReport", "number_ranges"]

_LONGEST = 12


@dataclass
class LiveReport:
    """Counts of one series."""

    frames: int = 0  # frames received, without duplicates
    duplicates: int = 0  # frames whose number had been received before; the first one counts
    left_out: dict[int, str] = field(default_factory=dict)  # why frames were left out, by number
    # Numbers that never came although later ones did, or the detector announced them.
    missing: list[int] = field(default_factory=list)
    # Numbers that remained unmatched.
    without_position: list[int] = field(default_factory=list)
    without_frame: list[int] = field(default_factory=list)
    interpolated: list[int] = field(default_factory=list)  # frames whose position was interpolated
    # What the network does not know about the scan, by its kind; see `ptychonnx.runtime.reconstruction.trust`.
    beam: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # from the first frame to the last patch
    # Seconds from the arrival of a frame, or of its position if that came later, to the growing object.
    latencies: list[float] = field(default_factory=list)

    def lines(self) -> list[str]:
        """One line for each fact that the user should know."""
        lines = []
        if self.latencies:
            middle, last = (1e3 * np.quantile(self.latencies, q) for q in (0.5, 0.99))
            rate = self.frames / self.seconds if self.seconds else 0.0
            lines.append(
                f"{self.frames} frames, {rate:.1f} per second; from arrival to the growing object {middle:.0f} ms "
                f"(median), {last:.0f} ms (99 %)"
            )
        return lines + self.warnings()

    def warnings(self) -> list[str]:
        """One line for each kind of loss."""
        lines = list(self.beam.values())
        if self.missing:
            lines.append(f"frames that never came: {number_ranges(self.missing)}")
        if self.left_out:
            first = min(self.left_out)
            lines.append(
                f"frames left out: {number_ranges(self.left_out)} (the first: {self.left_out[first]})"
            )
        if self.duplicates:
            lines.append(f"frames that came twice: {self.duplicates}; the first of each was used")
        if self.without_position:
            lines.append(f"frames without a position: {number_ranges(self.without_position)}")
        if self.without_frame:
            lines.append(f"positions without a frame: {number_ranges(self.without_frame)}")
        if self.interpolated:
            lines.append(f"interpolated positions: {number_ranges(self.interpolated)}")
        return lines


def number_ranges(numbers: Iterable[int]) -> str:
    """Numbers as a count and ranges.

    >>> number_ranges([5, 1, 2, 3])
    '4 (1-3, 5)'
    """
    ordered = sorted(numbers)
    ranges: list[list[int]] = []
    for number in ordered:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = [str(low) if low == high else f"{low}-{high}" for low, high in ranges[:_LONGEST]]
    return f"{len(ordered)} ({', '.join(shown)}{', ...' if len(ranges) > _LONGEST else ''})"
