"""Settings of a network that trains in a second, for tests and for the processes that they start."""

from __future__ import annotations

from collections.abc import Callable

from ptychonnx.runtime.progress import Callback

__all__ = ["SMALL", "on_steps"]

SMALL = {
    "n": 32,
    "width": 8,
    "blocks": 2,
    "modes": 12,
    "first_steps": 3,
    "final_steps": 2,
    "batch": 4,
    "overlap": 1,
    "learning_rate": 1e-3,
}


def on_steps(function: Callable[[int, int], object]) -> Callback:
    """Progress that calls a function with the steps done and those there will be, after each step."""
    return Callback(lambda update: function(update.done, update.total) if update.done else None)
