"""`--config FILE`: options of a command from a YAML file. What is typed wins over the file, the file over defaults."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from ptychonnx.runtime.errors import InputError

__all__ = ["ConfigFile", "resolved_yaml"]

_NOT_SETTINGS = {"config", "resume", "list_architectures", "help"}


def _load(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a file the defaults of the command that is being parsed.

    Raises
    ------
    InputError
        If the file is not there, is no mapping, or has a key or a value that the command does not take.
    """
    if path is None:
        return None
    known = {
        name: parameter
        for parameter in context.command.params
        if (name := parameter.name) is not None and name not in _NOT_SETTINGS
    }
    values = {}
    for key, value in _read(path).items():
        name = str(key).replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise InputError(f"{path}: {key} is no option of this command; the nearest is {near}")
        if value is None:
            continue
        values[name] = _written_as_typed(value, multiple=_takes_several(known[name]))
        try:
            known[name].process_value(context, values[name])
        except Exception as error:
            reason = getattr(error, "message", None) or error
            raise InputError(f"{path}: {key} = {value!r}: {reason}") from error
    context.default_map = values
    return path


def _read(path: Path) -> Mapping[Any, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: expected a mapping of options to values")
    return content


def _takes_several(parameter: Any) -> bool:
    return bool(parameter.multiple) or parameter.nargs != 1


def _written_as_typed(value: Any, *, multiple: bool) -> Any:
    """A value as it would be typed: a list is comma-separated unless the option takes several values."""
    several = isinstance(value, list)
    if multiple:
        return [str(each) for each in value] if several else [str(value)]
    if several:
        return ",".join(map(str, value))
    return value if isinstance(value, bool) else str(value)


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML file with options of this command; what is typed beside it wins.",
        callback=_load,
        is_eager=True,
    ),
]


def resolved_yaml(context: typer.Context, resolved: Mapping[str, Any]) -> str:
    """Every option of a command as YAML that `--config` reads: as it was typed, or as it was resolved.

    Parameters
    ----------
    resolved
        Values that are known better now, by option; those that are no options are left out.
    """
    values = {**context.params, **resolved}
    lines = {
        name.replace("_", "-"): _plain(value)
        for parameter in context.command.params
        if (name := parameter.name) is not None
        and name not in _NOT_SETTINGS
        and (value := values.get(name)) not in (None, [], ())
    }
    return yaml.safe_dump(lines, sort_keys=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
