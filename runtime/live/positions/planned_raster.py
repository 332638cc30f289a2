"""A planned raster scan: positions that are not measured.

`raster://ROWSxCOLUMNS?step=0.5&unit=um` moves along the columns first. `snake=1` reverses every second row.
`series=K` repeats it for K series. Other trajectories can be written to a .csv file that ends with `# end`.
"""

from __future__ import annotations

import re
import time
from collections import deque
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.live.events import PositionEvent, PositionSamples, PositionsBegin, PositionsEnd
from ptychonnx.runtime.live.positions.sample_columns import known_unit

__all__ = ["PlannedRaster"]

_SHAPE = re.compile(r"(\d+)x(\d+)")
_MOST_POINTS = 10**7


class PlannedRaster:
    """All positions at once, see `ptychonnx.runtime.live.events.PositionSource`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        shape = _SHAPE.fullmatch(parts.netloc)
        expected = "raster://ROWSxCOLUMNS?step=STEP&unit=UNIT, and possibly snake=1 and series=K"
        if shape is None or "step" not in query or set(query) - {"step", "unit", "snake", "series"}:
            raise InputError(f"{url}: expected {expected}")
        rows, columns = map(int, shape.groups())
        try:
            step, series = float(query["step"]), int(query.get("series", 1))
        except ValueError as error:
            raise InputError(f"{url}: {error}, expected {expected}") from error
        if not (0 < rows * columns <= _MOST_POINTS and 0 < step < np.inf and series > 0):
            raise InputError(f"{url}: expected at most {_MOST_POINTS} points and a step above 0")
        self.unit = known_unit(query.get("unit"), url)
        points = np.indices((rows, columns), dtype=np.float64)
        if query.get("snake") == "1":
            points[1, 1::2] = points[1, 1::2, ::-1]
        samples = PositionSamples(np.arange(rows * columns), step * points.reshape(2, -1).T)
        self._events: deque[PositionEvent] = deque([PositionsBegin(), samples, PositionsEnd()] * series)

    def receive(self, timeout: float) -> PositionEvent | None:
        if self._events:
            return self._events.popleft()
        time.sleep(timeout)
        return None

    def close(self) -> None:
        """Nothing is open."""
