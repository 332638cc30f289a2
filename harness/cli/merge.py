"""`ptychonnx merge`: from the parts of a scan to its object."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.harness.cli.console import print_result, report_progress
from ptychonnx.runtime.formats.writers.reconstruction_file import check_product, write_reconstruction
from ptychonnx.runtime.sharding import merge_parts

__all__ = ["merge"]

_logger = logging.getLogger(__name__)


def merge(
    parts: Annotated[
        list[Path],
        typer.Argument(
            help="Part files of `reconstruct --shard`, all of one scan, in any order.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="File for the object: .h5 (ptychodus product), .cxi, .npz, or .tif (two images)."),
    ],
    canvas_memory: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1e9,
            metavar="GB",
            help="Largest canvas in memory, in gigabytes; a larger one is kept on disk. Default: a quarter of the "
            "memory.",
        ),
    ] = None,
) -> None:
    """Add the **parts** of a scan that several processes reconstructed; the object is that of one process, bit for bit.

    Example: `ptychonnx merge parts/*.h5 --out object.h5`
    """
    check_product(out)
    memory = None if canvas_memory is None else int(1e9 * canvas_memory)
    with report_progress() as progress:
        merged = merge_parts(parts, progress, canvas_memory=memory)
    result = merged.reconstruction
    (path, *others) = write_reconstruction(out, result, merged.scan, merged.contract)
    rows, columns = result.stitched.shape
    lines = [
        f"{rows} x {columns} pixels from {result.patterns} patterns in {len(parts)} parts, weighting {result.weighting}"
    ]
    if result.skipped:
        lines.append(result.skipped_text)
    print_result(path, [*map(str, others), *lines])
    if result.position_doubt:
        _logger.warning("%s", result.position_doubt)
