"""The foreign network as its author runs it: its own graph, between steps in NumPy."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from scipy import ndimage

from ptychonnx.export.adoption.foreign_graph import exit_wave_factor, foreign_names, patch_sides
from ptychonnx.export.adoption.preprocessing import STEPS
from ptychonnx.export.adoption.sidecar import Layout, Specification
from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.scan.orientation import orient_image, orient_pattern

__all__ = ["ForeignNetwork"]


class ForeignNetwork:
    """A function from amplitudes [B, 1, N, N] to object parts [B, N, N, 1, 2].

    Parameters
    ----------
    model
        The foreign graph.
    batch
        The only batch size of the foreign graph; None if it takes any.

    Raises
    ------
    InputError
        If onnxruntime does not load the foreign graph, or, when called, does not run it on such patterns.
    """

    def __init__(self, model: onnx.ModelProto, specification: Specification, batch: int | None) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises a dozen different types
            raise InputError(f"the foreign graph does not load: {first_line(error)}") from error
        self._specification, self._batch = specification, batch
        self._source, self._channels = foreign_names(model, specification)
        self._steps = specification.resolved_steps()[:-1]
        self._side, self._window = patch_sides(specification)
        self._factor = exit_wave_factor(specification)

    def __call__(self, diffraction: NDArray[np.float32]) -> NDArray[np.float32]:
        """Preprocess the patterns, run the foreign graph, and convert its output."""
        specification = self._specification
        patterns = orient_pattern(diffraction, specification.input.orientation)
        for name, argument, _ in self._steps:
            patterns = STEPS[name].numpy(patterns, argument)
        patches = orient_image(self._patches(patterns), specification.output.orientation)
        if self._side != self._window:
            patches = _enlarged(patches, self._window)
        if self._window != specification.n:
            start = specification.n // 2 - self._window // 2
            inside = slice(start, start + self._window)
            padded = np.zeros((*patches.shape[:2], specification.n, specification.n), dtype=patches.dtype)
            padded[..., inside, inside] = patches
            patches = padded
        if self._factor is not None:
            patches = patches * self._factor
        stacked = np.stack([patches.real, patches.imag], axis=-1)
        return np.moveaxis(stacked, 1, 3).astype(np.float32)

    def _patches(self, patterns: NDArray[np.float32]) -> NDArray[np.complexfloating]:
        """Complex output [B, 1, M, M] of the foreign graph for preprocessed patterns."""
        outputs = self._run(_to_layout(patterns, self._specification.input.layout))
        layout, order = self._specification.output.layout, self._specification.output.channels
        expected = (len(patterns), 1, self._side, self._side)
        parts = {}
        for number, (channel, name) in enumerate(self._channels.items()):
            parts[channel] = _from_layout(outputs[name], layout, number if order else None)
            if parts[channel].shape != expected:
                raise InputError(f"the foreign {channel} is {parts[channel].shape}, expected {expected}")
        if "real" in parts:
            return parts["real"] + 1j * parts["imag"]
        return np.exp(1j * parts["phase"].astype(np.float64)) * parts.get("amplitude", 1)

    def _run(self, patterns: NDArray[np.float32]) -> dict[str, NDArray]:
        """Outputs of the foreign graph by name, in batches of the size that it takes."""
        names = sorted(set(self._channels.values()))
        size = self._batch or len(patterns)
        batches = []
        for start in range(0, len(patterns), size):
            part = patterns[start : start + size]
            padded = np.ascontiguousarray(part.take(range(size), axis=0, mode="clip"))
            try:
                outputs = self._session.run(names, {self._source: padded})
            except Exception as error:  # as above
                raise InputError(
                    f"the foreign graph does not run on {list(padded.shape)}: {first_line(error)}"
                ) from error
            batches.append([value[: len(part)] for value in outputs])
        joined = (np.concatenate(values) for values in zip(*batches, strict=True))
        return dict(zip(names, joined, strict=True))


def _enlarged(patches: NDArray, side: int) -> NDArray:
    """Bilinear interpolation with aligned pixel centres; edge pixels are repeated."""
    scale = patches.shape[-1] / side
    axis = np.clip((np.arange(side) + 0.5) * scale - 0.5, 0, patches.shape[-1] - 1)
    coordinates = np.meshgrid(axis, axis, indexing="ij")
    flat = patches.reshape(-1, *patches.shape[-2:])
    images = [ndimage.map_coordinates(image, coordinates, order=1) for image in flat]
    return np.stack(images).reshape(*patches.shape[:-2], side, side)


def _to_layout(patterns: NDArray, layout: Layout) -> NDArray:
    """From [B, 1, M, M] to the layout of the foreign input."""
    if layout == "BNNC":
        return np.moveaxis(patterns, 1, -1)
    return patterns[:, 0] if layout == "BNN" else patterns


def _from_layout(value: NDArray, layout: Layout, channel: int | None) -> NDArray:
    """One channel [B, 1, M, M] of a foreign output."""
    if layout == "BNN":
        return value[:, None]
    if layout == "BNNC":
        value = np.moveaxis(value, -1, 1)
    return value if channel is None else value[:, channel : channel + 1]
