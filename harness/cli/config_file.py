"""`--config FILE`: options of a command from a YAML file. Options on the command line win over the file, the file over
defaults."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.yaml_files import read_yaml_mapping

__all__ = ["ConfigFile", "resolved_yaml"]

_NOT_SETTINGS = {"config", "resume", "list_architectures", "help"}


def _load(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a file the defaults of the command that is being parsed.

    Raises InputError if the file is missing, is not a mapping, or has a key or a value that the command does not take.
    """
    if path is None:
        return None
    known = {name: parameter for parameter in _settings(context) for name in _names(parameter)}
    values = {}
    content = read_yaml_mapping(path, "a mapping of options to values", as_written=True)
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise InputError(f"{path}: {key} is no option of this command; the nearest is {nearest}")
        parameter = known[name]
        if parameter.name in values:
            raise InputError(f"{path}: {key} is given twice, expected one value")
        if value is None:
            continue
        try:
            text = _as_typed(value, parameter)
            parameter.process_value(context, text)
        except Exception as error:
            raise InputError(
                f"{path}: {key} = {reprlib.repr(value)}: {getattr(error, 'message', error)}"
            ) from error
        values[parameter.name] = text
    context.default_map = values
    return path


def _settings(context: typer.Context) -> list[Any]:
    return [
        parameter
        for parameter in context.command.params
        if parameter.name not in _NOT_SETTINGS
        and not parameter.name.startswith("help_")
        and not getattr(parameter, "hidden", False)
    ]


def _names(parameter: Any) -> list[str]:
    """Keys of a file that mean this parameter: its options as they are spelled, without dashes, and its name."""
    options = [option.lstrip("-").replace("-", "_") for option in parameter.opts]
    return [*options, parameter.name]


def _as_typed(value: Any, parameter: Any) -> Any:
    """A value as on the command line: a list is comma-separated unless the option takes several values.

    Raises InputError if the option takes no list, or an entry is empty or has entries of its own.
    """
    if isinstance(value, Mapping):
        value = [f"{key}={entry}" for key, entry in value.items() if _is_text(entry)] or [value]
    multiple = parameter.multiple or parameter.nargs != 1
    if not multiple and not _is_text(value) and parameter.type_descriptor.annotation not in (str, str | None):
        raise InputError("expected one value")
    entries = value if isinstance(value, list) else [value]
    if not all(map(_is_text, entries)) or not (multiple or entries):
        raise InputError("expected a text or a number that is not empty, or a list of them")
    return entries if multiple else ",".join(entries)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML file with options of this command; those on the command line win.",
        callback=_load,
        is_eager=True,
    ),
]


def resolved_yaml(context: typer.Context, resolved: Mapping[str, Any]) -> str:
    """Every option of a command as YAML that `--config` reads.

    `resolved`: values, by the name of the option, that replace those of the command line; other names are ignored.
    """
    values = {**context.params, **resolved}
    lines = {
        _names(parameter)[0].replace("_", "-"): _plain(values[parameter.name])
        for parameter in _settings(context)
        if values.get(parameter.name) not in (None, [], ())
    }
    return yaml.safe_dump(lines, sort_keys=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
