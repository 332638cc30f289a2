"""Validation of settings that a user typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ptychonnx.runtime.errors import InputError

__all__ = ["checked"]

Settings = TypeVar("Settings")


def checked(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Build a pydantic dataclass from a user's values.

    Raises
    ------
    InputError
        On an unknown setting or a value out of range, with the setting's name and what was expected.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(f"setting {name} = {first['input']!r}: {first['msg']}") from error
