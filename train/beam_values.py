"""What a network derives from its beam; `train.torch.beam` and `train.tensorflow.beam` compute it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

__all__ = ["BeamValues"]

Tensor = TypeVar("Tensor")


@dataclass(frozen=True)
class BeamValues(ABC, Generic[Tensor]):
    """Values that phase retrieval, features and final steps derive from a beam.

    They belong to all patterns or, with a batch axis [B] where it is noted, to each.

    * `scale`: [] or [B, 1, 1, 1], factor from measured to scaled amplitude.
    * `probe`, `lit`, `back`: [2, [B], modes, N, 2, N], see `ptychonnx.train.initial_retrieval.RetrievalConstants`; so
      are the others.
    * `spread`, `valid`, `light`: [[B], N, N].
    * `step`: [] or [B], length of a step for several patterns at a time.
    """

    scale: Tensor
    probe: Tensor
    lit: Tensor
    back: Tensor
    spread: Tensor
    valid: Tensor
    light: Tensor
    step: Tensor

    @property
    def batched(self) -> bool:
        """Whether every pattern has a beam of its own."""
        light: Any = self.light
        return len(light.shape) == 3

    def repeated(self, members: int) -> Self:
        """The beam of each pattern, for the beams of groups of `members` patterns."""
        if members == 1 or not self.batched:
            return self
        batch_axes = {"probe": 1, "lit": 1, "back": 1, "spread": 0, "valid": 0, "light": 0}
        repeated = {
            name: self._repeat(getattr(self, name), members, axis) for name, axis in batch_axes.items()
        }
        return replace(self, **repeated)

    @staticmethod
    @abstractmethod
    def _repeat(values: Tensor, times: int, axis: int) -> Tensor:
        """Every entry of an axis that many times in a row."""
