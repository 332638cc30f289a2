"""The reconstruction of one series while it is measured.

Networks of gridsize 1 need no position to predict a patch. So frames never wait for their positions: patches are
predicted when frames arrive and stored; each is placed when its position is settled, however late that is.

At the end the object is stitched by `reconstruct` from the stored patches in order of their numbers, as from a finished
file: in what order frames and positions came changes no bit of the result.

A general network takes the brightness of the whole scan, which is known at the end, and so do networks with a fixed
scale if it is another one than they were trained with. While the scan runs they take that of the patterns so far; at
the end `reconstruct` runs them once more.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.read_options import Convention, Conventions
from ptychonnx.runtime.inference import Predictor
from ptychonnx.runtime.inference.predictor import Beam
from ptychonnx.runtime.live.events import Frame, UnreadableFrame
from ptychonnx.runtime.live.frame_conversion import FrameConversion
from ptychonnx.runtime.live.growing_object import GrowingObject
from ptychonnx.runtime.live.growing_scan import GrowingScan
from ptychonnx.runtime.live.live_report import LiveReport
from ptychonnx.runtime.live.live_settings import LiveSettings
from ptychonnx.runtime.live.position_table import PositionTable
from ptychonnx.runtime.live.record_file import RecordFile
from ptychonnx.runtime.live.running_checks import RunningChecks
from ptychonnx.runtime.live.stored_patches import StoredPatches
from ptychonnx.runtime.reconstruction import Reconstruction, reconstruct
from ptychonnx.runtime.reconstruction.stitching import patch_weight
from ptychonnx.runtime.reconstruction.trust import beam_warnings, brightened, brightness_factor
from ptychonnx.runtime.scan import Scan

__all__ = ["FinishedSeries", "LiveReconstruction", "warm_up"]

_logger = logging.getLogger("ptychonnx.runtime.live")
# If none of this many frames can be used, the settings are wrong.
_HOPELESS = 64
# Frames were lost if their numbers span more than this many times their count.
_SPARSE = 1.5


@dataclass(frozen=True)
class FinishedSeries:
    """The object of a series, its scan, and what happened."""

    series: int
    reconstruction: Reconstruction
    scan: Scan
    report: LiveReport


def warm_up(network: Predictor, settings: LiveSettings) -> float:
    """Run the network and the stitching kernel, so that the first frames do not wait for what loads late.

    Returns the seconds that a batch takes.
    """
    n = network.contract.n
    scan = Scan(np.ones((settings.batch, n, n), np.float32), np.zeros((settings.batch, 2)), settings.probe)
    beam = network.beam(scan)
    patches = _predicted(network, scan, beam)
    GrowingObject(np.ones((n, n)), synchronise=False).add(patches, scan.positions)
    start = time.monotonic()
    _predicted(network, scan, beam)
    return time.monotonic() - start


def _predicted(network: Predictor, scan: Scan, beam: Beam) -> NDArray[np.complex64]:
    """Patches [m, N, N] of a scan that is one batch."""
    groups = np.arange(len(scan))[:, None]
    return np.concatenate([patches[:, 0] for _, patches in network.batches(scan, groups, len(scan), beam)])


class LiveReconstruction:
    """Takes frames and positions of one series in any order.

    * `series`: number of the series.
    * `positions`: table to which the caller adds positions.
    * `object`: the growing object; empty while the series is stitched at its end.
    * `report`, `checks`: counts so far, and figures of the last patterns.
    * `finished`: whether all patches have been placed and the file is about to be written.
    * `last_pattern`: number and amplitudes float32 [N, N] of the last pattern; None before the first.
    """

    def __init__(
        self, network: Predictor, settings: LiveSettings, series: int, positions: PositionTable
    ) -> None:
        self.series, self.positions = series, positions
        self._network, self._settings = network, settings
        self._name = self.series_name = f"series {series}"
        contract = network.contract
        stitching = settings.stitching.resolved(contract)
        self._weight = patch_weight(stitching.weighting, contract.n, settings.probe, stitching.window)
        self.object = GrowingObject(self._weight, synchronise=stitching.synchronise)
        self.report, self.checks = LiveReport(), RunningChecks(settings.probe)
        self.finished = False
        self.last_pattern: tuple[int, NDArray[np.float32]] | None = None
        self._unit: str | None = settings.reading.positions_unit
        self._scan: GrowingScan | None = None
        self._patches = RecordFile((contract.n, contract.n), np.complex64, "the patches of the scan")
        self._beam: Beam = {}
        # By which patterns are multiplied for a network with a fixed scale, and whether any were.
        self._factor, self._scaled = 1.0, False
        # The beam is estimated again when so many patterns have arrived.
        self._estimate_at = 1
        self._seen: set[int] = set()
        self._lowest, self._highest = sys.maxsize, -1
        self._gaps_said = False
        self._waiting: set[int] = set()
        self._received: dict[int, float] = {}
        self._first, self._last, self._seconds = 0.0, 0.0, 0.0

    @property
    def complete(self) -> bool:
        """Whether every usable frame so far has a position."""
        return self._scan is not None and all(number in self.positions for number in self._scan.records)

    @property
    def placed(self) -> int:
        """Number of patches in the growing object."""
        return 0 if self._scan is None else len(self._scan.records) - len(self._waiting)

    def add(self, events: Sequence[Frame | UnreadableFrame]) -> None:
        """Predict and store the patches of frames, at most a batch.

        Raises InputError if the first frames do not fit the network or the options. Raises DeviceError or ServerError
        if the network fails. Raises EnvironmentFailure if the disk is full.
        """
        report, frames = self.report, []
        for event in events:
            if event.number in self._seen:
                report.duplicates += 1
                if report.duplicates == 1:
                    _logger.warning("frame %d of %s came again: the first counts", event.number, self._name)
                continue
            self._seen.add(event.number)
            self._lowest, self._highest = min(self._lowest, event.number), max(self._highest, event.number)
            report.frames += 1
            if isinstance(event, UnreadableFrame):
                self._leave_out({event.number: event.reason})
            else:
                frames.append(event)
        if frames:
            self._first = self._first or frames[0].received
            self._predict(frames)
        self._look_for_gaps()
        if report.frames >= _HOPELESS and len(report.left_out) == report.frames:
            reason = report.left_out[min(report.left_out)]
            raise InputError(f"none of the first {report.frames} frames can be used: {reason}")

    def place(self, unit: str | None) -> None:
        """Add patches to the growing object whose position has been settled since the last call.

        `unit`: unit of the positions, if their source states it.
        """
        if self._scan is None:
            return
        self._unit = self._unit or unit
        numbers = sorted(number for number in self._waiting if self.positions.is_settled(number))
        step = self._settings.batch
        for start in range(0, len(numbers), step):
            self._place(numbers[start : start + step])

    def finish(self, announced: int | None = None, *, again: bool = True) -> FinishedSeries:
        """Stitch the object from everything that has a position.

        Raises InputError if no frame has a position, or positions are implausible.

        * `announced`: number of frames that the detector announced, if the series is complete.
        * `again`: run a network that takes the brightness of the whole scan once more, as for a finished file. It takes
          as long as `reconstruct`, which an interruption has no time for.
        """
        report, table = self.report, self.positions
        usable = set() if self._scan is None else set(self._scan.records) - set(report.left_out)
        interpolated = table.interpolated(sorted(usable)) if self._settings.interpolate else {}
        report.interpolated = sorted(interpolated)
        report.missing = sorted(set(range(announced or self._highest + 1)) - self._seen)
        report.without_position = sorted(n for n in usable if n not in table and n not in interpolated)
        report.without_frame = sorted(set(table.numbers) - self._seen)
        numbers = sorted(n for n in usable if n in table or n in interpolated)
        if self._scan is None or not numbers:
            raise InputError(
                f"{self._name}: no frame has a position ({report.frames} frames, {len(table)} positions): do both "
                "count from 0?"
            )
        places = dict(zip(own := [n for n in numbers if n in table], table.positions(own), strict=True))
        positions = np.array([places[n] if n in places else interpolated[n] for n in numbers])
        scan = self._scan.scan(numbers, positions, self._conventions(), _logger.info)
        network = self._network
        provisional = self._scaled or brightness_factor(scan, network.contract) != 1
        if not ((network.contract.general or provisional) and again):
            self._predict_tail(scan, numbers)
            network = StoredPatches(network, self._patches, self._scan.rows(numbers))
        # The memory of its canvas is needed for the object that is stitched now.
        self.object = GrowingObject(self._weight, synchronise=False)
        reconstruction = reconstruct(network, scan, self._settings.stitching, self._settings.batch)
        report.seconds = self._last - self._first
        warnings = tuple(beam_warnings(scan, self._network.contract, scaled=True))
        report.beam = {line.partition(":")[0]: line for line in warnings}
        reconstruction = replace(reconstruction, inference_seconds=self._seconds, warnings=warnings)
        return FinishedSeries(self.series, reconstruction, scan, report)

    def _predict(self, frames: list[Frame]) -> None:
        scan = self._scan or self._begin(frames)
        converted = scan.conversion.convert(frames)
        self._leave_out(converted.left_out)
        count, batch = len(converted.frames), self._settings.batch
        if not count:
            return
        start = time.monotonic()
        # Results depend on the size of a batch in the last digits: short ones are filled up with their last pattern.
        padded = converted.patterns.take(range(batch), axis=0, mode="clip")
        one = scan.batch(padded)
        self._network.check_scan(one)
        numbers = [frame.number for frame in converted.frames]
        first = scan.append(converted.patterns)
        if first + count >= self._estimate_at:
            self._look_at_beam(scan.sample(first + count))
            self._estimate_at = 2 * (first + count)
        self._patches.write(
            first, _predicted(self._network, brightened(one, self._factor), self._beam)[:count]
        )
        # From here on the frames count, also if the user interrupts.
        scan.records.update(zip(numbers, range(first, first + count), strict=True))
        self._waiting.update(numbers)
        self._received.update((frame.number, frame.received) for frame in converted.frames)
        self.last_pattern = numbers[-1], converted.patterns[-1]
        self.checks.add_patterns(numbers[0], converted.patterns, scan.conversion.mask)
        self._last = time.monotonic()
        self._seconds += self._last - start

    def _look_for_gaps(self) -> None:
        """Say once that many numbers do not come: a PUSH socket deals its messages out to all receivers in turn."""
        seen = self._seen
        if self._gaps_said or len(seen) < _HOPELESS:
            return
        span = self._highest - self._lowest + 1
        if span > _SPARSE * len(seen):
            self._gaps_said = True
            _logger.warning(
                "%s: %d of %d frames did not come: does the detector drop them, or is another receiver connected to "
                "the same socket?",
                self._name,
                span - len(seen),
                span,
            )

    def _look_at_beam(self, sample: Scan) -> None:
        """The beam for a general network, and what the network does not know about it, each kind said once."""
        self._beam = self._network.beam(sample)
        self._factor = brightness_factor(sample, self._network.contract)
        self._scaled |= self._factor != 1
        for line in beam_warnings(sample, self._network.contract, scaled=True):
            if self.report.beam.setdefault(line.partition(":")[0], line) is line:
                _logger.warning("%s", line)

    def _begin(self, frames: list[Frame]) -> GrowingScan:
        """Decide how frames are converted, from the first of them."""
        settings, conventions = self._settings, self._conventions()
        conversion = FrameConversion(frames, settings.reading, conventions, settings.mask, settings.source)
        for note in conversion.notes:
            _logger.warning("%s", note)
        self._scan = GrowingScan(conversion, settings.reading, settings.probe, self._name)
        return self._scan

    def _conventions(self) -> Conventions:
        """Conventions of frames and positions."""
        unit = Convention(self._unit or "unknown", "as the source says")
        assumed = (Convention(value, "assumed") for value in ("row,column", "as-is", "counts", "centre"))
        return Conventions(unit, *assumed).overridden(self._settings.reading)

    def _place(self, numbers: list[int]) -> None:
        """Add patches to the growing object."""
        assert self._scan is not None
        if self._unit is None:
            raise InputError("positions: their unit is unknown, expected --positions-unit")
        places = self._scan.in_pixels(self.positions.positions(numbers), self._conventions())
        patches = self._patches.read(self._scan.rows(numbers))
        try:
            self.object.add(patches, places)
        except InputError as error:
            if len(numbers) > 1:
                for number in numbers:
                    self._place([number])
                return
            self._leave_out({numbers[0]: str(error)})
        else:
            self._compare(numbers[-1], places[-1])
        self._waiting.difference_update(numbers)
        now = time.monotonic()
        for number in numbers:
            self.report.latencies.append(now - self._received.pop(number))

    def _compare(self, number: int, place: NDArray[np.float64]) -> None:
        """Compare one pattern with the growing object around its place."""
        if self._settings.probe is None or self._scan is None:
            return
        pattern = self._scan.patterns([number])[0]
        self.checks.add_misfit(number, pattern, self.object.window(place), self._scan.conversion.mask)

    def _leave_out(self, reasons: dict[int, str]) -> None:
        for number, reason in reasons.items():
            if not self.report.left_out:
                _logger.warning("frame %d of %s is left out: %s", number, self._name, reason)
            self.report.left_out[number] = reason

    def _predict_tail(self, scan: Scan, numbers: list[int]) -> None:
        """Predict the last patterns again, in the smaller batch in which they come from a finished file."""
        assert self._scan is not None
        tail = len(numbers) % self._settings.batch
        if not tail:
            return
        groups = np.arange(len(numbers) - tail, len(numbers))[:, None]
        for index, patches in self._network.batches(
            brightened(scan, self._factor), groups, self._settings.batch, self._beam
        ):
            rows = self._scan.rows([numbers[row] for row in index[:, 0].tolist()])
            for row, patch in zip(rows.tolist(), patches[:, 0], strict=True):
                self._patches.write(row, patch[None])
