"""Files that a command is to read and write, looked at before any work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ptychonnx.runtime.atomic import check_output, claimed_output
from ptychonnx.runtime.errors import InputError

__all__ = ["check_files", "claimed_file"]

# Parameters of commands that name a file or a folder to write.
_OUTPUTS = ("out", "picture", "patches", "positions_out", "json", "csv", "markdown", "repository")

# A secret may come from another program, through a pipe.
_MAY_BE_PIPE = "token_file"


def check_files(values: Mapping[str, Any]) -> None:
    """Refuse an input that is no regular file, and an output that cannot be written, is an input or another output.

    Raises InputError with the file. Raises EnvironmentFailure if the disk is full.

    `values`: those of all parameters of the command, by their names.
    """
    others = (value for name, value in values.items() if name not in (*_OUTPUTS, _MAY_BE_PIPE))
    read = [path for value in others for path in _existing(value) if not path.is_dir()]
    for path in read:
        if not path.is_file():
            # Reading a FIFO may wait for ever, and a device may never end.
            raise InputError(f"{path}: not a regular file, expected one")
    options: dict[Path, str] = {}
    for name in _OUTPUTS:
        out = values.get(name)
        if not isinstance(out, str | os.PathLike) or out == "-":
            continue
        option = f"--{name.replace('_', '-')}"
        if any(written.samefile(file) for written in _existing(out) for file in read):
            raise InputError(f"{option} {out}: is a file that the command reads, expected another name")
        if (other := options.setdefault(Path(os.path.realpath(out)), option)) != option:
            raise InputError(f"{option} {out}: is what {other} writes too, expected another name")
        check_output(out)


def claimed_file(values: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Keep other processes from writing the file `out` of a command until the command ends.

    Folders are not claimed: several commands may fill one, and trainings lock theirs. Nor is a file that several
    processes write the parts of.
    """
    out = values.get("out")
    if not isinstance(out, Path) or not out.suffix or out.is_dir() or values.get("shard"):
        return nullcontext()
    return claimed_output(out)


def _existing(value: Any) -> list[Path]:
    """The paths that exist among the values of a parameter; also those in LABEL=FILE and SCHEME:///FILE?OPTIONS."""
    paths = []
    for one in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(one, str | os.PathLike):
            continue
        names = {one, *(_names_in(one) if isinstance(one, str) else ())}
        for name in names:
            with suppress(OSError, ValueError):  # no name of a file, but a text
                if Path(name).exists():
                    paths.append(Path(name))
    return paths


def _names_in(text: str) -> list[str]:
    """What may be the name of a file in a text that names something else too."""
    parts = urlsplit(text)
    return [text.partition("=")[2] or text, unquote(parts.netloc + parts.path) or text]
