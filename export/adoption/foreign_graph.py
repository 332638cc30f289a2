"""Inputs, outputs and sizes of a foreign graph, as its specification describes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.adoption.preprocessing import STEPS
from ptychonnx.export.adoption.sidecar import Channel, Specification
from ptychonnx.runtime.errors import InputError

__all__ = ["PatchGeometry", "exit_wave_factor", "foreign_names", "patch_geometry", "pattern_shape"]

# Where the probe is weaker than this fraction of its maximum intensity, an exit wave hardly depends on the object.
_DARK = 1e-3


def foreign_names(
    model: onnx.ModelProto, specification: Specification
) -> tuple[str, dict[str, list[Channel]]]:
    """Input of the foreign graph, and the meaning of the channels of each of its outputs.

    Raises InputError if the graph has no such input or output, or has several and the specification names none.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in constants]
    outputs = [value.name for value in model.graph.output]
    if len(inputs) != 1 or specification.input.name not in (None, *inputs):
        wanted_input = specification.input.name or "of any name"
        raise InputError(f"the graph has inputs {inputs}, expected one input {wanted_input}")
    output = specification.output
    heads: dict[str, list[Channel]] = {name: [quantity] for quantity, name in output.names.items()}
    heads |= output.heads
    if output.channels:
        if len(outputs) != 1:
            raise InputError(
                f"the graph has outputs {outputs}, expected output.names, one per channel, or output.heads"
            )
        heads = {outputs[0]: output.channels}
    for name, channels in heads.items():
        if name not in outputs:
            raise InputError(
                f"the graph has outputs {outputs}, but the specification names {name!r} for the "
                f"{', '.join(channels)}"
            )
    return inputs[0], heads


@dataclass(frozen=True)
class PatchGeometry:
    """Sides of the network's patterns and patches."""

    pattern: int  # of the patterns that the network takes
    side: int  # of the patches that it returns, in their pixels
    kept: int  # of the central part of a patch that is used, in its pixels
    pixel: float  # of a pixel of the patch, in pixels of the scan
    window: int  # of the central square of the scan's window that a patch covers, in whole pixels of the scan


def patch_geometry(specification: Specification) -> PatchGeometry:
    """Follow the pixel size of the object through the steps.

    A pattern of n pixels gives an object of pixels lambda z / (n p) for pixels p of the detector. Cropping the
    detector makes the pixels of the object larger and keeps the window, and padding makes them smaller. Binning and
    resampling change p and n: the pixels stay, and the window becomes smaller or larger.

    Raises InputError if patches would be larger than the window of the scan.
    """
    *steps, (_, _, pattern) = specification.resolved_steps()
    pixel = 1.0
    for name, argument, before in steps:
        if STEPS[name].keeps_window:
            pixel *= before / STEPS[name].side(before, argument)
    output = specification.output
    side = output.side or pattern
    if output.covers == "window":
        pixel *= pattern / side
    kept = output.crop or side
    if kept > side:
        raise InputError(f"output.crop is {kept}, expected at most the {side} pixels of a patch")
    # Rounding errors of the factors must not lose a pixel.
    window = int(np.floor(kept * pixel + 1e-6))
    if not 1 <= window <= specification.n:
        raise InputError(
            f"patches of {kept} pixels cover {kept * pixel:.4g} pixels of the scan, expected 1 to {specification.n}"
        )
    return PatchGeometry(pattern, side, kept, pixel, window)


def pattern_shape(specification: Specification) -> tuple[int, ...]:
    """Shape of a pattern in the layout of the foreign input, without the batch."""
    side = patch_geometry(specification).pattern
    shapes = {"BCNN": (1, side, side), "BNNC": (side, side, 1), "BNN": (side, side)}
    return shapes[specification.input.layout]


def exit_wave_factor(specification: Specification) -> NDArray[np.complex64] | None:
    """The factor that turns an exit wave [N, N] into the object; None if the network returns the object.

    The factor is ``conj(P) / max(|P|^2, 0.001 max |P|^2)``.
    """
    output = specification.output
    if output.probe is None:
        return None
    probe = specification.read_array(output.probe, (specification.n,) * 2, np.complex64)
    power = np.abs(probe) ** 2
    if not power.max() > 0:
        raise InputError(f"{output.probe}: is dark everywhere, expected a probe")
    return (probe.conj() / np.maximum(power, _DARK * power.max())).astype(np.complex64)
