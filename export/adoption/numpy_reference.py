"""The foreign network as its author runs it: its own graph or code, between steps in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.adoption.detector_steps import crop, pad
from ptychonnx.export.adoption.foreign_graph import PatchGeometry, exit_wave_factor, patch_geometry
from ptychonnx.export.adoption.foreign_types import cast_patterns
from ptychonnx.export.adoption.interpolation import interpolate
from ptychonnx.export.adoption.preprocessing import STEPS
from ptychonnx.export.adoption.sidecar import Channel, Layout, Specification
from ptychonnx.export.verification.engines import cpu_session, reference_evaluator
from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.scan.orientation import orient_image, orient_pattern

__all__ = ["ForeignNetwork", "Run", "run_of_graph"]

# From patterns in the layout and type of the foreign input to the foreign outputs by name.
Run = Callable[[NDArray], Mapping[str, NDArray]]


def run_of_graph(model: onnx.ModelProto, source: str, outputs: Sequence[str]) -> Run:
    """A graph in onnxruntime or, if that has no kernel for one of its operators, in the reference evaluator of ONNX.

    Raises InputError if neither loads the graph.
    """
    evaluator: Any
    try:
        evaluator = cpu_session(model.SerializeToString())
    except Exception as error:  # onnxruntime raises a dozen different types
        if "NOT_IMPLEMENTED" not in str(error):
            raise InputError(f"the foreign graph does not load: {first_line(error)}") from error
        evaluator = reference_evaluator(model)
    names = list(outputs)
    return lambda patterns: dict(zip(names, evaluator.run(names, {source: patterns}), strict=True))


class ForeignNetwork:
    """A function from amplitudes [B, 1, N, N] to object parts [B, N, N, 1, 2] of a type, float32 or float64.

    `batch` is the only batch size that the foreign network takes, None if any; the others are attributes of `Foreign`.

    Raises InputError when called, if the foreign network does not run on such patterns, or its outputs are not as
    specified.
    """

    def __init__(
        self,
        run: Run,
        heads: Mapping[str, Sequence[Channel]],
        dtype: np.dtype,
        specification: Specification,
        batch: int | None,
        result: type[np.floating] = np.float32,
    ) -> None:
        self._run, self._heads, self._dtype, self._batch = run, heads, dtype, batch
        self._result = result
        self._specification = specification
        self._steps = specification.resolved_steps()[:-1]
        self._geometry = patch_geometry(specification)
        self._factor = exit_wave_factor(specification)

    def __call__(self, diffraction: NDArray[np.float32]) -> NDArray[np.floating]:
        """Preprocess the patterns, run the foreign network, and convert its output."""
        specification = self._specification
        patterns = orient_pattern(diffraction, specification.input.orientation)
        for name, argument, _ in self._steps:
            patterns = STEPS[name].numpy(patterns, argument)
        patches = orient_image(self._patches(patterns), specification.output.orientation)
        patches = _placed(patches, self._geometry, specification.n)
        if self._factor is not None:
            patches = patches * self._factor
        stacked = np.stack([patches.real, patches.imag], axis=-1)
        return np.moveaxis(stacked, 1, 3).astype(self._result)

    def _patches(self, patterns: NDArray[np.float32]) -> NDArray[np.complexfloating]:
        """Complex output [B, 1, M, M] of the foreign network for preprocessed patterns."""
        layout = self._specification.input.layout
        outputs = self._run_in_batches(cast_patterns(_to_layout(patterns, layout), self._dtype))
        parts = {}
        for name, channels in self._heads.items():
            images = self._from_layout(name, outputs[name], channels)
            for number, channel in enumerate(channels):
                parts[channel] = images[:, number : number + 1]
        for quantity in self._specification.output.steps:
            for step, argument in self._specification.output_steps(quantity, self._geometry.side):
                parts[quantity] = STEPS[step].numpy(parts[quantity], argument)
        if "real" in parts:
            return parts["real"] + 1j * parts["imag"]
        return np.exp(1j * parts["phase"].astype(np.float64)) * parts.get("amplitude", 1)

    def _run_in_batches(self, patterns: NDArray) -> dict[str, NDArray]:
        """Outputs of the foreign network by name, in batches of the size that it takes."""
        size = self._batch or len(patterns)
        batches = []
        for start in range(0, len(patterns), size):
            part = patterns[start : start + size]
            padded = np.ascontiguousarray(part.take(range(size), axis=0, mode="clip"))
            try:
                outputs = self._run(padded)
            except Exception as error:  # as above
                raise InputError(
                    f"the foreign graph does not run on {list(padded.shape)}: {first_line(error)}"
                ) from error
            batches.append({name: value[: len(part)] for name, value in outputs.items()})
        return {name: np.concatenate([outputs[name] for outputs in batches]) for name in self._heads}

    def _from_layout(self, name: str, value: NDArray, channels: Sequence[Channel]) -> NDArray[np.floating]:
        """A foreign output as [B, channels, M, M]."""
        layout, side = self._specification.output.layout, self._geometry.side
        axes: dict[Layout, tuple[int, ...]] = {"BCNN": (1, 2, 3), "BNNC": (3, 1, 2), "BNN": (1, 2)}
        order = axes[layout]
        if value.ndim != len(order) + 1:
            raise InputError(
                f"the foreign output {name!r} is {value.shape}, expected {len(order) + 1} axes as {layout}"
            )
        images = value.transpose(0, *order) if layout != "BNN" else value[:, None]
        if images.shape[1] != len(channels):
            raise InputError(
                f"the foreign output {name!r} has {images.shape[1]} channels and the specification names "
                f"{len(channels)} ({', '.join(channels)}): name all of them in output.channels or output.heads, such "
                "as amplitude_uncertainty or ignored"
            )
        if images.shape[2:] != (side, side):
            raise InputError(
                f"the foreign {', '.join(channels)} is {images.shape[2]} x {images.shape[3]} pixels, expected {side} x "
                f"{side}: output.side states another side, and output.covers what it covers"
            )
        return images.astype(self._result)


def _placed(patches: NDArray, geometry: PatchGeometry, n: int) -> NDArray:
    """The central part of patches [B, 1, M, M] in pixels of the scan, with zeros around it up to [B, 1, n, n]."""
    patches = crop(patches, geometry.kept)
    if geometry.pixel != 1:
        centres = (geometry.kept - 1) / 2, (geometry.window - 1) / 2
        patches = interpolate(patches, geometry.window, 1 / geometry.pixel, *centres)
    return pad(patches, n)


def _to_layout(patterns: NDArray, layout: Layout) -> NDArray:
    """From [B, 1, M, M] to the layout of the foreign input."""
    if layout == "BNNC":
        return np.moveaxis(patterns, 1, -1)
    return patterns[:, 0] if layout == "BNN" else patterns
