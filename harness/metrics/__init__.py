"""How good a reconstruction is: declared alignment, declared region, defined metrics."""

from harness.metrics.alignment import Alignment, align
from harness.metrics.canvas import Placement, reference_on_canvas
from harness.metrics.comparison import Comparison, MetricSet, compare
from harness.metrics.region import RegionRecord, RegionRule, declare_region

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
