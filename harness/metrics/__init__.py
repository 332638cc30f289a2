"""How good a reconstruction is: declared alignment, declared region, defined metrics."""

from ptychonnx.harness.metrics.alignment import Alignment, align
from ptychonnx.harness.metrics.comparison import Comparison, MetricSet, compare
from ptychonnx.harness.metrics.reference_placement import Placement, reference_on_canvas
from ptychonnx.harness.metrics.region import RegionRecord, RegionRule, declare_region

__all__ = [
    "Alignment",
    "Comparison",
    "MetricSet",
    "Placement",
    "RegionRecord",
    "RegionRule",
    "align",
    "compare",
    "declare_region",
    "reference_on_canvas",
]
