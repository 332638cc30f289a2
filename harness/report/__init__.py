"""What an evaluation found, as data, table, figures and a page."""

from harness.report.formats import as_csv, as_markdown
from harness.report.page import render_page
from harness.report.results import Evaluation, Row, ScanResult, ScanSummary
from harness.report.table import comparison_table

__all__ = [
    "Evaluation",
    "Row",
    "ScanResult",
    "ScanSummary",
    "as_csv",
    "as_markdown",
    "comparison_table",
    "render_page",
]
