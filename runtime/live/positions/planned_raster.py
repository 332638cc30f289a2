"""A planned raster scan: positions that are not measured.

`raster://ROWSxCOLUMNS?step=0.5&unit=um` moves along the columns first. `snake=1` reverses every second row.
`series=K` repeats it for K series. Other trajectories can be written to a .csv file that ends with `# end`.
"""

from __future__ import annotations

import re
import time
from collections import deque
from urllib.parse import urlsplit

import numpy as np
from pydantic import Field, PositiveInt

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.read_options import Unit
from ptychonnx.runtime.live.events import PositionEvent, PositionSamples, PositionsBegin, PositionsEnd
from ptychonnx.runtime.live.source_url import SourceOptions, source_options

__all__ = ["PlannedRaster"]

_SHAPE = re.compile(r"(\d+)x(\d+)")
_MOST_POINTS = 10**7


class _Options(SourceOptions):
    step: float = Field(gt=0, allow_inf_nan=False)
    unit: Unit | None = None
    snake: bool = False
    series: PositiveInt = 1


class PlannedRaster:
    """All positions at once, see `ptychonnx.runtime.live.events.PositionSource`."""

    def __init__(self, url: str) -> None:
        options, shape = source_options(url, _Options), _SHAPE.fullmatch(urlsplit(url).netloc)
        if shape is None:
            raise InputError(f"{url}: expected raster://ROWSxCOLUMNS?step=STEP&unit=UNIT")
        rows, columns = map(int, shape.groups())
        if not 0 < rows * columns <= _MOST_POINTS:
            raise InputError(
                f"{url}: {rows} x {columns} points, expected some and at most {_MOST_POINTS} points"
            )
        self.unit = options.unit
        points = np.indices((rows, columns), dtype=np.float64)
        if options.snake:
            points[1, 1::2] = points[1, 1::2, ::-1]
        samples = PositionSamples(np.arange(rows * columns), options.step * points.reshape(2, -1).T)
        self._events: deque[PositionEvent] = deque(
            [PositionsBegin(), samples, PositionsEnd()] * options.series
        )

    def receive(self, timeout: float) -> PositionEvent | None:
        if self._events:
            return self._events.popleft()
        time.sleep(timeout)
        return None

    def close(self) -> None:
        """Nothing is open."""
