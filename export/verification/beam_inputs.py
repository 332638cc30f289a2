"""Inputs of a general artifact: patterns with its default beam, and with another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptychonnx.export.verification.inputs import VerificationInputs
from ptychonnx.runtime.scan.beam_arrays import probe_arrays
from ptychonnx.runtime.scan.forward_model import forward

__all__ = ["other_beam", "smooth_patterns", "with_beams"]

_PATTERNS = 16
_BRIGHTER = 10


def with_beams(inputs: Sequence[VerificationInputs], flux: float, modes: int) -> list[VerificationInputs]:
    """The inputs with the default beam, and patterns of another beam after them.

    `flux`: mean photons in a pattern of the default beam; the other one is ten times as bright.
    """
    shape = inputs[0].arrays[0].shape
    _, patterns, beam = other_beam(shape[-1], flux * _BRIGHTER, modes, shape[1])
    if inputs[0].arrays[0].dtype == np.uint16:
        patterns = np.minimum(np.rint(patterns**2), np.iinfo(np.uint16).max).astype(np.uint16)
    offsets = tuple(array.take(range(_PATTERNS), axis=0, mode="wrap") for array in inputs[0].arrays[1:])
    rule = f"seeded smooth objects in a defocused disk of {_BRIGHTER} times the photons, a tenth of the pixels masked"
    other = VerificationInputs("other beam", rule, (patterns, *offsets), beam=tuple(beam.values()))
    again = replace(inputs[0], kind="other beam, held-out patterns", beam=tuple(beam.values()))
    return [*inputs, other, again]


def other_beam(
    size: int, flux: float, modes: int, channels: int
) -> tuple[NDArray[np.complex64], NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """A defocused disk [modes, N, N], patterns float32 [16, C, N, N] of smooth random objects in it, and its arrays.

    Each further mode is the one before times the distance to the left, as in a partially coherent beam, and darker.
    """
    generator = np.random.RandomState(1)
    axis = np.arange(size) - size // 2
    distance = np.hypot(axis[:, None], axis)
    disk = np.clip(size / 4 - distance + 0.5, 0, 1) * np.exp(4j * np.pi * (distance / (size / 4)) ** 2)
    beam = disk * (axis / size) ** np.arange(modes)[:, None, None]
    probe = (beam * np.sqrt(flux / np.sum(np.abs(beam) ** 2))).astype(np.complex64)
    mask = generator.random_sample((size, size)) > 0.1
    return (
        probe,
        smooth_patterns(probe, mask, channels),
        probe_arrays(probe, mask, flux, modes, "verification"),
    )


def smooth_patterns(
    probe: NDArray[np.complexfloating], mask: NDArray[np.bool_], channels: int
) -> NDArray[np.float32]:
    """Amplitudes float32 [16, C, N, N] of smooth random objects in a beam, 0 at invalid pixels."""
    size = probe.shape[-1]
    frequency = np.fft.fftfreq(size)
    smooth = np.exp(-0.5 * (frequency[:, None] ** 2 + frequency**2) / 0.05**2)
    noise = np.random.RandomState(2).standard_normal((_PATTERNS, channels, size, size))
    phase = np.fft.ifft2(np.fft.fft2(noise) * smooth).real
    patches = np.exp(1j * phase / np.abs(phase).max())
    return (forward(patches, probe) * mask).astype(np.float32)
