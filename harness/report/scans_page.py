"""Page of many scans: a table of their objects or reports, with the forward misfit of each."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.campaign.manifest import ScanRecord
from ptychonnx.harness.report.page_images import ImageStrip, image_strip
from ptychonnx.harness.report.page_template import render
from ptychonnx.harness.report.quantity_images import Panel, quantity_images
from ptychonnx.runtime.errors import first_line
from ptychonnx.runtime.formats.containers.hdf5_links import open_hdf5
from ptychonnx.runtime.reconstruction.misfit import VERDICTS

__all__ = ["ScanRow", "render_scans", "scan_row", "thumbnail"]

# Pixels along the longer side of a thumbnail, and rows of blocks of an object that are in memory at a time.
_SIDE = 192
_BAND = 16
# Pixels with less than this share of the largest weight are noise at the border of the scan.
_DARK = 0.02


@dataclass(frozen=True)
class ScanRow:
    """A row of the table.

    * `record`: what the manifest knows of the scan.
    * `images`: thumbnails of amplitude and phase; empty if there is no object.
    * `error`: why there is none; empty otherwise.
    * `report`: address of the report of an evaluation, relative to the page; empty otherwise.
    """

    record: ScanRecord
    images: tuple[ImageStrip, ...]
    error: str
    report: str = ""

    @property
    def rank(self) -> int:
        """Place in the order of verdicts, the best first."""
        return VERDICTS.index(self.record.verdict) if self.record.verdict else len(VERDICTS)


def scan_row(folder: Path, record: ScanRecord) -> ScanRow:
    """The row of one scan; its object is read in bands, whatever its size."""
    if record.error is not None:
        return ScanRow(record, (), record.error)
    if (folder / record.result).is_dir():
        return ScanRow(record, (), "", f"{quote(record.result)}/report.html")
    try:
        with ExitStack() as stack:
            image = thumbnail(open_hdf5(folder / record.result, stack))
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError, MemoryError) as error:
        return ScanRow(record, (), f"{record.result} cannot be read ({first_line(error)})")
    region = np.isfinite(image)
    quantities = quantity_images(None, region, [Panel(record.result, np.where(region, image, 0))])
    return ScanRow(record, tuple(map(image_strip, quantities)), "")


def render_scans(rows: Iterable[ScanRow], title: str) -> str:
    """HTML of the page; rows in the order of the table."""
    rows = list(rows)
    labels = sorted({label for row in rows for label in row.record.ssim})
    return render("scans.html.j2", {}, rows=rows, labels=labels, title=title)


def thumbnail(file: h5py.File) -> NDArray[np.complex128]:
    """Means over blocks of an object, complex [rows, columns]; NaN where no or hardly any light was."""
    stored, weight = file["object"], file["weight"]
    block = -(-max(stored.shape) // _SIDE)
    values, weights = [], []
    for start in range(0, stored.shape[0], block * _BAND):
        rows = slice(start, start + block * _BAND)
        band = weight[rows].astype(np.float64)
        values.append(_sums(stored[rows] * band, block))
        weights.append(_sums(band, block))
    total = np.concatenate(weights)
    lit = total > _DARK * total.max()
    return np.divide(np.concatenate(values), total, out=np.full(total.shape, np.nan, complex), where=lit)


def _sums(values: NDArray, block: int) -> NDArray:
    """Sums over blocks of pixels; those at the end may be smaller."""
    rows = np.add.reduceat(values, np.arange(0, values.shape[0], block), axis=0)
    return np.add.reduceat(rows, np.arange(0, values.shape[1], block), axis=1)
