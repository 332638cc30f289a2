"""Retries with exponential backoff and jitter."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ptychonnx.runtime.inference.remote.connection import RequestFailure

__all__ = ["retry"]

Answer = TypeVar("Answer")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


def retry(
    attempt: Callable[[], Answer],
    patience: float,
    stopped: threading.Event,
    on_retry: Callable[[], None] = lambda: None,
) -> Answer:
    """Repeat an attempt until it succeeds, fails for good, or the time is over.

    The pauses double from 0.1 s to 2 s. Each is shortened at random by up to a half, so that requests that failed
    together are not repeated together.

    Raises the RequestFailure of the last attempt.

    * `patience`: seconds after the first failure during which attempts are made, the last at their end; 0: one attempt.
    * `stopped`: ends the pauses when it is set.
    * `on_retry`: called before each new attempt.
    """
    pause = _FIRST_PAUSE
    deadline = None
    while True:
        try:
            return attempt()
        except RequestFailure as failure:
            now = time.monotonic()
            deadline = now + patience if deadline is None else deadline
            wait = min(pause * random.uniform(0.5, 1), deadline - now)
            if not failure.transient or wait <= 0 or stopped.wait(wait):
                raise
        pause = min(2 * pause, _LONGEST_PAUSE)
        on_retry()
