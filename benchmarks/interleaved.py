"""Times of several functions in one process, in turn, so that other work on the machine slows all of them alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = ["median_milliseconds"]


def median_milliseconds(
    functions: Mapping[str, Callable[[], Any]], seconds: float = 0.2, runs: int = 7
) -> dict[str, float]:
    """Median time of each function, each after a run of its own that is not counted, in an order that changes.

    Otherwise a function pays for the one before it: for cold caches, and for threads that still wait for work. What
    always follows a file of the same engine would appear up to 1.2 times as fast.

    Parameters
    ----------
    seconds
        For each function on average, after at least `runs` runs of each.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    order, generator = list(functions), random.Random(0)
    while len(next(iter(times.values()))) < runs or sum(map(sum, times.values())) < seconds * len(times):
        generator.shuffle(order)
        for name in order:
            function = functions[name]
            function()
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(one)) for name, one in times.items()}
