"""Checks while a scan runs: the photons of a pattern, and how well the growing object explains it."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.reconstruction.misfit import GOOD
from ptychonnx.runtime.scan.amplitudes import photons
from ptychonnx.runtime.scan.forward_model import forward

__all__ = ["RunningChecks"]

_logger = logging.getLogger("ptychonnx.runtime.live")
# Values whose median is the usual one.
_USUAL = 64
# A batch with less than this share of the usual photons has lost the beam.
_DARK = 0.1
# The object explains the patterns no longer if the running misfit exceeds the usual one by this factor.
_WORSE = 1.6
# Patterns that differ from the empty beam by less than this share of the usual difference have no sample in it.
_EMPTY = 0.4
# Weight of the newest value in a running mean.
_NEWEST = 0.1


class _Watch:
    """A figure next to its usual value; says when it becomes unusual, and when it is usual again."""

    def __init__(self, unusual: Callable[[float, float], bool], text: str, newest: float, least: int) -> None:
        """`least`: values before one can be unusual; the first of a scan differ since patches overlap later."""
        self._unusual, self._text, self._newest, self._least = unusual, text, newest, least
        self._usual: deque[float] = deque(maxlen=_USUAL)
        self.value: float | None = None
        self.warning = ""

    def add(self, number: int, value: float) -> None:
        """Add the figure of a frame; one that is not finite would stay in the mean."""
        if not math.isfinite(value):
            return
        self.value = value if self.value is None else self.value + self._newest * (value - self.value)
        usual = float(np.median(self._usual)) if len(self._usual) >= self._least else None
        if usual is not None and self._unusual(self.value, usual):
            if not self.warning:
                self.warning = f"frame {number}: {self._text.format(value=self.value, usual=usual)}"
                _logger.warning("%s", self.warning)
            return
        if self.warning:
            self.warning = ""
            _logger.warning("frame %d: as usual again", number)
        self._usual.append(self.value)


class RunningChecks:
    """Figures of the last patterns.

    `predicted`: amplitudes float32 [N, N] that the growing object predicts for the pattern that was compared last.
    """

    def __init__(self, probe: NDArray[np.complex64] | None) -> None:
        self.predicted: NDArray[np.float32] | None = None
        self._probe = probe
        self._empty = None if probe is None else forward(np.ones(probe.shape[-2:], np.complex64), probe)
        self._photons = _Watch(
            lambda value, usual: value < _DARK * usual,
            "{value:.3g} photons, usually {usual:.3g}: is the beam lost?",
            newest=1.0,
            least=1,
        )
        self._fit = _Watch(
            lambda value, usual: value > max(_WORSE * usual, GOOD),
            "misfit {value:.2f}, usually {usual:.2f}: did the beam change, or do positions and frames disagree?",
            newest=_NEWEST,
            least=32,
        )
        self._sample = _Watch(
            lambda value, usual: value < _EMPTY * usual,
            "patterns differ from the empty beam by {value:.2f}, usually {usual:.2f}: is the sample out of the beam?",
            newest=_NEWEST,
            least=32,
        )

    @property
    def photons(self) -> float | None:
        """Mean number of photons in the patterns of the last batch; None before the first."""
        return self._photons.value

    @property
    def misfit(self) -> float | None:
        """Running mean of ``|measured - predicted| / |measured|``, with predicted amplitudes scaled to the measured.

        None without a probe.
        """
        return self._fit.value

    @property
    def warnings(self) -> list[str]:
        """What is unusual now, one line each."""
        return [watch.warning for watch in (self._photons, self._fit, self._sample) if watch.warning]

    def add_patterns(
        self, first: int, patterns: NDArray[np.float32], mask: NDArray[np.bool_] | None = None
    ) -> None:
        """Look at patterns [m, N, N], the first of which has a number; of a batch, one is compared with the beam."""
        self._photons.add(first, float(np.mean(photons(patterns))))
        if self._empty is not None and not self._photons.warning:
            self._sample.add(first, _difference(patterns[-1], self._empty, mask))

    def add_misfit(
        self,
        number: int,
        pattern: NDArray[np.float32],
        window: NDArray[np.complex64],
        mask: NDArray[np.bool_] | None,
    ) -> None:
        """Compare the pattern [N, N] of a frame with the one that a window of the object predicts."""
        if self._probe is not None:
            self.predicted = forward(window, self._probe)
            self._fit.add(number, _difference(pattern, self.predicted, mask))


def _difference(
    pattern: NDArray[np.float32], predicted: NDArray[np.float32], mask: NDArray[np.bool_] | None
) -> float:
    """``|measured - predicted| / |measured|`` over the valid pixels, with predicted amplitudes scaled to fit.

    NaN if no photon came to them.
    """
    if mask is not None:
        pattern, predicted = pattern * mask, predicted * mask
    power = float(np.sum(predicted**2))
    scale = float(np.sum(pattern * predicted)) / power if power else 0.0
    measured = float(np.linalg.norm(pattern))
    return float(np.linalg.norm(pattern - scale * predicted)) / measured if measured else math.nan
