"""Conversion of a `RawScan`, in the conventions of its file, into a `Scan`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.stacks import SelectedStack, unwritten_patterns
from ptychonnx.runtime.formats.conversion.dark_patterns import dark_patterns, kept_patterns
from ptychonnx.runtime.formats.conversion.direct_beam import (
    DirectBeamEstimate,
    estimate_direct_beam,
    without_stuck_pixels,
)
from ptychonnx.runtime.formats.conversion.frame_doubts import frame_doubts
from ptychonnx.runtime.formats.conversion.frames import FramePlan, Frames, lazy_frames
from ptychonnx.runtime.formats.conversion.plausibility import (
    check_far_field,
    check_plausible,
    check_wrapped,
    counts_note,
    covering_reference,
    mask_note,
    positions_note,
)
from ptychonnx.runtime.formats.conversion.probe_window import fitted_probe, probe_of_size
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan
from ptychonnx.runtime.formats.conversion.saturation import saturation_note
from ptychonnx.runtime.formats.conversion.scaling import scaled_probe
from ptychonnx.runtime.formats.conversion.stored_frames import StoredFrames
from ptychonnx.runtime.formats.read_options import METRES, Convention, Conventions, ReadOptions
from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.forward_model import middle_to_centre

__all__ = ["assemble", "positions_in_pixels", "scan_of_frames"]

# Pixels of a frame; the largest detectors have 18 million.
_LARGEST_FRAME = 2**25
# Decimals of positions in pixels that were lengths in the file.
_DECIMALS = 6
_SIGNS = {"as-is": (1, 1), "flip-row": (-1, 1), "flip-column": (1, -1), "flip-both": (-1, -1)}


def assemble(
    raw: RawScan, options: ReadOptions, log: Callable[[str], None], *, estimate: bool = False
) -> Scan:
    """Convert everything to the conventions of `Scan`; patterns stay in the file and are converted on access.

    Raises InputError if shapes disagree, or positions are lengths and no pixel size is known. Invalid values are
    refused when they are read, see `ptychonnx.runtime.formats.conversion.frames.lazy_frames`.

    * `estimate`: see `ptychonnx.runtime.formats.conversion.scaling.scaled_probe`.
    * `log`: receives one line per convention and per conversion.
    """
    where = f"{raw.path}: {raw.patterns_key}"
    for note in raw.notes:
        log(note)
    if options.raster is not None and raw.positions_key != "--raster":
        log("raster: left out, since the file has positions")
    raw = _one_position_each(raw, options, log)
    raw = _without_empty_end(raw, where, log)
    _check(raw, options, where)
    raw = _without(raw, unwritten_patterns(raw.patterns), "never written", where, log)
    stored = StoredFrames(raw.patterns, raw.mask, where)
    raw = replace(raw, mask=without_stuck_pixels(stored, log))
    if note := mask_note(raw.mask):
        log(note)
    height, width = raw.patterns.shape[1:]
    stored = replace(stored, mask=raw.mask)
    rows, columns = _searched(options)
    beam = estimate_direct_beam(replace(stored, rows=rows, columns=columns))
    conventions = _with_direct_beam(raw, options, beam)
    for line in conventions.lines():
        log(line + (_doubt(options, conventions, beam) if line.startswith("dc:") else ""))
    plan = FramePlan.of(raw.patterns.shape, conventions.dc.value == "corner", options, where)
    quantity = conventions.quantity.value
    dark = dark_patterns(replace(stored, quantity=quantity), options.min_photons, beam.pixel[0])
    raw = _without(raw, dark, "without photons" if options.min_photons is None else "too dark", where, log)
    centre = (height // 2, width // 2)
    if conventions.dc.value == beam.place == "centre" and options.crop_centre is None:
        off = max(abs(found - middle) for found, middle in zip(beam.pixel, centre, strict=True))
        if off > (1.5 if options.crop else plan.cut / 8):
            row, column = beam.nearest
            log(
                f"direct beam: taken at {list(centre)}, but {beam.reason}: is it --crop-centre {row} {column}?"
            )
    stored = StoredFrames(raw.patterns, raw.mask, where, quantity, plan.rows, plan.columns)
    frames = lazy_frames(stored, plan, options.bad_pixels, raw.hint, raw.path.name)
    if quantity == "amplitude" and options.quantity is None:
        first = raw.patterns[slice(0, 1), slice(None), slice(None)]
        frames.notes.append(counts_note(first))
    frames.notes.extend([saturation_note(stored), *frame_doubts(stored, beam.nearest)])
    for note in filter(None, frames.notes + _frame_notes(options, plan)):
        log(note)
    return scan_of_frames(raw, frames, plan, conventions, options, log, estimate=estimate)


def scan_of_frames(
    raw: RawScan,
    frames: Frames,
    plan: FramePlan,
    conventions: Conventions,
    options: ReadOptions,
    log: Callable[[str], None],
    *,
    estimate: bool = False,
) -> Scan:
    """The scan of frames that are converted on access, with positions and probe in our conventions.

    Raises InputError if positions are lengths and no pixel size is known, or implausible.

    * `raw`: of its patterns only the shape counts.
    * `frames`, `plan`: from `lazy_frames` and `FramePlan.of`.
    * `conventions`: those of the file, overridden by the options.
    * `log`, `estimate`: see `assemble`.
    """
    height, width = raw.patterns.shape[1:]
    # A detector cut to a part sees lower frequencies only: the pixels of the object grow.
    coarser = min(height, width) / plan.cut
    pixel = options.pixel_size or (None if raw.pixel_size is None else raw.pixel_size * coarser)
    if coarser != 1 and conventions.unit.value == "px":
        log(f"positions: divided by {coarser:g}, since object pixels grow when the detector is cropped")
    wavelength = options.wavelength or raw.wavelength
    where = f"{raw.path}: {raw.positions_key}"
    positions = positions_in_pixels(raw.positions, conventions, pixel, coarser, where)
    positions = positions + _offset(raw.offset, plan.cut)
    check_plausible(raw.path, raw.positions_key, positions, raw.pixel_size, wavelength)
    if note := positions_note(positions, plan.size):
        log(note)
    if options.pixel_size is None:
        check_far_field(raw.path, positions, pixel, raw.wavelength, raw.distance, plan.cut)
    probe = raw.probe
    if probe is not None:
        probe = probe_of_size(
            fitted_probe(probe, plan), plan.size, options.resample_probe, f"{raw.path}: probe", log
        )
    changed = (options.positions_axes, options.positions_sign, options.positions_unit, options.crop)
    known = raw.known_object if all(value is None for value in changed) else None
    if raw.known_object is not None and known is None:
        log("known object: left out, since options change its pixels or axes")
    if not (known is not None or raw.absolute) and np.isfinite(positions).all():
        positions = positions - positions.min(axis=0) + plan.size // 2
    scan = Scan(
        diffraction=frames.diffraction,
        positions=np.ascontiguousarray(positions, dtype=np.float64),
        probe=probe,
        mask=frames.mask,
        pixel_size=pixel,
        wavelength=wavelength,
        name=raw.path.name,
        distance=raw.distance,
    )
    reference = None
    if known is not None:
        reference = covering_reference(Reference(known.astype(np.complex64)), scan.positions, log)
    probe, estimated = scaled_probe(scan, None, reference, estimate=estimate)
    return replace(scan, probe=probe, probe_estimated=estimated, reference=reference)


def _searched(options: ReadOptions) -> tuple[slice, slice]:
    """Part of the frames that may hold the direct beam: around a given centre, or all."""
    if options.crop is None or options.crop_centre is None:
        return slice(None), slice(None)
    half = options.crop // 2
    rows, columns = (
        slice(max(0, middle - half), middle - half + options.crop) for middle in options.crop_centre
    )
    return rows, columns


def _with_direct_beam(raw: RawScan, options: ReadOptions, beam: DirectBeamEstimate) -> Conventions:
    """The conventions, with the direct beam where it was detected if the format does not define it."""
    conventions = raw.conventions.overridden(options)
    if not raw.detect_dc or options.dc:
        return conventions
    height, width = raw.patterns.shape[1:]
    if options.crop_centre is not None:
        return replace(conventions, dc=Convention("centre", "given by the centre of the crop"))
    if beam.place is None:
        return conventions
    if height != width:
        return replace(conventions, dc=Convention("centre", "assumed"))
    return replace(conventions, dc=Convention(beam.place, beam.reason))


def _doubt(options: ReadOptions, conventions: Conventions, beam: DirectBeamEstimate) -> str:
    """Why the direct beam may be elsewhere, and the option that settles it; empty without a doubt."""
    if options.dc is not None or options.crop_centre is not None:
        return ""
    place = conventions.dc.value
    if beam.place is None:
        other = "corner" if place == "centre" else "centre"
        return (
            f", but the mean pattern does not show whether it is there or in the {other}: is it --dc {other}?"
        )
    return "" if beam.place == place else f", but {beam.reason}: is it --dc {beam.place}?"


def _without(
    raw: RawScan, left_out: NDArray[np.bool_], kind: str, where: str, log: Callable[[str], None]
) -> RawScan:
    """The scan without some of its patterns, whose number is reported."""
    if not left_out.any():
        return raw
    kept = kept_patterns(left_out, kind, where, log)
    return replace(
        raw,
        patterns=SelectedStack(raw.patterns, kept),
        positions=raw.positions[kept[kept < len(raw.positions)]],
    )


def _one_position_each(raw: RawScan, options: ReadOptions, log: Callable[[str], None]) -> RawScan:
    """The scan with one position for each pattern: the first ones, or means, if the options say so."""
    n, values = next(iter(raw.patterns.shape), 0), raw.positions
    if values.ndim != 2 or len(values) <= n or not n:
        return raw
    if options.ignore_extra_positions:
        log(f"positions: the first {n} of {len(values)} (given)")
        return replace(raw, positions=values[:n])
    several, rest = divmod(len(values), n)
    if rest or not options.average_positions:
        remedy = (
            f"--ignore-extra-positions takes the first {n}"
            if rest
            else f"--average-positions averages {several} consecutive ones"
        )
        raise InputError(
            f"{raw.path}: {raw.positions_key} has shape {values.shape}, expected {(n, 2)}, one for each pattern: "
            f"{remedy}"
        )
    log(f"positions: mean of {several} consecutive ones for each pattern (given)")
    return replace(raw, positions=values.reshape(n, several, -1).mean(axis=1))


def _without_empty_end(raw: RawScan, where: str, log: Callable[[str], None]) -> RawScan:
    """The scan without the patterns behind the last position, if nothing was written there, as a scan that was ended
    early leaves them in a file of the planned size.
    """
    n, recorded = next(iter(raw.patterns.shape), 0), len(raw.positions)
    whole = slice(None), slice(None)
    if not 0 < recorded < n or len(raw.patterns.shape) != 3:
        return raw
    if any(np.any(raw.patterns[slice(index, index + 1), *whole]) for index in range(recorded, n)):
        return raw
    return _without(raw, np.arange(n) >= recorded, "never written", where, log)


def _check(raw: RawScan, options: ReadOptions, where: str) -> None:
    shape = raw.patterns.shape
    if len(shape) != 3:
        raise InputError(f"{where} has shape {shape}, expected square patterns [n, N, N]")
    if 0 in shape:
        raise InputError(f"{where} has shape {shape}: the scan is empty, expected a pattern")
    if raw.positions.shape != (shape[0], 2):
        raise InputError(
            f"{raw.path}: {raw.positions_key} has shape {raw.positions.shape}, expected {(shape[0], 2)}, one for "
            f"each pattern of {raw.patterns_key}"
        )
    check_wrapped(f"{raw.path}: {raw.positions_key}", raw.positions)
    if shape[1] * shape[2] > _LARGEST_FRAME and options.crop is None:
        raise InputError(
            f"{where} has frames of {shape[1]} x {shape[2]} pixels, expected at most {_LARGEST_FRAME} pixels, or a "
            "part of them: --crop"
        )


def _frame_notes(options: ReadOptions, plan: FramePlan) -> list[str]:
    notes = []
    if options.crop is not None:
        centre = "" if options.crop_centre is None else f" around {list(options.crop_centre)}"
        notes.append(f"crop: {plan.cut} x {plan.cut} pixels{centre} (given)")
    if options.orientation != "identity":
        notes.append(f"orientation: {options.orientation} (given)")
    if options.rebin > 1:
        notes.append(f"rebin: {options.rebin} x {options.rebin} pixels, photons summed (given)")
    return notes


def positions_in_pixels(
    positions: NDArray, conventions: Conventions, pixel: float | None, coarser: float, where: str
) -> NDArray[np.float64]:
    """Positions [n, 2] in the unit, order and sign of a file as (row, column) in object pixels.

    Raises InputError if positions are lengths and the pixel size is unknown; `where` (file and key) begins the message.

    * `pixel`: object pixel size after cropping, in metres.
    * `coarser`: factor by which cropping enlarges the pixels of the object.
    """
    positions = positions.astype(np.float64)
    if conventions.axes.value == "column,row":
        positions = positions[:, ::-1]
    positions = positions * np.array(_SIGNS[conventions.sign.value])
    unit = conventions.unit.value
    if unit == "px":
        return positions / coarser
    if pixel is None:
        raise InputError(
            f"{where} is in {unit} and the file has no pixel size, expected --pixel-size in metres"
        )
    # Metres hold no whole pixels, and the last digits would choose among neighbours that are equally far.
    return np.round(positions * METRES[unit] / pixel, _DECIMALS)


def _offset(place: str, size: int) -> float:
    if place == "middle":
        return middle_to_centre(size)
    return float(size // 2) if place == "corner" else 0.0
