"""Settings of a network that trains in a second, for tests and for the processes that they start."""

from __future__ import annotations

__all__ = ["SMALL"]

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
