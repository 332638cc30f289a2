"""`ptychodus-ptychonnx`: ptychodus with its own options, and the reconstructor of ptychonnx registered."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import ptychodus.__main__ as application
from ptychodus.model import ModelCore

from ptychodus_ptychonnx.library import register

__all__ = ["main"]


class _Model(ModelCore):
    def __init__(self, settings_file: Path | None = None, *, log_level: int = logging.WARNING) -> None:
        super().__init__(log_level=log_level)
        register(self)
        if settings_file is not None:
            self.settings_registry.open_settings(settings_file)


def main() -> int:
    """Run ptychodus."""
    application.ModelCore = _Model
    return application.main()


if __name__ == "__main__":
    sys.exit(main())
