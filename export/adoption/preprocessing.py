"""All preprocessing steps by name.

Patterns are float32 [B, 1, n, n], DC at pixel [n // 2, n // 2] unless a step says otherwise.
"""

from __future__ import annotations

from ptychonnx.export.adoption.detector_steps import DETECTOR_STEPS
from ptychonnx.export.adoption.step import Argument, Step
from ptychonnx.export.adoption.value_steps import NORMALISATION_STEPS, VALUE_STEPS

__all__ = ["STEPS", "Argument", "Step"]

STEPS: dict[str, Step] = {**VALUE_STEPS, **DETECTOR_STEPS, **NORMALISATION_STEPS}
