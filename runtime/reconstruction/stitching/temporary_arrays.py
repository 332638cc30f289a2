"""Where a stitcher puts what does not fit into memory: files without a name in the folder for temporary files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from ptychonnx.runtime.errors import InputError

__all__ = ["check_disk", "holding"]


def check_disk(needed: dict[str, int]) -> None:
    """Refuse files that together do not fit into the folder for temporary files.

    Parameters
    ----------
    needed
        Bytes of each, by the words for what it holds.

    Raises
    ------
    InputError
        If the folder has less space left, or there is none.
    """
    what, total = " and ".join(needed), sum(needed.values())
    if not total:
        return
    with holding(what):
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
    if free < total:
        raise InputError(
            f"{folder}: {total / 1e9:.1f} GB of temporary files are needed for {what}, and {free / 1e9:.1f} GB are "
            "free: set TMPDIR to a folder with more"
        )


@contextmanager
def holding(what: str) -> Iterator[None]:
    """Errors of a temporary file that holds something, in one line.

    Raises
    ------
    InputError
        In place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or "the folder for temporary files"
        raise InputError(f"{folder}: cannot hold {what} ({error.strerror or error}): set TMPDIR") from error
