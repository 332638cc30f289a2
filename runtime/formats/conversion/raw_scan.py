"""A scan in the conventions of its file, and its conversion into a `Scan`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.stacks import Stack
from ptychonnx.runtime.formats.conversion.direct_beam import detect_direct_beam
from ptychonnx.runtime.formats.conversion.frames import FramePlan, lazy_frames
from ptychonnx.runtime.formats.conversion.scaling import scaled_probe
from ptychonnx.runtime.formats.read_options import METRES, Conventions, ReadOptions
from ptychonnx.runtime.scan import Reference, Scan

__all__ = ["RawScan", "assemble", "from_scan"]

_SIGNS = {"as-is": (1, 1), "flip-row": (-1, 1), "flip-column": (1, -1), "flip-both": (-1, -1)}


@dataclass(frozen=True)
class RawScan:
    """A scan in the conventions of its file; patterns stay in the file.

    Attributes
    ----------
    path
        The file, for messages.
    patterns, patterns_key
        Stack [n, rows, columns] of detector frames, and its key.
    positions, positions_key
        float64 [n, 2] in the file's unit and axis order.
    conventions
        Meaning of the numbers.
    offset
        Point of a window that the format's positions refer to; ours is the pixel [N // 2, N // 2]. ``centre`` is the
        same, ``middle`` (N - 1) / 2, ``corner`` 0.
    absolute
        Whether positions are coordinates that `known_object` or the user refers to. Otherwise only their differences
        are meaningful, and the first window is placed in the corner of the canvas.
    probe
        complex [modes, N, N], in any unit.
    mask
        bool [rows, columns] of the detector, True = valid.
    known_object
        complex [rows, columns]; its pixel [0, 0] is at position (0, 0).
    pixel_size, wavelength
        In metres; the pixel size is that of the object at the full detector (its shorter side).
    hint
        Remedy for bad pixels in this format.
    """

    path: Path
    patterns: Stack
    patterns_key: str
    positions: NDArray[np.float64]
    positions_key: str
    conventions: Conventions
    offset: str = "centre"
    absolute: bool = False
    probe: NDArray[np.complex64] | None = None
    mask: NDArray[np.bool_] | None = None
    known_object: NDArray[np.complex64] | None = None
    pixel_size: float | None = None
    wavelength: float | None = None
    hint: str = ""


def from_scan(scan: Scan, path: Path, conventions: Conventions) -> RawScan:
    """A scan that has been read, so that options can be applied to it; labels are left out."""
    fixed = conventions.unit.reason
    ours = Conventions.of_format("", unit="px", axes="row,column", quantity="amplitude")
    return RawScan(
        path=path,
        patterns=scan.diffraction,
        patterns_key="the patterns",
        positions=scan.positions - (0 if scan.reference is None else np.array(scan.reference.origin)),
        positions_key="the positions",
        conventions=replace(ours, **{n: replace(getattr(ours, n), reason=fixed) for n in vars(ours)}),
        absolute=True,
        probe=scan.probe,
        mask=scan.mask,
        known_object=None if scan.reference is None else scan.reference.object,
        pixel_size=scan.pixel_size,
        wavelength=scan.wavelength,
    )


def assemble(
    raw: RawScan, options: ReadOptions, log: Callable[[str], None], *, estimate: bool = False
) -> Scan:
    """Convert everything to the conventions of `Scan`; patterns stay in the file and are converted on access.

    Parameters
    ----------
    estimate
        See `ptychonnx.runtime.formats.conversion.scaling.scaled_probe`.
    log
        Receives one line per convention and per conversion.

    Raises
    ------
    InputError
        If shapes disagree, or positions are lengths and no pixel size is known. Invalid values are refused when they
        are read, see `ptychonnx.runtime.formats.conversion.frames.lazy_frames`.
    """
    where = f"{raw.path}: {raw.patterns_key}"
    _check(raw, where)
    height, width = raw.patterns.shape[1:]
    conventions = raw.conventions.overridden(options)
    detected = detect_direct_beam(raw.patterns, raw.mask, where)
    for line in conventions.lines():
        doubt = line.startswith("dc:") and options.dc is None and detected.value != conventions.dc.value
        log(f"{line}, but {detected.reason}: is it --dc {detected.value}?" if doubt else line)
    plan = FramePlan.of(raw.patterns.shape, conventions.dc.value == "corner", options, where)
    frames = lazy_frames(
        raw.patterns,
        plan,
        conventions.quantity.value,
        raw.mask,
        options.bad_pixels,
        where,
        raw.hint,
        raw.path.name,
    )
    for note in frames.notes + _frame_notes(options, plan):
        log(note)
    # A detector cut to a part sees lower frequencies only: the pixels of the object grow.
    coarser = min(height, width) / plan.cut
    pixel = options.pixel_size or (None if raw.pixel_size is None else raw.pixel_size * coarser)
    if coarser != 1 and conventions.unit.value == "px":
        log(f"positions: divided by {coarser:g}, since object pixels grow when the detector is cropped")
    positions = _in_pixels(raw, conventions, pixel, coarser) + _offset(raw.offset, plan.cut)
    kept = _keeps_reference(raw, options)
    known = raw.known_object if kept else None
    if raw.known_object is not None and known is None:
        log("known object: left out, since options change its pixels or axes")
    if not (known is not None or raw.absolute) and np.isfinite(positions).all():
        positions = positions - positions.min(axis=0) + plan.size // 2
    scan = Scan(
        diffraction=frames.diffraction,
        positions=np.ascontiguousarray(positions, dtype=np.float64),
        probe=None if raw.probe is None else _fitted_probe(raw.probe, plan),
        mask=frames.mask,
        pixel_size=pixel,
        wavelength=options.wavelength or raw.wavelength,
        name=raw.path.name,
    )
    reference = _reference_under(scan, known, log)
    probe, estimated = scaled_probe(scan, None, reference, estimate=estimate)
    return replace(scan, probe=probe, probe_estimated=estimated, reference=reference)


def _check(raw: RawScan, where: str) -> None:
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


def _in_pixels(
    raw: RawScan, conventions: Conventions, pixel: float | None, coarser: float
) -> NDArray[np.float64]:
    positions = raw.positions.astype(np.float64)
    if conventions.axes.value == "column,row":
        positions = positions[:, ::-1]
    positions = positions * np.array(_SIGNS[conventions.sign.value])
    unit = conventions.unit.value
    if unit == "px":
        return positions / coarser
    if pixel is None:
        raise InputError(
            f"{raw.path}: {raw.positions_key} is in {unit} and the file has no pixel size, expected "
            "--pixel-size in metres"
        )
    return positions * METRES[unit] / pixel


def _offset(place: str, size: int) -> float:
    if place == "middle":
        return 0.5 if size % 2 == 0 else 0.0
    return float(size // 2) if place == "corner" else 0.0


def _keeps_reference(raw: RawScan, options: ReadOptions) -> bool:
    changed = (options.positions_axes, options.positions_sign, options.positions_unit, options.crop)
    return raw.known_object is not None and all(value is None for value in changed)


def _reference_under(
    scan: Scan, known: NDArray[np.complex64] | None, log: Callable[[str], None]
) -> Reference | None:
    """The known object, unless positions lie outside it."""
    if known is None:
        return None
    if (scan.positions < 0).any() or (scan.positions > np.array(known.shape) - 1).any():
        log(f"known object: left out, since positions leave its {known.shape[0]} x {known.shape[1]} pixels")
        return None
    return Reference(known.astype(np.complex64))


def _fitted_probe(probe: NDArray[np.complex64], plan: FramePlan) -> NDArray[np.complex64]:
    """The probe of the full detector, converted to cropped and binned patterns.

    Cropping the detector keeps the low frequencies of the probe, on coarser pixels; binning keeps the middle of the
    window, on the same pixels, and samples frequencies between the original ones.
    """
    if probe.shape[-1] == plan.full and plan.cut != plan.full:
        low = _middle(np.fft.fftshift(np.fft.fft2(probe, norm="ortho"), axes=(-2, -1)), plan.cut)
        probe = np.fft.ifft2(np.fft.ifftshift(low, axes=(-2, -1)), norm="ortho").astype(np.complex64)
    if probe.shape[-1] == plan.cut and plan.rebin > 1:
        # The middle of the direct beam's bin is not the beam itself: in the window, a phase ramp.
        off = (plan.rebin - 1) / 2 - (plan.cut // 2 - plan.rebin * (plan.size // 2))
        ramp = np.exp(-2j * np.pi * off * (np.arange(plan.cut) - plan.cut // 2) / plan.cut)
        probe = _middle(probe * np.outer(ramp, ramp), plan.size)
    return np.ascontiguousarray(probe, dtype=np.complex64)


def _middle(image: NDArray, size: int) -> NDArray:
    rows, columns = (length // 2 - size // 2 for length in image.shape[-2:])
    return image[..., rows : rows + size, columns : columns + size]
