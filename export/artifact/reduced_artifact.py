"""The result of a reduction: layers in lower precision, layers in float32, and the quality that was lost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ptychonnx.export.verification.verdict import quality_lines
from ptychonnx.runtime.contract import Contract

__all__ = ["ReducedArtifact"]


@dataclass(frozen=True)
class ReducedArtifact:
    """A published artifact of lower precision.

    Attributes
    ----------
    path
        The file.
    contract
        The contract in the file: precision, layers in float32, quality.
    layers
        All layers that can be reduced, for people: the node, and the name of its weights if they have one.
    sensitivity
        Change of the output when one layer alone is reduced, by node; empty if all layers could be reduced.
    bytes_before, bytes_after
        Sizes of the two files.
    """

    path: Path
    contract: Contract
    layers: Mapping[str, str]
    sensitivity: Mapping[str, float]
    bytes_before: int
    bytes_after: int

    def lines(self) -> list[str]:
        """What was reduced, what stayed in float32 and why, and the quality that was lost, as lines of text."""
        conversion, quality = self.contract.conversion, self.contract.quality
        kept = conversion.float_layers
        lines = [
            f"precision: {conversion.precision} in {len(self.layers) - len(kept)} of {len(self.layers)} layers; "
            f"{self.bytes_before / 1e6:.2f} MB -> {self.bytes_after / 1e6:.2f} MB"
        ]
        for layer in kept:
            effect = _effect(self.sensitivity[layer])
            lines.append(f"  {self.layers[layer]} stays in float32: its reduction alone {effect}")
        return lines if quality is None else lines + quality_lines(quality)


def _effect(change: float) -> str:
    if math.isinf(change):
        return "causes NaN or infinity"
    return f"changes the output by {100 * change:.3g} %"
