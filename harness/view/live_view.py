"""What the page shows: copies of the growing object, drawn when a browser asks."""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.live.live_reconstruction import LiveReconstruction
from ptychonnx.runtime.live.live_report import number_ranges

__all__ = ["PICTURES", "LiveView"]

PICTURES = ("amplitude", "phase", "positions", "pattern", "prediction")

# Copies are made at most this often, and only while somebody looks.
_SECONDS_PER_COPY = 0.2
_LOOKING_SECONDS = 3.0
# How long the page is served after the end, if somebody looks.
_LAST_LOOK_SECONDS = 1.0
# Longest side of a picture, in pixels.
_LARGEST_SIDE = 1024
# Dots along the longer side of the map of positions.
_DOTS_ACROSS = 192
_RATE_SECONDS = 2.0


class LiveView:
    """Pictures and figures of a live reconstruction; one thread updates, others ask."""

    def __init__(self, source: str) -> None:
        self._lock = threading.Lock()
        self._object: NDArray[np.complex64] | None = None
        self._pattern: NDArray[np.float32] | None = None
        self._prediction: NDArray[np.float32] | None = None
        self._centres = np.empty((0, 2))
        self._pictures: dict[str, tuple[int, bytes]] = {}
        self._state: dict[str, Any] = {"phase": "waiting", "source": source, "version": 0}
        self._asked = self._copied = 0.0
        self._history: deque[tuple[float, int]] = deque()

    def update(self, current: LiveReconstruction, waiting: int, *, final: bool = False) -> None:
        """Copy what a browser may ask for, unless the last copy is fresh or nobody looks."""
        now = time.monotonic()
        fresh = now - self._copied < _SECONDS_PER_COPY
        if not final and (fresh or now - self._asked > _LOOKING_SECONDS):
            return
        self._copied = now
        stitched = current.object.stitched()
        report, checks = current.report, current.checks
        self._history.append((now, report.frames))
        while now - self._history[0][0] > _RATE_SECONDS:
            self._history.popleft()
        (before, count) = self._history[0]
        latencies = report.latencies[-256:]
        state = {
            "phase": "finished" if final else "running",
            "source": self._state["source"],
            "version": self._state["version"] + 1,
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
        with self._lock:
            self._object = None if stitched is None else np.where(stitched.covered, stitched.object, np.nan)
            self._pattern = None if current.last_pattern is None else current.last_pattern[1]
            self._prediction, self._centres = checks.predicted, current.object.centres()
            self._state = state

    def wait_for_browsers(self) -> None:
        """Give browsers that look the time to take the last picture."""
        if time.monotonic() - self._asked < _LOOKING_SECONDS:
            time.sleep(_LAST_LOOK_SECONDS)

    def state(self) -> dict[str, Any]:
        """Figures, ready for JSON."""
        self._asked = time.monotonic()
        with self._lock:
            return dict(self._state)

    def picture(self, name: str) -> bytes | None:
        """PNG by one of the names in `PICTURES`; None before there is one."""
        self._asked = time.monotonic()
        with self._lock:
            version, whole = self._state["version"], self._object
            patterns = {"pattern": self._pattern, "prediction": self._prediction}
            centres, drawn = self._centres, self._pictures.get(name)
        if drawn is not None and drawn[0] == version:
            return drawn[1]
        if name in patterns:
            pattern = patterns[name]
            content = None if pattern is None else _png(np.log1p(pattern), "magma", None)
        elif whole is None:
            return None
        elif name == "positions":
            content = _png(_map(centres, whole.shape), "cool", None)
        else:
            step = -(-max(whole.shape) // _LARGEST_SIDE)
            part = whole[::step, ::step]
            content = _png(np.abs(part), "gray", None) if name == "amplitude" else _phase(part)
        if content is not None:
            with self._lock:
                self._pictures[name] = version, content
        return content


def _phase(part: NDArray[np.complex64]) -> bytes:
    """The phase relative to that of the mean; in cyclic colours if it spans more than half of the circle."""
    phase = np.angle(part * np.exp(-1j * np.angle(np.nanmean(part))))
    low, high = np.nanquantile(phase, (0.01, 0.99))
    return _png(phase, "gray", None) if high - low < np.pi else _png(phase, "twilight", (-np.pi, np.pi))


def _map(centres: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """An image of a canvas with the order of arrival at the centres of the patches, NaN elsewhere; dots are visible."""
    step = -(-max(shape) // _DOTS_ACROSS)
    image = np.full([-(-side // step) for side in shape], np.nan)
    rows, columns = (centres // step).astype(np.intp).T
    image[rows, columns] = np.arange(len(centres))
    return image


def _png(image: NDArray, colours: str, limits: tuple[float, float] | None) -> bytes:
    """An image in false colours; NaN is transparent. Without limits, 1 % of the pixels are beyond either end."""
    from matplotlib import colormaps  # slow to import
    from PIL import Image

    known = image[np.isfinite(image)]
    low, high = limits or (tuple(np.quantile(known, (0.01, 0.99))) if known.size else (0.0, 1.0))
    scaled = (image - low) / (high - low if high > low else 1.0)
    with np.errstate(invalid="ignore"):
        pixels = colormaps[colours](np.clip(scaled, 0, 1), bytes=True)
    pixels[~np.isfinite(image)] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
