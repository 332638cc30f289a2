"""Judge reconstructions of a scan: one region for all, comparison with the reference, confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from ptychonnx.harness.evaluation.results import EvaluationRow, ScanResult, ScanSummary
from ptychonnx.harness.metrics.alignment import apply_alignment
from ptychonnx.harness.metrics.alignment_notes import alignment_note
from ptychonnx.harness.metrics.bootstrap import Confidence, bootstrap_confidence
from ptychonnx.harness.metrics.comparison import Comparison, bootstrap_sample, compare
from ptychonnx.harness.metrics.ptychopinn_profile import PtychoPinnComparison, compare_as_ptychopinn
from ptychonnx.harness.metrics.reference_placement import reference_on_canvas
from ptychonnx.harness.metrics.region import Rectangle, RegionRule, declare_region
from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.reconstruction.trust import beam_warnings
from ptychonnx.runtime.scan import Scan

__all__ = ["EvaluateOptions", "confidence_of_rows", "judge_reconstruction", "summarise"]

# PtychoPINN's SSIM uses a window of 7 x 7 pixels.
_SMALLEST_FOR_PTYCHOPINN = 7


@dataclass(frozen=True, config=ConfigDict(extra="forbid", title="Comparison"))
class EvaluateOptions:
    """What is removed before a reconstruction is compared, and which metrics are added."""

    plane: bool = Field(
        default=False,
        description="Remove a phase ramp before comparing",
        json_schema_extra={"flag": "--plane/--no-plane"},
    )
    register: bool = Field(
        default=False,
        description="Remove a sub-pixel shift before comparing",
        json_schema_extra={"flag": "--register/--no-register"},
    )
    ptychopinn: bool = Field(
        default=False,
        description="Also report the metrics as PtychoPINN defines them",
        json_schema_extra={"flag": "--ptychopinn/--no-ptychopinn"},
    )
    halves: bool = Field(
        default=False,
        description="Also reconstruct two interleaved halves of the scan, and say up to which detail they agree",
        json_schema_extra={"flag": "--halves/--no-halves"},
    )


def summarise(
    scan: Scan, reconstructions: Sequence[Reconstruction], rule: RegionRule | None = None
) -> ScanSummary:
    """Place the reference on the canvas and declare the region that all reconstructions share."""
    # The canvas follows from positions and N alone, so it is the same for every reconstruction.
    stitched = reconstructions[0].stitched
    rows, columns = stitched.object.shape
    covered: NDArray[np.bool_] = np.logical_and.reduce(
        [reconstruction.stitched.covered for reconstruction in reconstructions]
    )
    reference = placement = None
    if scan.reference is not None:
        reference, known, placement = reference_on_canvas(scan.reference, (rows, columns), stitched.origin)
        covered &= known
    region, record = declare_region(scan, covered, stitched.origin, rule)
    return ScanSummary(
        name=scan.name,
        patterns=len(scan),
        size=scan.size,
        probe_known=scan.probe is not None,
        reference=reference,
        region=region,
        region_record=record,
        placement=placement,
        pixel_size=scan.pixel_size,
    )


def judge_reconstruction(
    reconstruction: Reconstruction,
    scan: Scan,
    summary: ScanSummary,
    contract: Contract | None,
    options: EvaluateOptions,
) -> ScanResult:
    """Compare one reconstruction with the reference of its scan, if there is one.

    `contract`: contract of the network that took part, if any.
    """
    image = reconstruction.stitched.object
    notes = _notes(reconstruction, scan, contract)
    comparison = profile = None
    if summary.reference is None:
        notes.append("no reference: reconstructed, not compared")
    else:
        comparison = compare(
            image,
            summary.reference,
            summary.region,
            plane=options.plane,
            register=options.register,
            pixel_size=summary.pixel_size,
        )
        if comparison.alignment is not None:
            if not (options.plane or options.register):
                # Tried on what was reconstructed, and never applied.
                note = alignment_note(image, summary.reference, summary.region)
                notes += [] if note is None else [note]
            if options.ptychopinn:
                profile = _ptychopinn_profile(image, summary.reference, comparison, notes)
            image = apply_alignment(image, comparison.alignment).astype(np.complex64)
    if reconstruction.misfit is not None:
        notes.append(str(reconstruction.misfit))
    elif reconstruction.position_doubt:
        notes.append(reconstruction.position_doubt)
    return ScanResult(
        object=image,
        covered=reconstruction.stitched.covered,
        weighting=reconstruction.weighting,
        placement=reconstruction.placement,
        synchronised=reconstruction.synchronised,
        inference_seconds=reconstruction.inference_seconds,
        stitching_seconds=reconstruction.stitching_seconds,
        patterns=reconstruction.patterns,
        requests=reconstruction.requests,
        comparison=comparison,
        ptychopinn=profile,
        notes=tuple(notes),
        misfit=reconstruction.misfit,
        position_doubt=reconstruction.position_doubt,
    )


def confidence_of_rows(summary: ScanSummary, rows: Sequence[EvaluationRow]) -> Confidence | None:
    """Confidence intervals of all reconstructions of a scan that were compared with its reference."""
    if summary.reference is None:
        return None
    samples = {}
    for row in rows:
        result = row.results[summary.name]
        if result.comparison is not None and result.comparison.alignment is not None:
            samples[row.label] = bootstrap_sample(
                result.object, summary.reference, summary.region, result.comparison
            )
    return bootstrap_confidence(samples)


def _notes(reconstruction: Reconstruction, scan: Scan, contract: Contract | None) -> list[str]:
    notes = []
    if contract is not None:
        notes += beam_warnings(scan, contract)
    if reconstruction.requests is not None and len(reconstruction.requests.versions) > 1:
        versions = " and ".join(reconstruction.requests.versions)
        notes.append(f"the server changed the model during the scan: versions {versions} answered")
    if reconstruction.skipped:
        notes.append(reconstruction.skipped_text)
    if reconstruction.refinement:
        notes.append(reconstruction.refinement)
    return notes


def _ptychopinn_profile(
    image: NDArray[np.complex64],
    reference: NDArray[np.complex64],
    comparison: Comparison,
    notes: list[str],
) -> PtychoPinnComparison | None:
    rectangle = Rectangle(*comparison.rectangle_px)
    if min(rectangle.shape) < _SMALLEST_FOR_PTYCHOPINN:
        notes.append("ptychopinn profile: the rectangle is too small")
        return None
    return compare_as_ptychopinn(image[rectangle.slices], reference[rectangle.slices])
