"""URLs of sources: the options in their query, and the files that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.validation import checked

__all__ = ["Seconds", "SourceOptions", "source_options", "watched_file"]

# With NaN or infinity a source would never be idle, and never end.
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SourceOptions(BaseModel):
    """Options in the query of a URL; each source has its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Options = TypeVar("Options", bound=SourceOptions)


def source_options(url: str, kind: type[Options]) -> Options:
    """The options in the query of a URL.

    Raises InputError if one is unknown, missing, or out of range.
    """
    try:
        return checked(kind, dict(parse_qsl(urlsplit(url).query)))
    except InputError as error:
        raise InputError(f"{url}: {error}; options are {', '.join(kind.model_fields)}") from error


def watched_file(url: str) -> Path:
    """The file that a URL, or a path, names; it may appear later.

    Raises InputError if its folder does not exist.
    """
    parts = urlsplit(url)
    path = Path(unquote(parts.netloc + parts.path) if "://" in url else url)
    if not path.parent.is_dir():
        raise InputError(f"{url}: no such folder, expected a file that is written into it")
    return path
