"""Patterns of another size, for a network that takes no other: cropped, binned or padded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.formats.conversion.frames import FramePlan, lazy_frames
from ptychonnx.runtime.formats.conversion.probe_window import fitted_probe, resampled_probe, share_in_middle
from ptychonnx.runtime.formats.conversion.stored_frames import StoredFrames
from ptychonnx.runtime.formats.read_options import ReadOptions
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import LazyAmplitudes, photons, sample_of

__all__ = ["with_pattern_size"]

# Binning halves the window of the object: it must still hold this share of the light.
_LIGHT = 0.99

# Patterns in memory that are padded together.
_TOGETHER = 64


def with_pattern_size(scan: Scan, size: int) -> tuple[Scan, str]:
    """The scan with patterns of `size` pixels, and one line that says what was done to them.

    Larger patterns are binned, which keeps the resolution, as long as the light of the probe fits into the smaller
    window; otherwise their middle is cut out, which makes the pixels of the object larger. Smaller patterns get a
    border of invalid pixels, which makes the pixels of the object smaller. Reference and labels are left out.
    """
    before = scan.size
    if size == before:
        return scan, ""
    if size > before:
        return _padded(scan, size), (
            f"{scan.name}: patterns of {before} x {before} pixels padded to {size} x {size} with invalid pixels; "
            f"pixels of the object are {before / size:.3g} times as large"
        )
    plan = _plan(scan, size)
    smaller = _smaller(scan, plan)
    sample = sample_of(len(scan))
    kept = photons(smaller.diffraction[sample]).sum() / photons(np.asarray(scan.diffraction[sample])).sum()
    steps = []
    if plan.cut < before:
        steps.append(
            f"cropped to {plan.cut} x {plan.cut}, which keeps {100 * kept:.1f} % of the photons; pixels of the object "
            f"are {before / plan.cut:.3g} times as large"
        )
    if plan.rebin > 1:
        steps.append(f"binned by {plan.rebin} to {size} x {size}")
    return smaller, f"{scan.name}: patterns of {before} x {before} pixels {', and '.join(steps)}"


def _plan(scan: Scan, size: int) -> FramePlan:
    """The largest bins whose window holds the light of the probe; one pixel without a probe."""
    shape, where = scan.diffraction.shape, f"{scan.name}: the patterns"
    for factor in range(scan.size // size, 0, -1):
        plan = FramePlan.of(shape, False, ReadOptions(crop=size * factor, rebin=factor), where)
        if factor == 1:
            break
        if scan.probe is not None and share_in_middle(resampled_probe(scan.probe, plan.cut), size) >= _LIGHT:
            break
    return plan


def _smaller(scan: Scan, plan: FramePlan) -> Scan:
    stored = StoredFrames(scan.diffraction, scan.mask, f"{scan.name}: the patterns", "amplitude")
    frames = lazy_frames(stored, plan, "refuse", name=scan.name)
    probe = None if scan.probe is None else fitted_probe(scan.probe, plan)
    return _converted(scan, plan.cut, diffraction=frames.diffraction, mask=frames.mask, probe=probe)


def _padded(scan: Scan, size: int) -> Scan:
    before, first = scan.size, size // 2 - scan.size // 2
    border = ((first, size - before - first),) * 2

    def read(start: int, stop: int) -> NDArray[np.float32]:
        return np.pad(scan.diffraction[start:stop], ((0, 0), *border))

    block = scan.diffraction.block if isinstance(scan.diffraction, LazyAmplitudes) else _TOGETHER
    patterns = LazyAmplitudes((len(scan), size, size), read, block, scan.name)
    mask = np.pad(scan.valid_pixels, border)
    probe = None if scan.probe is None else resampled_probe(scan.probe, size)
    return _converted(scan, size, diffraction=patterns, mask=mask, probe=probe)


def _converted(scan: Scan, cut: int, **changes: Any) -> Scan:
    """The scan with other patterns, mask and probe, on object pixels of which `cut` are as wide as its window was."""
    coarser = scan.size / cut
    # The corner of a window stays where it is on the canvas.
    positions = (scan.positions - scan.size // 2) / coarser + cut // 2
    return replace(
        scan,
        positions=positions,
        reference=None,
        labels=None,
        pixel_size=None if scan.pixel_size is None else scan.pixel_size * coarser,
        **changes,
    )
