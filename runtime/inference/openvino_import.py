"""OpenVINO without its telemetry."""

from __future__ import annotations

import sys
from types import ModuleType

from ptychonnx.runtime.errors import InputError

__all__ = ["import_openvino"]


def import_openvino() -> ModuleType:
    """Import OpenVINO; a process of its own would send an event to Google Analytics each time otherwise.

    OpenVINO works without the package `openvino_telemetry`, which it requires and does not ask before it uses.

    Raises InputError if OpenVINO is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise InputError("openvino is not installed: pip install 'ptychonnx[openvino]'") from error
    return openvino
