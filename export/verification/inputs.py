"""Inputs that an artifact is verified with: what it will see, and what nobody hopes it will."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Trial", "amplitude_trials", "count_trials", "module_trials", "with_offsets"]

# Patterns of each kind but the first; batches take them in turn, from the start again after the last.
_PATTERNS = 16
_MOST_COUNTS = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Trial:
    """Inputs of one kind.

    Attributes
    ----------
    kind
        A short name.
    rule
        How they were made, in words.
    inputs
        Arrays [n, ...], one for each input of the network; the first axis is the batch.
    """

    kind: str
    rule: str
    inputs: tuple[NDArray, ...]

    def batch(self, start: int, size: int) -> tuple[NDArray, ...]:
        """All inputs for a batch, from the start again after the last."""
        return tuple(part.take(range(start, start + size), axis=0, mode="wrap") for part in self.inputs)


def amplitude_trials(held_out: NDArray[np.float32], origin: str) -> list[Trial]:
    """Four kinds of amplitudes float32 [n, C, N, N], of which flux has two extremes.

    Parameters
    ----------
    held_out
        Amplitudes that training did not see.
    origin
        What they are, in words.
    """
    some = _wrapped(held_out)
    rms = float(np.sqrt(np.mean(np.square(held_out, dtype=np.float64)))) or 1.0
    # The legacy generator, since its numbers never change.
    noise = np.abs(np.random.RandomState(0).standard_normal(some.shape) * rms).astype(np.float32)
    return [
        Trial("held-out", origin, (held_out,)),
        Trial("random", f"absolute values of seeded normal noise of root mean square {rms:.4g}", (noise,)),
        Trial("all-zero", "no photon anywhere", (np.zeros_like(some),)),
        Trial(
            "faint", "held-out amplitudes / 1000, so a millionth of the photons", (some / np.float32(1000),)
        ),
        Trial("bright", "held-out amplitudes x 100, so 10,000 times the photons", (some * np.float32(100),)),
    ]


def count_trials(held_out: NDArray[np.float32], origin: str) -> list[Trial]:
    """The same four kinds as counts uint16 [n, C, N, N], made from amplitudes `held_out`."""
    counts = np.minimum(np.rint(np.square(held_out, dtype=np.float64)), _MOST_COUNTS).astype(np.uint16)
    some = _wrapped(counts)
    generator = np.random.RandomState(0)
    noise = generator.randint(0, int(some.max()) + 1, some.shape).astype(np.uint16)
    faint = generator.poisson(0.05, some.shape).astype(np.uint16)
    return [
        Trial("held-out", f"{origin}, as counts of at most {_MOST_COUNTS}", (counts,)),
        Trial("random", f"seeded uniform counts up to {some.max()}", (noise,)),
        Trial("all-zero", "no photon anywhere", (np.zeros_like(some),)),
        Trial("faint", "seeded Poisson counts of mean 0.05", (faint,)),
        Trial("bright", f"every pixel at {_MOST_COUNTS}", (np.full_like(some, _MOST_COUNTS),)),
    ]


def with_offsets(trials: Sequence[Trial], offsets: NDArray[np.float32]) -> list[Trial]:
    """The same trials for a network that takes offsets float32 [n, C, 2] too, those of the held-out patterns.

    Random patterns get random offsets, of up to half a window, so that groups are tried that no scan has.
    """
    most = trials[0].inputs[0].shape[-1] / 2
    some = _wrapped(offsets)
    anywhere = np.random.RandomState(0).uniform(-most, most, some.shape).astype(np.float32)
    found = []
    for trial in trials:
        values, words = offsets if trial is trials[0] else some, "their own offsets"
        if trial.kind == "random":
            values, words = anywhere, f"seeded random offsets of up to {most:g} pixels"
        found.append(Trial(trial.kind, f"{trial.rule}; {words}", (*trial.inputs, values)))
    return found


def module_trials(shapes: Sequence[tuple[int, ...]], seed: int = 0) -> list[Trial]:
    """Four kinds of float32 inputs [16, *shape] for a module of which nothing is known."""
    generator = np.random.RandomState(seed)
    noise = [generator.standard_normal((_PATTERNS, *shape)).astype(np.float32) for shape in shapes]
    return [
        Trial(kind, rule, tuple(part * np.float32(factor) for part in noise))
        for kind, rule, factor in (
            ("random", f"standard normal noise of seed {seed}", 1),
            ("all-zero", "zeros", 0),
            ("small", "the random inputs / 1000", 1e-3),
            ("large", "the random inputs x 100", 100),
        )
    ]


def _wrapped(inputs: NDArray) -> NDArray:
    return inputs.take(range(_PATTERNS), axis=0, mode="wrap")
