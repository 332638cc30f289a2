"""Validation of settings that a user typed, and of documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from ptychonnx.runtime.errors import InputError

__all__ = ["Refusing", "checked", "expectation", "first_fault", "whole_number"]

Settings = TypeVar("Settings")


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _Refusing(ModelMetaclass):
    if not TYPE_CHECKING:

        def __call__(cls, *arguments, **values):
            try:
                return super().__call__(*arguments, **values)
            except ValidationError as error:
                raise InputError(f"{cls.__name__}: {_setting(error.errors()[0])}") from error


class Refusing(BaseModel, metaclass=_Refusing):
    """A model that is built in Python by its users: wrong values raise InputError, like everything else."""


def checked(
    kind: type[Settings], values: Mapping[str, Any], option: Callable[[str], str] | None = None
) -> Settings:
    """Build a pydantic model or dataclass from a user's values.

    Raises InputError if a setting is unknown or its value out of range, with the name of the setting and the expected
    values.

    `option`: the command-line option of a setting, by which messages name it; "setting NAME" if None.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        location = [str(part) for part in first["loc"]]
        if not location:  # settings that contradict each other
            raise InputError(expectation(first["msg"])) from error
        if option is not None and location[0] in values:
            text = f"{option(location[0])} {first['input']}: {expectation(first['msg'])}"
            raise InputError(text) from error
        raise InputError(_setting(first)) from error


def _setting(fault: Any) -> str:
    """The name of a setting, its value, and what was expected."""
    location = ".".join(map(str, fault["loc"]))
    # The input of a setting that is missing is that of all others.
    value = "" if fault["type"] == "missing" else f" = {fault['input']!r}"
    return f"{f'setting {location}{value}: ' if location else ''}{expectation(fault['msg'])}"


def first_fault(error: ValidationError) -> str:
    """The first fault of a document: its key, and what is wrong with it."""
    first = error.errors()[0]
    return (
        f"{'.'.join(map(str, first['loc'])) or 'the document'}: {first['msg'].removeprefix('Value error, ')}"
    )


def expectation(message: str) -> str:
    """A message of pydantic in the words of ours: "expected a value greater than 0"."""
    for start, ours in (
        ("Input should be greater", "expected a value greater"),
        ("Input should be less", "expected a value less"),
        ("Input should be", "expected"),
        ("Extra inputs are not permitted", "unknown setting"),
        ("String should match pattern '", "expected text of the form "),
        ("Value error, ", ""),
    ):
        if message.startswith(start):
            return ours + message.removeprefix(start).rstrip("'" if start.endswith("'") else "")
    return message[:1].lower() + message[1:]


def whole_number(value: Any) -> int | None:
    """A whole number, also from a text; None for anything else, such as a fraction."""
    try:
        number = int(value)
        return None if isinstance(value, bool) or number != float(value) else number
    except (TypeError, ValueError, OverflowError):
        return None
