"""Outputs of a command, tried before any work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptychonnx.runtime.atomic import check_output
from ptychonnx.runtime.errors import InputError

__all__ = ["check_outputs"]

# Parameters of commands that name a file or a folder to write.
_OUTPUTS = ("out", "picture", "patches", "json", "csv", "markdown", "repository")


def check_outputs(values: Mapping[str, Any]) -> None:
    """Refuse an output that cannot be written, or is one of the files to read and would be lost.

    Parameters
    ----------
    values
        Of all parameters of the command, by their names.

    Raises
    ------
    InputError
        With the option.
    EnvironmentFailure
        If the disk is full.
    """
    read = [file for name, value in values.items() if name not in _OUTPUTS for file in _files(value)]
    for name in _OUTPUTS:
        out = values.get(name)
        if not isinstance(out, str | os.PathLike) or out == "-":
            continue
        if any(written.samefile(file) for written in _files(out) for file in read):
            raise InputError(f"--{name} {out}: is a file that the command reads, expected another name")
        check_output(out)


def _files(value: Any) -> list[Path]:
    """The files that exist among the values of a parameter."""
    files = []
    for one in value if isinstance(value, list | tuple) else [value]:
        try:
            if isinstance(one, str | os.PathLike) and Path(one).is_file():
                files.append(Path(one))
        except (OSError, ValueError):  # no name of a file, but a text
            continue
    return files
