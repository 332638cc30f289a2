"""Inputs that an artifact is verified on: what it will see in use, and edge cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PATTERNS", "VerificationInputs", "amplitude_inputs", "count_inputs", "with_offsets"]

# Patterns of each kind but the first; batches take them one after the other and start again after the last.
PATTERNS = 16
_MOST_COUNTS = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class VerificationInputs:
    """Inputs of one kind.

    * `kind`: a short name.
    * `rule`: how they were generated, in words.
    * `arrays`: arrays [n, ...], one for each input of the network; the first axis is the batch.
    * `shared`: which of them have no batch axis, and are the same in every batch; none if empty.
    * `beam`: probe, mask and scale of a general network, which the whole batch shares; empty for its defaults.
    """

    kind: str
    rule: str
    arrays: tuple[NDArray, ...]
    shared: tuple[bool, ...] = ()
    beam: tuple[NDArray, ...] = ()

    def batch(self, start: int, size: int) -> tuple[NDArray, ...]:
        """All inputs for one batch; after the last input, the first one follows."""
        arrays = (
            array if is_shared else array.take(range(start, start + size), axis=0, mode="wrap")
            for array, is_shared in zip(self.arrays, self.shared or (False,) * len(self.arrays), strict=True)
        )
        return (*arrays, *self.beam)


def amplitude_inputs(held_out: NDArray[np.float32], origin: str) -> list[VerificationInputs]:
    """Amplitudes float32 [n, C, N, N]: held-out, random, all-zero, and two extremes of flux.

    `origin`: where the held-out amplitudes, which training did not see, come from, in words.
    """
    patterns = _wrapped(held_out)
    rms = float(np.sqrt(np.mean(np.square(held_out, dtype=np.float64)))) or 1.0
    # The legacy generator, because its numbers never change.
    noise = np.abs(np.random.RandomState(0).standard_normal(patterns.shape) * rms).astype(np.float32)
    faint, bright = patterns / np.float32(1000), patterns * np.float32(100)
    return [
        VerificationInputs("held-out", origin, (held_out,)),
        VerificationInputs(
            "random", f"absolute values of seeded normal noise of root mean square {rms:.4g}", (noise,)
        ),
        VerificationInputs("all-zero", "no photon anywhere", (np.zeros_like(patterns),)),
        VerificationInputs("faint", "held-out amplitudes / 1000, so a millionth of the photons", (faint,)),
        VerificationInputs("bright", "held-out amplitudes x 100, so 10,000 times the photons", (bright,)),
    ]


def count_inputs(held_out: NDArray[np.float32], origin: str) -> list[VerificationInputs]:
    """The same kinds as counts uint16 [n, C, N, N], from amplitudes `held_out`."""
    counts = np.minimum(np.rint(np.square(held_out, dtype=np.float64)), _MOST_COUNTS).astype(np.uint16)
    patterns = _wrapped(counts)
    generator = np.random.RandomState(0)
    noise = generator.randint(0, int(patterns.max()) + 1, patterns.shape).astype(np.uint16)
    faint = generator.poisson(0.05, patterns.shape).astype(np.uint16)
    return [
        VerificationInputs("held-out", f"{origin}, as counts of at most {_MOST_COUNTS}", (counts,)),
        VerificationInputs("random", f"seeded uniform counts up to {patterns.max()}", (noise,)),
        VerificationInputs("all-zero", "no photon anywhere", (np.zeros_like(patterns),)),
        VerificationInputs("faint", "seeded Poisson counts of mean 0.05", (faint,)),
        VerificationInputs(
            "bright", f"every pixel at {_MOST_COUNTS}", (np.full_like(patterns, _MOST_COUNTS),)
        ),
    ]


def with_offsets(
    inputs: Sequence[VerificationInputs], offsets: NDArray[np.float32]
) -> list[VerificationInputs]:
    """The same inputs for a network that also takes offsets float32 [n, C, 2].

    Random patterns get random offsets of up to half a window, so that groups are verified that no scan contains; all
    others get the offsets of the held-out patterns.
    """
    most = inputs[0].arrays[0].shape[-1] / 2
    own = _wrapped(offsets)
    random = np.random.RandomState(0).uniform(-most, most, own.shape).astype(np.float32)
    complete = []
    for kind in inputs:
        values, words = offsets if kind is inputs[0] else own, "their own offsets"
        if kind.kind == "random":
            values, words = random, f"seeded random offsets of up to {most:g} pixels"
        complete.append(VerificationInputs(kind.kind, f"{kind.rule}; {words}", (*kind.arrays, values)))
    return complete


def _wrapped(inputs: NDArray) -> NDArray:
    return inputs.take(range(PATTERNS), axis=0, mode="wrap")
