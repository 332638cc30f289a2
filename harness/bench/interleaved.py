"""Interleaved timing, so that other work on the machine slows all variants alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.progress import SILENT, Progress

__all__ = ["interleaved_times", "timed"]

# Thread pools spin for a while after their work, at the cost of the next variant.
_REST = 0.03


def interleaved_times(
    variants: Mapping[str, Callable[[], float]], rounds: int, rest: float = _REST, progress: Progress = SILENT
) -> dict[str, NDArray[np.float64]]:
    """Seconds [rounds] of each variant; every round runs all of them, in an order that changes.

    * `variants`: functions that run a variant and return the seconds it took, such as `timed`.
    * `rest`: seconds of sleep before each run.
    * `progress`: updated after each round, within the stage of the caller.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    generator = random.Random(0)
    for number in range(rounds):
        order = list(variants)
        generator.shuffle(order)
        for name in order:
            time.sleep(rest)
            times[name].append(variants[name]())
        progress.update(number + 1)
    return {name: np.array(seconds) for name, seconds in times.items()}


def timed(run: Callable[[], object]) -> float:
    """Seconds of one call, after another call that wakes the threads."""
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
