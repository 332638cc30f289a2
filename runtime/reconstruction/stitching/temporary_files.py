"""Disk space and errors of temporary files, which are deleted with the last reference, however the process ends."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from ptychonnx.runtime.errors import EnvironmentFailure

__all__ = ["check_disk_space", "disk_errors"]


def check_disk_space(needed: dict[str, int]) -> None:
    """Check that temporary files fit into their folder.

    Raises EnvironmentFailure if the folder is missing or has too little space.

    `needed`: bytes of each file by a description of its content.
    """
    content, total = " and ".join(needed), sum(needed.values())
    if not total:
        return
    with disk_errors(content):
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
    if free < total:
        raise EnvironmentFailure(
            f"{folder}: {total / 1e9:.1f} GB of temporary files are needed for {content}, and {free / 1e9:.1f} GB are "
            "free: set TMPDIR to a folder with more"
        )


@contextmanager
def disk_errors(content: str) -> Iterator[None]:
    """Raise errors of a temporary file in one line that names its content.

    Raises EnvironmentFailure in place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or "the folder for temporary files"
        raise EnvironmentFailure(
            f"{folder}: cannot hold {content} ({error.strerror or error}): set TMPDIR"
        ) from error
