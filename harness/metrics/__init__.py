"""Image quality metrics on a declared region after a declared alignment."""

from ptychonnx.harness.metrics.alignment import Alignment, align
from ptychonnx.harness.metrics.comparison import Comparison, MetricSet, compare
from ptychonnx.harness.metrics.object_files import FileComparison, compare_files
from ptychonnx.harness.metrics.reference_placement import ReferencePlacement, reference_on_canvas
from ptychonnx.harness.metrics.region import RegionRecord, RegionRule, declare_region

__all__ = [
    "Alignment",
    "Comparison",
    "FileComparison",
    "MetricSet",
    "ReferencePlacement",
    "RegionRecord",
    "RegionRule",
    "align",
    "compare",
    "compare_files",
    "declare_region",
    "reference_on_canvas",
]
