"""The command line: one module a command, see `ptychonnx --help`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line. Its modules are loaded here, so that an interruption meanwhile is one line too."""
    try:
        from ptychonnx.harness.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; nothing half-written was left behind.\n")
        sys.exit(130)
