"""Reports of an evaluation: page, figures, and tables for the terminal, CSV and Markdown."""

from ptychonnx.harness.evaluation.results import Evaluation, EvaluationRow, ScanResult, ScanSummary
from ptychonnx.harness.report.html_page import render_page
from ptychonnx.harness.report.table_formats import as_csv, as_markdown
from ptychonnx.harness.report.terminal_table import comparison_table

__all__ = [
    "Evaluation",
    "EvaluationRow",
    "ScanResult",
    "ScanSummary",
    "as_csv",
    "as_markdown",
    "comparison_table",
    "render_page",
]
