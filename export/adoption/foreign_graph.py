"""Inputs, outputs and sizes of a foreign graph, as its specification describes them."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.adoption.sidecar import Specification
from ptychonnx.runtime.errors import InputError

__all__ = ["exit_wave_factor", "foreign_names", "patch_sides"]

# Where the probe is weaker than this fraction of its maximum intensity, an exit wave hardly depends on the object.
_DARK = 1e-3


def foreign_names(model: onnx.ModelProto, specification: Specification) -> tuple[str, dict[str, str]]:
    """Input of the foreign graph, and its output for each channel (the same one if it holds several).

    Raises
    ------
    InputError
        If the graph has no such input or output, or has several and the specification names none.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in constants]
    outputs = [value.name for value in model.graph.output]
    if len(inputs) != 1 or specification.input.name not in (None, *inputs):
        wanted_input = specification.input.name or "of any name"
        raise InputError(f"the graph has inputs {inputs}, expected one input {wanted_input}")
    wanted = dict(specification.output.names)
    if not wanted:
        if len(outputs) != 1:
            raise InputError(f"the graph has outputs {outputs}, expected output.names, one per channel")
        wanted = dict.fromkeys(specification.output.channels, outputs[0])
    for channel, output in wanted.items():
        if output not in outputs:
            raise InputError(
                f"the graph has outputs {outputs}, but the specification names {output!r} for the {channel}"
            )
    return inputs[0], {str(channel): output for channel, output in wanted.items()}


def patch_sides(specification: Specification) -> tuple[int, int]:
    """Side of the network's patterns, and side of the window that they cover, in pixels of the scan.

    Cropping the detector makes the pixels of the object larger and keeps the window; rebinning it makes the window
    smaller and keeps the pixels.

    Raises
    ------
    InputError
        If the window is less than half as wide as that of the scan.
    """
    *steps, (_, _, side) = specification.resolved_steps()
    rebinned = int(np.prod([argument for name, argument, _ in steps if name.startswith("rebin")]))
    window = specification.n // rebinned
    if 2 * window < specification.n:
        raise InputError(f"rebinning by {rebinned} leaves less than half of a window, expected at most 2")
    return side, window


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
