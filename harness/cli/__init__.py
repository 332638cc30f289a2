"""The command line: one module a command, see `ptychonnx --help`."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from contextlib import suppress

__all__ = ["main"]

# Commands that run for days, such as `live`, load none and keep searching everything.
_LOAD_A_FRAMEWORK = {"train", "export", "export-module", "adopt"}


def main() -> None:
    """Run the command line, in a process of its own; `ptychonnx.harness.cli.app.main` runs it within another program.

    Its modules are loaded here, so that an interruption meanwhile is one line too.
    """
    _open_standard_streams()
    # Libraries make up to a million objects that live until the end. To search all of them for garbage, again and again
    # while they are loaded and twice at exit, took a third of the time that a training framework needs to start.
    if _LOAD_A_FRAMEWORK & {*sys.argv[1:]}:
        gc.set_threshold(*gc.get_threshold()[:2], 1000)
    atexit.register(gc.freeze)
    try:
        from ptychonnx.harness.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; nothing half-written was left behind.\n")
        sys.exit(130)


def _open_standard_streams() -> None:
    """Lead standard streams that are closed, as a scheduler may leave them, to nowhere.

    Their numbers would be those of the next files that are opened, and a library that prints would write into these.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        with suppress(OSError):
            os.fstat(number)
            continue
        os.open(os.devnull, os.O_RDWR)
        setattr(sys, name, os.fdopen(number, "w" if number else "r"))
