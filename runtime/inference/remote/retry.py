"""Trying again, with pauses that grow."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ptychonnx.runtime.inference.remote.transport_errors import ServerFailure

__all__ = ["persist"]

Answer = TypeVar("Answer")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


def persist(
    attempt: Callable[[], Answer],
    patience: float,
    stopped: threading.Event,
    repeated: Callable[[], None] = lambda: None,
) -> Answer:
    """Make an attempt until it succeeds, fails for good, or the patience ends.

    The pauses double from 0.1 s to 2 s, and each is shortened by up to a half at random, so that the requests
    that failed together do not come back together.

    Parameters
    ----------
    patience
        Seconds after the first failure in which new attempts are made, the last at their end; 0 makes one
        attempt.
    stopped
        Ends the waiting when it is set.
    repeated
        Called before each new attempt.

    Raises
    ------
    ServerFailure
        The last one.
    """
    pause = _FIRST_PAUSE
    deadline = None
    while True:
        try:
            return attempt()
        except ServerFailure as failure:
            now = time.monotonic()
            deadline = now + patience if deadline is None else deadline
            wait = min(pause * random.uniform(0.5, 1), deadline - now)
            if not failure.passing or wait <= 0 or stopped.wait(wait):
                raise
        pause = min(2 * pause, _LONGEST_PAUSE)
        repeated()
