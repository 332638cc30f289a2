"""Positions from a PV of EPICS PV Access whose updates hold the number of the frame with x and y.

`pva://host:port/NAME?x=x&y=y&frame=frame&unit=um` names the fields: columns of an NTTable, or members of a group of
QSRV; each is one number or an array. x is the column, y the row. Separate PVs for x and y have no number in common, by
which positions are joined with frames, and cannot be used.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.formats.read_options import Unit
from ptychonnx.runtime.live.events import PositionSamples, position_samples
from ptychonnx.runtime.live.pva import PVMonitor
from ptychonnx.runtime.live.source_url import SourceOptions, source_options

__all__ = ["PVTable"]


class _Options(SourceOptions):
    x: str = "x"
    y: str = "y"
    frame: str = "frame"
    unit: Unit | None = None


class PVTable(PVMonitor):
    """A PV of a motion controller, see `ptychonnx.runtime.live.events.PositionSource`."""

    _example = "pva://host:port/NAME?x=x&y=y&frame=frame&unit=um"

    def __init__(self, url: str) -> None:
        self._options = source_options(url, _Options)
        self.unit = self._options.unit
        super().__init__(url)

    def _events(self, update: Any) -> list[PositionSamples]:
        names = self._options.frame, self._options.y, self._options.x
        numbers, rows, columns = (self._column(update, name) for name in names)
        return [position_samples(numbers, rows, columns, self._url)]

    def _column(self, update: Any, name: str) -> Any:
        try:
            # An NTTable has its columns in `value`; a group has members with a `value` each.
            table = update.get("value", update)
            column = table[name]
            return np.atleast_1d(column["value"] if hasattr(column, "keys") else column)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self._url}: has no field {name} ({first_line(error)}), expected {self._example}"
            ) from error
