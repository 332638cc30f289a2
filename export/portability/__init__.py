"""Portability: which engines can run each operator of a graph, from the operator lists of the engines.

`portability.refresh` generates the data files in this folder; each states its source and version.
"""

from ptychonnx.export.portability.operator_table import (
    Operator,
    Portability,
    Target,
    TargetName,
    portability,
    require,
    targets,
)

__all__ = [
    "Operator",
    "Portability",
    "Target",
    "TargetName",
    "portability",
    "require",
    "targets",
]
