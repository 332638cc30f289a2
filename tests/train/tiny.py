"""Settings of networks that train in a second, for tests and for the processes that they start."""

from __future__ import annotations

from collections.abc import Callable

from ptychonnx.runtime.progress import Callback

__all__ = ["SHALLOW", "SMALL", "on_steps"]

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
# For tests about training itself: each level and each step of retrieval costs Keras a second of tracing.
SHALLOW = {**SMALL, "blocks": 1, "first_steps": 2, "final_steps": 1}


def on_steps(function: Callable[[int, int], object]) -> Callback:
    """Progress that calls a function with the steps done and those there will be, after each step."""
    return Callback(lambda update: function(update.done, update.total) if update.done else None)
