"""Two halves of a scan, reconstructed independently: the detail on which they agree, without a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.evaluation.results import ScanSummary
from ptychonnx.harness.metrics.comparison import Comparison, compare
from ptychonnx.harness.metrics.reference_placement import reference_on_canvas
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.reconstruction.stitching import canvas_layout
from ptychonnx.runtime.scan import Reference, Scan

__all__ = ["agreement_of_halves", "check_halves", "halves_of"]


def check_halves(scan: Scan, channels: int) -> None:
    """Refuse a scan with fewer than `channels` patterns, or one, in a half."""
    if len(scan) // 2 < channels:
        raise InputError(
            f"{scan.name}: --halves leaves {len(scan) // 2} patterns in a half, expected at least {channels}"
        )


def halves_of(scan: Scan) -> tuple[Scan, Scan]:
    """The patterns of even and of odd numbers, which share no photon."""
    first, second = (scan.subset(slice(start, None, 2)) for start in (0, 1))
    return replace(first, name=f"{scan.name}, first half"), replace(second, name=f"{scan.name}, second half")


def agreement_of_halves(
    scan: Scan, summary: ScanSummary, halves: Sequence[Mapping[str, Reconstruction]]
) -> dict[str, Comparison]:
    """The second half compared with the first, for each method that reconstructed both.

    Compared are the pixels of the region of the evaluation that both halves of every method cover, after one complex
    factor. Noise of the two is independent, but what a network adds to every image is in both: agreement is a limit on
    the detail that the data support, and no proof that the object is right.

    Raises InputError if the halves have no pixel in common.
    """
    origin, shape = canvas_layout(scan.positions, scan.size)
    images: dict[str, list[NDArray[np.complex64]]] = {}
    region = summary.region
    for half in halves:
        for label, reconstruction in half.items():
            stitched = reconstruction.stitched
            image, known, _ = reference_on_canvas(Reference(stitched.object, stitched.origin), shape, origin)
            covered, _, _ = reference_on_canvas(
                Reference(stitched.covered.astype(np.complex64), stitched.origin), shape, origin
            )
            region = region & known & (covered.real > 0)
            images.setdefault(label, []).append(image)
    if not region.any():
        raise InputError(
            f"{scan.name}: its halves have no pixel in common, expected more overlap for --halves"
        )
    return {
        label: compare(pair[1], pair[0], region, pixel_size=scan.pixel_size)
        for label, pair in images.items()
        if len(pair) == 2
    }
