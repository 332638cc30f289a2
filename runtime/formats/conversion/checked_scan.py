"""Checks of scans whose files need no conversion; other scans pass the same ones in `assembly`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.conversion.dark_patterns import dark_patterns, kept_patterns, refuse_dark
from ptychonnx.runtime.formats.conversion.direct_beam import estimate_direct_beam
from ptychonnx.runtime.formats.conversion.frame_doubts import frame_doubts
from ptychonnx.runtime.formats.conversion.plausibility import (
    check_plausible,
    check_wrapped,
    counts_note,
    covering_reference,
    mask_note,
    positions_note,
)
from ptychonnx.runtime.formats.conversion.saturation import saturation_note
from ptychonnx.runtime.formats.conversion.stored_frames import StoredFrames
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import LazyAmplitudes

__all__ = ["checked_scan"]

# A direct beam farther from the centre than this part of the frame is named.
_OFF_CENTRE = 1 / 8


def checked_scan(scan: Scan, path: Path, log: Callable[[str], None]) -> Scan:
    """The scan without patterns that hold no photon; `log` receives what was left out and what is doubtful.

    Raises InputError on positions, pixel sizes or wavelengths that no experiment has, or if no pattern holds a photon.
    """
    where = f"{path}: diffraction"
    check_wrapped(f"{path}: positions", scan.positions)
    check_plausible(path, "positions", scan.positions, scan.pixel_size, scan.wavelength)
    if note := positions_note(scan.positions, scan.size):
        log(note)
    if scan.reference is not None:
        scan = replace(scan, reference=covering_reference(scan.reference, scan.positions, log))
    stored = StoredFrames(scan.diffraction, scan.mask, where, "amplitude")
    if isinstance(scan.diffraction, LazyAmplitudes):
        # An invalid pattern of the sample is named when it is read.
        with suppress(InputError):
            _doubts(stored, log)
        return replace(scan, diffraction=_lit(scan.diffraction, where, scan.name))
    _doubts(stored, log)
    dark = dark_patterns(stored, None, scan.size // 2)
    return scan.subset(kept_patterns(dark, "without photons", where, log)) if dark.any() else scan


def _doubts(stored: StoredFrames, log: Callable[[str], None]) -> None:
    """Say so if patterns look like counts or saturated, or the direct beam is elsewhere than in the centre."""
    notes = [mask_note(stored.mask), counts_note(stored.stack[0])]
    beam = estimate_direct_beam(stored)
    size = stored.stack.shape[-1]
    centre = size // 2
    off = max(abs(place - centre) for place in beam.pixel)
    if beam.place == "corner" or (beam.place == "centre" and off > _OFF_CENTRE * size):
        remedy = "--dc corner" if beam.place == "corner" else "--crop with --crop-centre"
        notes.append(f"direct beam: taken at {[centre, centre]}, but {beam.reason}: is it {remedy}?")
    for note in filter(None, [*notes, saturation_note(stored), *frame_doubts(stored, beam.nearest)]):
        log(note)


def _lit(diffraction: LazyAmplitudes, where: str, name: str) -> LazyAmplitudes:
    """The same patterns, of which one without photons is refused when it is read."""

    def read(start: int, stop: int) -> NDArray[np.float32]:
        patterns = diffraction[start:stop]
        refuse_dark(patterns, where, start)
        return patterns

    return LazyAmplitudes(diffraction.shape, read, diffraction.block, name)
