"""`ptychodus-ptychonnx`: ptychodus with its own options, and the reconstructor of ptychonnx registered.

The end of the program, also by SIGTERM in a batch run, cancels what runs: no training goes on by itself.
"""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import Any

import ptychodus.__main__ as application
from ptychodus.api.exit_codes import ExitCode
from ptychodus.model import ModelCore

from ptychodus_ptychonnx.library import register

__all__ = ["main"]


class _Model(ModelCore):
    def __init__(self, settings_file: Path | None = None, *, log_level: int = logging.WARNING) -> None:
        super().__init__(log_level=log_level)
        register(self)
        if settings_file is not None:
            self.settings_registry.open_settings(settings_file)

    def __exit__(self, *error: Any) -> None:
        self.processing_core.processing_api.task_monitor.stop_processing()
        super().__exit__(*error)


def main() -> int:
    """Run ptychodus."""
    application.ModelCore = _Model
    if any(argument.startswith(("-b", "--batch")) for argument in sys.argv[1:]):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(ExitCode.CANCELLED))
    return application.main()


if __name__ == "__main__":
    sys.exit(main())
