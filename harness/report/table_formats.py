"""Comparison table for other programs: CSV for a spreadsheet, Markdown for a paper or a README.

The JSON format is that of `metrics.json`: `ptychonnx.harness.evaluation.results.Evaluation.to_json`.
"""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from ptychonnx.harness.evaluation.results import Evaluation, EvaluationRow, ScanResult
from ptychonnx.harness.metrics.bootstrap import METRICS
from ptychonnx.harness.metrics.comparison import MetricSet
from ptychonnx.harness.report.terminal_table import format_value

__all__ = ["as_csv", "as_markdown"]

_QUANTITIES = ("amplitude", "phase")
_PLAIN = (
    "mae",
    "mse",
    "psnr",
    "data_range",
    "ssim",
    "ms_ssim",
    "ms_ssim_scales",
    "pearson",
    "contrast_ratio",
)
_THRESHOLDS = ("half", "seventh", "two_sigma")


def as_csv(evaluation: Evaluation) -> str:
    """CSV with a heading and one line per row and scan; docs/reference/metrics.md lists the columns.

    Undefined values are empty. An FRC cut-off is ``inf`` if the curve never falls below the threshold.
    """
    stream = io.StringIO()
    records = [
        _record(evaluation, row, scan, result)
        for row in evaluation.rows
        for scan, result in row.results.items()
    ]
    writer = csv.DictWriter(stream, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


def as_markdown(evaluation: Evaluation) -> str:
    """Markdown table with one line per row and scan, and a line that explains the columns.

    Numbers in brackets are the limits of the 95 % interval.
    """
    several = len(evaluation.scans) > 1
    heads = ["artifact", *(["scan"] if several else []), "parity"]
    for letter in ("A", "P"):
        heads += [f"{letter} SSIM", f"{letter} r", f"{letter} MAE", f"{letter} PSNR", f"{letter} FRC 0.5"]
    heads += ["ms per pattern"]
    left = 2 if several else 1
    lines = [_line(heads), _line([":---"] * left + ["---:"] * (len(heads) - left))]
    for row in evaluation.rows:
        for scan, result in row.results.items():
            label = row.label + (" (collapsed)" if result.collapsed else "")
            parity = "–" if row.parity is None else f"{row.parity.max_relative_error:.1e}"
            cells = [label, *([scan] if several else []), parity]
            for name in _QUANTITIES:
                cells += _markdown_metrics(result, name, evaluation.intervals(row, scan))
            lines.append(_line([*cells, f"{result.ms_per_pattern:.2f}"]))
    note = (
        "A: amplitude, P: phase (rad); r: Pearson correlation; PSNR in dB with the range of the reference as peak; "
        "FRC 0.5: cycles per pixel; parity: largest relative error against the native network; brackets: 95 % "
        "interval over tiles of the image; –: not defined."
    )
    return "\n".join([*lines, "", note, ""])


def _record(evaluation: Evaluation, row: EvaluationRow, scan: str, result: ScanResult) -> dict[str, Any]:
    contract, found = row.contract, result.comparison
    alignment = None if found is None else found.alignment
    shift = (None, None) if alignment is None or alignment.shift_px is None else alignment.shift_px
    ramp = (
        (None, None)
        if alignment is None or alignment.ramp_rad_per_pixel is None
        else alignment.ramp_rad_per_pixel
    )
    record: dict[str, Any] = {
        "label": row.label,
        "kind": row.kind,
        "file": row.name,
        "scan": scan,
        "architecture": None if contract is None else contract.architecture,
        "precision": None if contract is None else contract.conversion.precision,
        "provider": row.provider,
        "parity_max_relative_error": None if row.parity is None else row.parity.max_relative_error,
        "collapsed": None if found is None else str(found.collapsed).lower(),
        "pixels": None if found is None else found.pixels,
        "scale": None if alignment is None else alignment.scale,
        "phase_rad": None if alignment is None else alignment.phase_rad,
        "shift_rows_px": shift[0],
        "shift_columns_px": shift[1],
        "ramp_rows_rad_per_px": ramp[0],
        "ramp_columns_rad_per_px": ramp[1],
    }
    intervals = evaluation.intervals(row, scan)
    for name in _QUANTITIES:
        record |= _metrics(name, None if found is None else getattr(found, name), intervals)
    return record | {
        "ms_per_pattern": result.ms_per_pattern,
        "inference_seconds": result.inference_seconds,
        "stitching_seconds": result.stitching_seconds,
        "patterns": result.patterns,
        "batch": evaluation.batch,
        "weighting": result.weighting,
        "placement": result.placement,
        "notes": "; ".join([*row.notes, *result.notes]),
    }


def _metrics(
    name: str, metrics: MetricSet | None, intervals: dict[str, tuple[float, float]]
) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for each in _PLAIN:
        record[f"{name}_{each}"] = None if metrics is None else getattr(metrics, each)
        if each in METRICS:
            low, high = intervals.get(f"{name}_{each}", (None, None))
            record |= {f"{name}_{each}_low": low, f"{name}_{each}_high": high}
    frc = None if metrics is None else metrics.frc
    for threshold in _THRESHOLDS:
        cutoff = None
        if frc is not None:
            cutoff = getattr(frc, f"cutoff_{threshold}")
            cutoff = math.inf if cutoff is None else cutoff
        record[f"{name}_frc_cutoff_{threshold}"] = cutoff
        for unit in ("px", "m"):
            lengths = None if frc is None else getattr(frc, f"half_period_{unit}")
            length = None if lengths is None else getattr(lengths, threshold)
            record[f"{name}_half_period_{threshold}_{unit}"] = length
    psd = None if metrics is None else metrics.psd
    return record | {
        f"{name}_psd_log_error_db": None if psd is None else psd.log_error_db,
        f"{name}_psd_bias_db": None if psd is None else psd.bias_db,
        f"{name}_notes": None if metrics is None else "; ".join(metrics.notes),
    }


def _markdown_metrics(result: ScanResult, name: str, intervals: dict[str, tuple[float, float]]) -> list[str]:
    if result.comparison is None:
        return ["–"] * 5
    metrics: MetricSet = getattr(result.comparison, name)
    cells = []
    for each, digits in (("ssim", 3), ("pearson", 3), ("mae", 4), ("psnr", 1)):
        text = format_value(getattr(metrics, each), digits)
        if f"{name}_{each}" in intervals:
            low, high = intervals[f"{name}_{each}"]
            text += f" [{low:.{digits}f}, {high:.{digits}f}]"
        cells.append(text)
    if metrics.frc is None:
        return [*cells, "–"]
    value = metrics.frc.cutoff_half
    return [*cells, "never crossed" if value is None else f"{value:.3f}"]


def _line(cells: list[str]) -> str:
    # A bar would end the cell, and a line feed the table.
    clean = (" ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(clean)} |"
