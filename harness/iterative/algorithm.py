"""What iterations do in each epoch: rPIE with momentum (mPIE), and without in the last epochs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptychonnx.runtime.errors import InputError

__all__ = ["MOST_SMOOTHING", "Algorithm"]

# Noise is gone long before.
MOST_SMOOTHING = 100.0

_MOMENTUM = 0.8

# A smaller alpha converges faster with many photons and amplifies noise with few (docs/results/iterative.md): 1 up to
# this number of photons in a pattern, then their inverse fourth root, down to the smallest.
_PHOTONS_OF_EPIE, _SMALLEST_ALPHA = 1e4, 0.1

# With momentum the last ones are ePIE without: one of five epochs, two of more than ten.
_ONE_FROM, _TWO_FROM = 5, 11


@dataclass(frozen=True)
class Algorithm:
    """Settings of the iterations.

    Raises InputError if one is out of range.

    * `alpha`: regularisation in (0, 1]: the smaller, the larger the updates where the probe is faint. 1 is ePIE. If
      None, ``(1e4 / photons) ** (1 / 4)`` for the mean photons of a pattern, at least 0.1 and at most 1.
    * `momentum`: momentum of the object, in [0, 1). With momentum the last epoch of five to ten, and the last two of
      more, are ePIE without. 0: rPIE. If None, 0.8 with a probe that is held, and 0 with one that is refined, which
      does not follow an object with momentum.
    * `step`: beta, in (0, 2): 1 solves the brightest pixel of each pattern in one step.
    * `refine_probe`: update the probe too, by the rule of ePIE with object and probe exchanged.
    * `smoothing`: weight of the total variation of the object, in standard deviations of the counting noise of its real
      part, see `ptychonnx.harness.iterative.total_variation`. If None, `iterate` has none, and `refine` chooses the
      weight that predicts patterns which a trial does not see, where photons are few.
    * `coarse_phase`: correct the phase that varies slowly after each epoch, see
      `ptychonnx.harness.iterative.coarse_phase`. If None, unless `momentum` is 0, which is rPIE as published.
    """

    alpha: float | None = None
    momentum: float | None = None
    step: float = 1.0
    refine_probe: bool = False
    smoothing: float | None = None
    coarse_phase: bool | None = None

    def __post_init__(self) -> None:
        if self.alpha is not None and not 0 < self.alpha <= 1:
            raise InputError(f"iterations: alpha is {self.alpha:g}, expected more than 0 and at most 1")
        if not 0 <= self.eta < 1:
            raise InputError(f"iterations: momentum is {self.eta:g}, expected a value from 0 and less than 1")
        if not 0 < self.step < 2:
            raise InputError(f"iterations: step is {self.step:g}, expected a value between 0 and 2")
        if self.smoothing is not None and not 0 <= self.smoothing <= MOST_SMOOTHING:
            raise InputError(
                f"iterations: smoothing is {self.smoothing:g}, expected a value from 0 to {MOST_SMOOTHING:g}"
            )

    @property
    def eta(self) -> float:
        """The momentum, whether chosen or not."""
        if self.momentum is not None:
            return self.momentum
        return 0.0 if self.refine_probe else _MOMENTUM

    @property
    def corrects_phase(self) -> bool:
        """Whether the phase that varies slowly is corrected, whether chosen or not."""
        return self.momentum != 0 if self.coarse_phase is None else self.coarse_phase

    @property
    def name(self) -> str:
        """mPIE with momentum, rPIE without."""
        return "mPIE" if self.eta else "rPIE"

    def alpha_for(self, photons: float) -> float:
        """The regularisation for a mean number of photons in a pattern."""
        if self.alpha is not None:
            return self.alpha
        return float(np.clip((_PHOTONS_OF_EPIE / max(photons, 1.0)) ** 0.25, _SMALLEST_ALPHA, 1.0))

    def last_epochs(self, epochs: int | None = None) -> int:
        """How many of a number of epochs are ePIE without momentum; of any large number if None."""
        if not self.eta:
            return 0
        return 2 if epochs is None else (epochs >= _ONE_FROM) + (epochs >= _TWO_FROM)

    def describe(self, epochs: int, alpha: float) -> str:
        """The settings of finished iterations in words."""
        return (
            f"{epochs} epoch{'s' if epochs > 1 else ''} of {self.name}, alpha {alpha:.2g}, "
            f"{f'momentum {self.eta:g}, ' if self.eta else ''}"
            f"{'coarse phase corrected, ' if self.corrects_phase else ''}step {self.step:g}, "
            f"{f'smoothing {self.smoothing:g}, ' if self.smoothing else ''}probe "
            f"{'refined' if self.refine_probe else 'held'}"
        )
