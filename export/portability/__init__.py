"""Where each operator of a graph can run, from what the engines say of themselves.

The data files beside this module were made by `portability.refresh`; each states its source and version.
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

__all__ = ["Operator", "Portability", "Target", "TargetName", "portability", "require", "targets"]
