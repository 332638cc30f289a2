"""A scan whose patterns are kept in a temporary file as they arrive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.formats.conversion.assembly import positions_in_pixels, scan_of_frames
from ptychonnx.runtime.formats.conversion.frames import Frames
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan
from ptychonnx.runtime.formats.conversion.scaling import estimated_flux, probe_with_power
from ptychonnx.runtime.formats.read_options import Conventions, ReadOptions
from ptychonnx.runtime.live.frame_conversion import FrameConversion
from ptychonnx.runtime.live.record_file import RecordFile
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import LazyAmplitudes, sample_of

__all__ = ["GrowingScan"]

# Patterns that are read together.
_BLOCK = 64
# Patterns from which the brightness is estimated while the scan runs.
_SAMPLE = 256


class GrowingScan:
    """Amplitudes in order of arrival, from which a `Scan` in order of numbers is made.

    `conversion`: steps from a frame to a pattern. `records`: index in the file of each frame, by number.
    """

    def __init__(
        self,
        conversion: FrameConversion,
        options: ReadOptions,
        probe: NDArray[np.complex64] | None,
        name: str,
    ) -> None:
        self.conversion, self._options = conversion, options
        self._probe, self._name = probe, name
        size = conversion.plan.size
        self.records: dict[int, int] = {}
        self._file = RecordFile((size, size), np.float32, "the patterns of the scan")

    def append(self, patterns: NDArray[np.float32]) -> int:
        """Store patterns [m, N, N]; the index of the first of them. They count when the caller enters the records."""
        first = len(self.records)
        self._file.write(first, patterns)
        return first

    def batch(self, patterns: NDArray[np.float32]) -> Scan:
        """Patterns [m, N, N] whose positions are not known yet, as a scan, for the network."""
        places = np.zeros((len(patterns), 2))
        scan = Scan(
            patterns,
            places,
            mask=self.conversion.mask,
            pixel_size=self._options.pixel_size,
            wavelength=self._options.wavelength,
            name=self._name,
        )
        return _with_probe(scan, self._probe)

    def sample(self, count: int) -> Scan:
        """At most 256 of the first `count` stored patterns, evenly spread, as a scan without positions."""
        return self.batch(self._file.read(sample_of(count, _SAMPLE)))

    def in_pixels(self, positions: NDArray[np.float64], conventions: Conventions) -> NDArray[np.float64]:
        """Positions [m, 2] of the source in object pixels (row, column), for the growing object."""
        coarser = min(self.conversion.shape) / self.conversion.plan.cut
        return positions_in_pixels(
            positions, conventions, self._options.pixel_size, coarser, f"{self._name}: positions"
        )

    def patterns(self, numbers: list[int]) -> NDArray[np.float32]:
        """Amplitudes [m, N, N] by number."""
        return self._file.read(self.rows(numbers))

    def scan(
        self,
        numbers: list[int],
        positions: NDArray[np.float64],
        conventions: Conventions,
        log: Callable[[str], None],
    ) -> Scan:
        """The scan of frames by number, at positions [n, 2] of the source, as if read from a finished file.

        Raises InputError if the positions are implausible.
        """
        rows, size = self.rows(numbers), self.conversion.plan.size
        amplitudes = LazyAmplitudes(
            (len(rows), size, size), lambda start, stop: self._file.read(rows[start:stop]), _BLOCK, self._name
        )
        raw = RawScan(
            path=Path(self._name),
            # Of the frames themselves only the shape is left.
            patterns=np.broadcast_to(
                np.zeros((), self.conversion.dtype), (len(rows), *self.conversion.shape)
            ),
            patterns_key="frames",
            positions=positions,
            positions_key="positions",
            conventions=conventions,
            absolute=conventions.unit.value == "px",
        )
        frames = Frames(amplitudes, self.conversion.mask, [])
        scan = scan_of_frames(raw, frames, self.conversion.plan, conventions, self._options, log)
        return _with_probe(scan, self._probe)

    def rows(self, numbers: list[int]) -> NDArray[np.intp]:
        """Indices in the file of frames by number."""
        return np.array([self.records[number] for number in numbers], dtype=np.intp)


def _with_probe(scan: Scan, probe: NDArray[np.complex64] | None) -> Scan:
    """The scan with a probe whose power is estimated from a sample of the patterns, as `read_scan` does it."""
    if probe is None:
        return scan
    return replace(scan, probe=probe_with_power(probe, estimated_flux(scan)), probe_estimated=True)
