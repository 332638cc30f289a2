"""Checks while a scan runs: the photons of a pattern, and how well the growing object explains it."""

from __future__ import annotations

import logging
from collections import deque

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.scan.amplitudes import photons
from ptychonnx.runtime.scan.forward_model import forward

__all__ = ["RunningChecks"]

_logger = logging.getLogger("ptychonnx.runtime.live")
# Batches whose median is the usual number of photons.
_USUAL = 64
# A batch with less than this share of the usual photons has lost the beam.
_DARK = 0.1
# Weight of the newest pattern in the running misfit.
_NEWEST = 0.1


class RunningChecks:
    """Figures of the last patterns.

    Attributes
    ----------
    photons
        Mean number of photons in the patterns of the last batch; None before the first.
    misfit
        Running mean of ``|measured - predicted| / |measured|`` over the valid pixels, with the predicted amplitudes
        scaled to the measured ones; None without a probe.
    beam_lost
        Whether the last batch has far fewer photons than usual.
    """

    def __init__(self) -> None:
        self.photons: float | None = None
        self.misfit: float | None = None
        self.beam_lost = False
        self._usual: deque[float] = deque(maxlen=_USUAL)

    def add_patterns(self, first: int, patterns: NDArray[np.float32]) -> None:
        """Look at the photons of patterns [m, N, N], the first of which has a number."""
        self.photons = float(np.mean(photons(patterns)))
        usual = float(np.median(self._usual)) if self._usual else self.photons
        lost = self.photons < _DARK * usual
        if lost and not self.beam_lost:
            _logger.warning(
                "frame %d: %.3g photons, usually %.3g: is the beam lost?", first, self.photons, usual
            )
        elif self.beam_lost and not lost:
            _logger.warning("frame %d: %.3g photons again", first, self.photons)
        self.beam_lost = lost
        if not lost:
            self._usual.append(self.photons)

    def add_misfit(
        self,
        pattern: NDArray[np.float32],
        window: NDArray[np.complex64],
        probe: NDArray[np.complex64],
        mask: NDArray[np.bool_] | None,
    ) -> None:
        """Compare a pattern [N, N] with the one that a window of the object predicts."""
        predicted = forward(window, probe)
        if mask is not None:
            pattern, predicted = pattern * mask, predicted * mask
        power = float(np.sum(predicted**2))
        if not power:
            return
        scale = float(np.sum(pattern * predicted)) / power
        misfit = float(np.linalg.norm(pattern - scale * predicted) / np.linalg.norm(pattern))
        self.misfit = misfit if self.misfit is None else (1 - _NEWEST) * self.misfit + _NEWEST * misfit
