"""What a reduced precision costs, for a person to read."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ptychonnx.runtime.contract import Contract, Quality

__all__ = ["quality_lines", "reduction_lines"]


def quality_lines(quality: Quality) -> list[str]:
    """Every figure of the float32 artifact and of this one, and by how much it may fall."""
    lines = [f"quality: on {quality.scan}, float32 -> reduced"]
    for name, before in quality.parent.items():
        after, allowed = quality.artifact[name], quality.allowed_fall[name]
        lines.append(
            f"  {name.replace('_', ' '):<24}{_figure(before)} -> {_figure(after)} (may fall by {allowed:g})"
        )
    return lines


def reduction_lines(
    contract: Contract, layers: Mapping[str, str], sensitivity: Mapping[str, float], size: tuple[int, int]
) -> list[str]:
    """What was reduced, what was kept in float32 and why, and what it cost.

    Parameters
    ----------
    layers
        Layers that could be reduced, by node, as a reader knows them.
    sensitivity
        By node; see `ptychonnx.export.precision.sensitivity.sensitivities`.
    size
        Bytes of the file before and after.
    """
    conversion = contract.conversion
    kept = conversion.float_layers
    lines = [
        f"precision: {conversion.precision} in {len(layers) - len(kept)} of {len(layers)} layers; "
        f"{size[0] / 1e6:.2f} MB -> {size[1] / 1e6:.2f} MB"
    ]
    lines += [
        f"  {layers[name]} stays in float32: its reduction alone {_effect(sensitivity[name])}"
        for name in kept
    ]
    return lines if contract.quality is None else lines + quality_lines(contract.quality)


def _effect(change: float) -> str:
    if math.isinf(change):
        return "gives NaN or infinity"
    return f"changes the output by {100 * change:.3g} %"


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
