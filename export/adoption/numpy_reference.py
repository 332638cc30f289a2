"""The foreign network as its author runs it: its own graph, between steps in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from scipy import ndimage

from ptychonnx.export.adoption.foreign_graph import exit_wave_factor, foreign_names, patch_sides
from ptychonnx.export.adoption.preprocessing import STEPS
from ptychonnx.export.adoption.sidecar import Layout, Specification
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan.orientation import orient_image, orient_pattern

__all__ = ["native_network"]


def native_network(
    model: onnx.ModelProto, specification: Specification, batch: int | None
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A function from amplitudes [B, 1, N, N] to object parts [B, N, N, 1, 2].

    Raises
    ------
    InputError
        If onnxruntime does not load the foreign graph, or, when called, does not run it on such patterns.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen types of its own
        raise InputError(f"the foreign graph does not load: {_line(error)}") from error
    source, channels = foreign_names(model, specification)
    steps = specification.resolved_steps()[:-1]
    side, window = patch_sides(specification)
    factor = exit_wave_factor(specification)
    order = specification.output.channels

    def run(patterns: NDArray[np.float32]) -> list[NDArray]:
        """Output of the foreign graph for each channel, [B, 1, M, M]."""
        shaped = _from_ours(patterns, specification.input.layout)
        names = sorted(set(channels.values()))
        size = batch or len(shaped)
        batches = []
        for start in range(0, len(shaped), size):
            part = shaped[start : start + size]
            padded = np.ascontiguousarray(part.take(range(size), axis=0, mode="clip"))
            try:
                batches.append([value[: len(part)] for value in session.run(names, {source: padded})])
            except Exception as error:  # as above
                raise InputError(
                    f"the foreign graph does not run on {list(padded.shape)}: {_line(error)}"
                ) from error
        joined = dict(
            zip(names, (np.concatenate(values) for values in zip(*batches, strict=True)), strict=True)
        )
        return [
            _to_ours(
                joined[output],
                specification.output.layout,
                order.index(channel) if order else None,  # type: ignore[arg-type]
            )
            for channel, output in channels.items()
        ]

    def predict(diffraction: NDArray[np.float32]) -> NDArray[np.float32]:
        patterns = orient_pattern(diffraction, specification.input.orientation)
        for name, argument, _ in steps:
            patterns = STEPS[name].numpy(patterns, argument)
        parts = dict(zip(channels, run(patterns), strict=True))
        expected = (len(diffraction), 1, side, side)
        for channel, part in parts.items():
            if part.shape != expected:
                raise InputError(f"the foreign {channel} is {part.shape}, expected {expected}")
        if "real" in parts:
            patches = parts["real"] + 1j * parts["imag"]
        else:
            patches = np.exp(1j * parts["phase"].astype(np.float64)) * parts.get("amplitude", 1)
        patches = orient_image(patches, specification.output.orientation)
        if side != window:
            patches = _enlarged(patches, window)
        if window != specification.n:
            start = specification.n // 2 - window // 2
            whole = np.zeros((*patches.shape[:2], specification.n, specification.n), dtype=patches.dtype)
            whole[..., start : start + window, start : start + window] = patches
            patches = whole
        if factor is not None:
            patches = patches * factor
        stacked = np.stack([patches.real, patches.imag], axis=-1)
        return np.moveaxis(stacked, 1, 3).astype(np.float32)

    return predict


def _enlarged(patches: NDArray, side: int) -> NDArray:
    """Bilinear interpolation with aligned pixel centres; edge pixels are repeated."""
    scale = patches.shape[-1] / side
    axis = np.clip((np.arange(side) + 0.5) * scale - 0.5, 0, patches.shape[-1] - 1)
    coordinates = np.meshgrid(axis, axis, indexing="ij")
    flat = patches.reshape(-1, *patches.shape[-2:])
    images = [
        ndimage.map_coordinates(image.real, coordinates, order=1)
        + 1j * ndimage.map_coordinates(image.imag, coordinates, order=1)
        for image in flat
    ]
    return np.stack(images).reshape(*patches.shape[:-2], side, side)


def _from_ours(patterns: NDArray, layout: Layout) -> NDArray:
    if layout == "BNNC":
        return np.moveaxis(patterns, 1, -1)
    return patterns[:, 0] if layout == "BNN" else patterns


def _to_ours(value: NDArray, layout: Layout, channel: int | None) -> NDArray:
    if layout == "BNN":
        return value[:, None]
    if layout == "BNNC":
        value = np.moveaxis(value, -1, 1)
    return value if channel is None else value[:, channel : channel + 1]


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
