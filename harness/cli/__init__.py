"""The command line: one module a command, see `ptychonnx --help`."""

from ptychonnx.harness.cli.app import main

__all__ = ["main"]
