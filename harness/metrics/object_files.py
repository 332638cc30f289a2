"""Comparison of the objects in two files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptychonnx.harness.metrics.alignment_notes import alignment_note
from ptychonnx.harness.metrics.comparison import Comparison, compare
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.readers.objects import SAME_PIXELS, read_object
from ptychonnx.runtime.paths import StrPath

__all__ = ["FileComparison", "compare_files"]


@dataclass(frozen=True)
class FileComparison:
    """Metrics of the first object against the second.

    * `comparison`: the metrics and the alignment that was applied.
    * `note`: the alignment that was not applied, but would change what the metrics say; None if there is none.
    """

    comparison: Comparison
    note: str | None


def compare_files(
    reconstruction: StrPath,
    reference: StrPath,
    *,
    plane: bool = False,
    register: bool = False,
    margin: int = 0,
) -> FileComparison:
    """Compare the objects in two files, of any program.

    Raises InputError if a file cannot be read, or shapes or pixel sizes differ.

    * `reconstruction`, `reference`: see `ptychonnx.runtime.formats.readers.objects`. Both have the same pixels.
    * `plane`, `register`: also remove a phase ramp, or a sub-pixel shift, before the comparison.
    * `margin`: pixels at each border that are not compared.

    Returns the comparison on the pixels where both objects are finite and not 0.
    """
    first, second = read_object(reconstruction), read_object(reference)
    if first.values.shape != second.values.shape:
        raise InputError(
            f"{reconstruction}: the object is {first.values.shape} and that of {reference} {second.values.shape}, "
            "expected the same pixels: `ptychonnx evaluate` places objects by their scan"
        )
    sizes = [size for size in (first.pixel_size, second.pixel_size) if size is not None]
    if len(sizes) == 2 and abs(sizes[0] - sizes[1]) > SAME_PIXELS * sizes[1]:
        raise InputError(
            f"{reconstruction}: its pixels are {sizes[0]:.4g} m and those of {reference} {sizes[1]:.4g} m, expected "
            "one size"
        )
    region = np.isfinite(first.values) & np.isfinite(second.values)
    region &= (first.values != 0) & (second.values != 0)
    if margin:
        inside = np.zeros_like(region)
        inside[margin:-margin, margin:-margin] = True
        region &= inside
    if not region.any():
        raise InputError(
            f"{reconstruction}: no pixel is known there and in {reference}, expected a common region"
        )
    comparison = compare(
        first.values,
        second.values,
        region,
        plane=plane,
        register=register,
        pixel_size=sizes[0] if sizes else None,
    )
    note = None if plane or register else alignment_note(first.values, second.values, region)
    return FileComparison(comparison, note)
