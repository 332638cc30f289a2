"""Objects that other programs reconstructed, as rows of an evaluation: read, placed, registered and explained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.evaluation.resampling import read_resampled
from ptychonnx.harness.evaluation.results import EvaluationRow, ScanResult
from ptychonnx.harness.metrics.alignment import apply_ramp, fit_ramp, fit_shift
from ptychonnx.harness.metrics.convolution import convolve
from ptychonnx.harness.metrics.periodicity import periods_of
from ptychonnx.harness.metrics.reference_placement import reference_on_canvas
from ptychonnx.harness.metrics.region import declare_region, largest_rectangle
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_reference
from ptychonnx.runtime.formats.readers.objects import read_object
from ptychonnx.runtime.formats.readers.probe import read_probe
from ptychonnx.runtime.formats.readers.reference import OtherPixels, UnplacedObject
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.reconstruction.misfit import Misfit, forward_misfit, object_windows
from ptychonnx.runtime.reconstruction.stitching import Stitched, canvas_layout
from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.amplitudes import photons, sample_of
from ptychonnx.runtime.scan.forward_model import illumination

__all__ = ["ObjectMethod", "open_object"]

# Interpolation changes an image more than a smaller shift does.
_LEAST_SHIFT_PX = 0.1
# A larger part of the image is no misplacement, but a false peak of the correlation.
_LARGEST_SHIFT = 1 / 8
# Other programs keep objects and probes in units of their own: photons beyond this factor are another unit.
_SAME_UNIT = 2.0


@dataclass(frozen=True)
class ObjectMethod:
    """An object from a file, which was reconstructed elsewhere.

    * `label`, `file`: label of the row, and name of the file.
    * `reconstruction`: the object on the canvas of the scan, with its misfit.
    * `notes`: how it was placed and registered, and which probe explains it.
    """

    label: str
    file: str
    reconstruction: Reconstruction
    notes: tuple[str, ...]

    @property
    def contract(self) -> None:
        """None, since the program that made the object is unknown."""
        return None

    def reconstruct(
        self, scan: Scan, earlier: Mapping[str, Reconstruction], progress: Progress = SILENT
    ) -> Reconstruction:
        """The object of the file; nothing is computed."""
        return self.reconstruction

    def row(self, results: dict[str, ScanResult]) -> EvaluationRow:
        """Row without contract, parity and times."""
        return EvaluationRow(
            self.label, self.file, None, "another program", results, self.notes, kind="object"
        )


def open_object(label: str, path: StrPath, scan: Scan) -> ObjectMethod:
    """Read an object and place it on the canvas of a scan.

    The object lies where its own file puts it. If the scan has a reference, a remaining shift of more than a tenth of a
    pixel is removed, since a probe that was refined together with the object leaves it undetermined. An object without
    geometry (TIFF, NPY) is placed where it correlates best with the reference. One of other pixels is resampled.

    Raises InputError if the file holds no object, the size of its pixels is not plausible, or it lies elsewhere.
    """
    path = Path(path)
    resampling = ""
    try:
        found, place = read_reference(path, scan), "placed by its own geometry"
    except OtherPixels as error:
        found, resampling = read_resampled(path, scan, error)
        place = f"placed by its own geometry, {resampling}"
    except UnplacedObject as error:
        if scan.reference is None:
            raise InputError(
                f"{error}: without a place in the file, an object needs a scan with a reference"
            ) from error
        values = read_object(path).values
        # Programs leave NaN, like 0, where they know nothing.
        image = np.where(np.isfinite(values), values, 0)
        if not image.any():
            raise InputError(f"{path}: the object is empty, expected values other than 0") from error
        found = _by_correlation(image, scan.reference)
        place = "without geometry: placed where it correlates best with the reference"
    origin, shape = canvas_layout(scan.positions, scan.size)
    probe = None if resampling else _own_probe(path, scan.size)
    misfit, probe_note = _explained(found, probe, scan)
    shift, note = _registration(found, scan, origin, shape)
    moved = replace(found, origin=(found.origin[0] + shift[0], found.origin[1] + shift[1]))
    image, known, _ = reference_on_canvas(moved, shape, origin)
    # Programs leave 0 where they know nothing.
    known &= image != 0
    stitched = Stitched(np.where(known, image, 0).astype(np.complex64), known.astype(np.float64), origin)
    if not known.any():
        raise InputError(
            f"{path}: the object does not overlap with {scan.name}, expected one of the same scan"
        )
    reconstruction = Reconstruction(stitched, "none", len(scan), 0.0, 0.0, placement="none", misfit=misfit)
    return ObjectMethod(
        label, path.name, reconstruction, tuple(filter(None, (f"{place}; {note}", probe_note)))
    )


def _explained(
    found: Reference, probe: NDArray[np.complex64] | None, scan: Scan
) -> tuple[Misfit | None, str]:
    """Misfit of the object on its own pixels with its own probe, and which probe that was.

    Object and probe of a program belong together: factors, shifts and ramps may be in either.
    """
    whose = "its own probe"
    if probe is None:
        probe, whose = scan.settled().probe, "the probe of the scan"
    if probe is None:
        return None, ""
    stitched = Stitched(found.object, (found.object != 0).astype(np.float64), found.origin)
    sample = sample_of(len(scan))
    windows = object_windows(stitched, scan.positions[sample], scan.size)
    # In double precision, since objects of other programs have any scale.
    predicted = float(np.sum(np.abs(windows.astype(np.complex128)) ** 2 * illumination(probe)))
    ratio = float(np.sum(photons(np.asarray(scan.diffraction[sample])))) / predicted if predicted else 1.0
    note = f"forward misfit with {whose}"
    if np.sqrt(ratio) * np.abs(probe).max() > np.finfo(np.float32).max:
        raise InputError(
            f"{scan.name}: an object of amplitudes like {abs(found.object).max():.1g} predicts no photons"
        )
    if whose != "its own probe" or not 1 / _SAME_UNIT < ratio < _SAME_UNIT:
        probe = probe * np.float32(np.sqrt(ratio))
        note += f", whose amplitude was multiplied by {np.sqrt(ratio):.3g} to match the photons"
    scan = replace(scan, probe=probe.astype(np.complex64), probe_estimated=False)
    return forward_misfit(scan, stitched), note


def _own_probe(path: Path, size: int) -> NDArray[np.complex64] | None:
    """The probe next to the object in its file, if there is one for windows of this size."""
    try:
        probe = read_probe(path)
    except InputError:
        return None
    usable = probe.shape[-2:] == (size, size) and np.isfinite(probe).all() and np.any(probe)
    return probe if usable else None


def _registration(
    found: Reference, scan: Scan, origin: tuple[float, float], shape: tuple[int, int]
) -> tuple[tuple[float, float], str]:
    """Shift that moves an object onto the reference of the scan, and what to say about it."""
    if scan.reference is None:
        return (0.0, 0.0), "not registered, since the scan has no reference"
    image, known, _ = reference_on_canvas(found, shape, origin)
    fixed, certain, _ = reference_on_canvas(scan.reference, shape, origin)
    region, record = declare_region(scan, known & certain & (image != 0), origin)
    # A ramp would blur the peak of the correlation; it is removed for the estimate alone.
    flat = apply_ramp(image.astype(np.complex128), fit_ramp(image, fixed, region))
    shift = fit_shift(flat, fixed, region)
    distance = max(map(abs, shift))
    top, bottom, left, right = record.rectangle_px
    text = f"({shift[0]:+.2f}, {shift[1]:+.2f}) pixels"
    for period in periods_of(fixed[largest_rectangle(region).slices])[:1]:
        text += f" (the reference repeats itself after ({period[0]}, {period[1]}): known up to that)"
    if not distance <= _LARGEST_SHIFT * min(bottom - top, right - left):
        return (
            0.0,
            0.0,
        ), f"the correlation with the reference peaks at a shift of {text}, too far: not shifted"
    if distance <= _LEAST_SHIFT_PX:
        return (0.0, 0.0), f"agrees with the reference to {text}: not shifted"
    return shift, f"registered: shifted by {text} onto the reference"


def _by_correlation(image: NDArray[np.complex64], reference: Reference) -> Reference:
    """An object of unknown place where it correlates best with the reference, to whole pixels."""

    def centred(values: NDArray[np.complex64]) -> NDArray[np.complex128]:
        known = values != 0
        return np.where(known, values - values[known].mean(dtype=np.complex128), 0)

    fixed, moving = centred(reference.object), centred(image)
    correlation = np.abs(convolve(fixed, moving[::-1, ::-1].conj()))
    peak = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
    row, column = (
        float(start + place - length + 1)
        for start, place, length in zip(reference.origin, peak, image.shape, strict=True)
    )
    return Reference(image, (row, column))
