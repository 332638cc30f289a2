"""Timing of several forms of one thing in turns, so that whatever else the machine does slows all of them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["in_turns", "timed"]

# Thread pools spin for a while after their work, at the cost of whoever comes next.
_REST = 0.03


def in_turns(
    forms: Mapping[str, Callable[[], float]], rounds: int, rest: float = _REST
) -> dict[str, NDArray[np.float64]]:
    """Seconds [rounds] of each form: one after the other, in an order that changes from round to round.

    Parameters
    ----------
    forms
        Functions that run a form and give the seconds it took, such as `timed`.
    rest
        Seconds of sleep before each.
    """
    times: dict[str, list[float]] = {form: [] for form in forms}
    shuffled = random.Random(0)
    for _ in range(rounds):
        order = list(forms)
        shuffled.shuffle(order)
        for form in order:
            time.sleep(rest)
            times[form].append(forms[form]())
    return {form: np.array(values) for form, values in times.items()}


def timed(run: Callable[[], object]) -> float:
    """Seconds of one call, after another that wakes the threads."""
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
