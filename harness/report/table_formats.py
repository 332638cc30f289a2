"""Comparison table for other programs: CSV for a spreadsheet, Markdown for a paper or a README.

The JSON format is that of `metrics.json`: `ptychonnx.harness.evaluation.results.Evaluation.to_json`.
"""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from ptychonnx.harness.evaluation.results import Evaluation, EvaluationRow, ScanResult
from ptychonnx.harness.metrics.bootstrap import METRICS, Interval
from ptychonnx.harness.metrics.comparison import MetricSet
from ptychonnx.harness.report.metric_cells import (
    QUANTITIES,
    metric_cells,
    misfit_cells,
    parity_cell,
    speed_cell,
)

__all__ = ["as_csv", "as_markdown"]

_NUMBERS = (
    *("mae", "mse", "psnr", "data_range", "ssim", "ms_ssim", "ms_ssim_scales", "pearson", "contrast_ratio"),
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
    writer.writerows(
        {"label": label, "notes": f"failed: {reason}"} for label, reason in evaluation.failures.items()
    )
    return stream.getvalue()


def as_markdown(evaluation: Evaluation) -> str:
    """Markdown table with one line per row and scan, and a line that explains the columns.

    Numbers in brackets are the limits of the 95 % interval.
    """
    several = len(evaluation.scans) > 1
    heads = ["artifact", *(["scan"] if several else []), "parity"]
    for letter in ("A", "P"):
        heads += [f"{letter} SSIM", f"{letter} r", f"{letter} MAE", f"{letter} PSNR", f"{letter} FRC 0.5"]
    heads += ["misfit", "scattered", "ms per pattern"]
    left = 2 if several else 1
    lines = [_line(heads), _line([":---"] * left + ["---:"] * (len(heads) - left))]
    for row in evaluation.rows:
        for scan, result in row.results.items():
            label = f"{row.label} {row.file}".strip() + (" (collapsed)" if result.collapsed else "")
            cells = [label, *([scan] if several else []), parity_cell(row).text]
            for quantity in QUANTITIES:
                metrics = metric_cells(result, quantity, evaluation.intervals(row, scan), mae_digits=4)
                for head in ("SSIM", "Pearson", "MAE", "PSNR"):
                    interval = metrics[head].small.replace("–", ", ")
                    cells.append(metrics[head].text + (f" [{interval}]" if interval else ""))
                cells.append(metrics["FRC 0.5"].text.replace("never", "never crossed"))
            misfit, scattered = misfit_cells(result)
            verdict = f" ({scattered.small})" if scattered.small else ""
            lines.append(_line([*cells, misfit.text, scattered.text + verdict, speed_cell(result).text]))
    for label, reason in evaluation.failures.items():
        lines.append(_line([f"{label} (failed)", reason, *[""] * (len(heads) - 2)]))
    note = (
        "A: amplitude, P: phase (rad); r: Pearson correlation; PSNR in dB with the range of the reference as peak; "
        "FRC 0.5: cycles per pixel; misfit: of the patterns, without the reference; scattered: of their scattered "
        "light alone; parity: largest relative error against the native network; brackets: 95 % interval over tiles of "
        "the image; –: not defined."
    )
    return "\n".join([*lines, "", note, ""])


def _record(evaluation: Evaluation, row: EvaluationRow, scan: str, result: ScanResult) -> dict[str, Any]:
    contract, comparison = row.contract, result.comparison
    alignment = None if comparison is None else comparison.alignment
    shift = getattr(alignment, "shift_px", None) or (None, None)
    ramp = getattr(alignment, "ramp_rad_per_pixel", None) or (None, None)
    record: dict[str, Any] = {
        "label": row.label,
        "kind": row.kind,
        "file": row.name,
        "scan": scan,
        "architecture": None if contract is None else contract.architecture,
        "precision": None if contract is None else contract.conversion.precision,
        "provider": row.provider,
        "parity_max_relative_error": None if row.parity is None else row.parity.max_relative_error,
        "collapsed": None if comparison is None else str(comparison.collapsed).lower(),
        "pixels": None if comparison is None else comparison.pixels,
        "scale": None if alignment is None else alignment.scale,
        "phase_rad": None if alignment is None else alignment.phase_rad,
        "shift_rows_px": shift[0],
        "shift_columns_px": shift[1],
        "ramp_rows_rad_per_px": ramp[0],
        "ramp_columns_rad_per_px": ramp[1],
    }
    intervals = evaluation.intervals(row, scan)
    for quantity in QUANTITIES:
        record |= _metrics(quantity, getattr(comparison, quantity, None), intervals)
    return record | {
        "misfit": None if result.misfit is None else result.misfit.value,
        "misfit_scattered": None if result.misfit is None else result.misfit.scattered,
        "misfit_verdict": None if result.misfit is None else result.misfit.verdict,
        "ms_per_pattern": result.ms_per_pattern,
        "inference_seconds": result.inference_seconds,
        "stitching_seconds": result.stitching_seconds,
        "patterns": result.patterns,
        "batch": evaluation.batch,
        "weighting": result.weighting,
        "placement": result.placement,
        "notes": "; ".join([*row.notes, *result.notes]),
    }


def _metrics(quantity: str, metrics: MetricSet | None, intervals: dict[str, Interval]) -> dict[str, Any]:
    """Columns of the amplitude or the phase; None where not defined."""
    record: dict[str, Any] = {}
    for metric in _NUMBERS:
        record[metric] = getattr(metrics, metric, None)
        if metric in METRICS:
            interval = intervals.get(f"{quantity}_{metric}", (None, None))
            record |= {f"{metric}_low": interval[0], f"{metric}_high": interval[1]}
    frc = getattr(metrics, "frc", None)
    for threshold in _THRESHOLDS:
        cutoff = getattr(frc, f"cutoff_{threshold}", None)
        record[f"frc_cutoff_{threshold}"] = math.inf if frc is not None and cutoff is None else cutoff
        for unit in ("px", "m"):
            half_periods = getattr(frc, f"half_period_{unit}", None)
            record[f"half_period_{threshold}_{unit}"] = getattr(half_periods, threshold, None)
    psd = getattr(metrics, "psd", None)
    record |= {f"psd_{name}": getattr(psd, name, None) for name in ("log_error_db", "bias_db")}
    record["notes"] = None if metrics is None else "; ".join(metrics.notes)
    return {f"{quantity}_{name}": value for name, value in record.items()}


def _line(cells: list[str]) -> str:
    # A bar would end the cell, and a line feed the table.
    clean = (" ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(clean)} |"
