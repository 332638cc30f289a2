"""How far a network's object may be from the true one, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Uncertainty"]


@dataclass(frozen=True)
class Uncertainty:
    """Half-widths of intervals about the object; all are float32 [rows, columns], NaN where there is too little light.

    Errors are those that remain after the global complex factor, which no pattern determines, is removed.

    * `amplitude`, `phase`: standard deviation: the true value lies this close in 68 % of the pixels. The phase is in
      radians.
    * `amplitude_95`, `phase_95`: the same for 95 %. It is more than twice the standard deviation, since errors of
      networks have heavy tails.
    * `members`: number of reconstructions from whose spread they follow.
    * `calibrated`: whether these shares were measured with this network. If not, the intervals are those of another
      one, and what share they hold is unknown.
    """

    amplitude: NDArray[np.float32]
    phase: NDArray[np.float32]
    amplitude_95: NDArray[np.float32]
    phase_95: NDArray[np.float32]
    members: int
    calibrated: bool

    def __str__(self) -> str:
        amplitude, phase = (float(np.nanmedian(values)) for values in (self.amplitude, self.phase))
        trust = "" if self.calibrated else ", not calibrated for this network"
        return (
            f"uncertainty from {self.members} symmetries{trust}: standard deviation of the amplitude {amplitude:.2g}, "
            f"of the phase {phase:.2g} rad (medians over the object)"
        )
