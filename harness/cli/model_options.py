"""Options from models: a command that takes a pydantic model gets the fields of the model as its options.

`derive_options` reads the signature of a command. A parameter that is annotated with a model is replaced by one option
for each field: name, type, default and description come from the field, the panel of the help page from the title of
the model. The same options are the keys of the YAML file that `--config` reads, which the command gets as well.

A model with many options that few users need has a page of help of its own, which its `json_schema_extra` names in the
keys `help_option` and `help_subject`.
"""

from __future__ import annotations

import copy
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from typer.core import TyperCommand
from typer.models import OptionInfo

from ptychonnx.harness.cli.config_file import ConfigFile
from ptychonnx.harness.cli.file_check import check_files, claimed_file
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.validation import checked
from ptychonnx.train.helper_process import helps_another_process

__all__ = ["Command", "Omit", "TypedOnly", "as_arguments", "derive_options"]

# A longer list of choices leaves no room for the help text next to it, and is written into the text.
_LONGEST_CHOICES = 13
_PAGE = "ptychonnx.help_page"


class Omit:
    """Marks a parameter of a command: fields of its model that are no options of this command."""

    def __init__(self, *names: str) -> None:
        self.names = frozenset(names)


@dataclass(frozen=True)
class TypedOnly:
    """Marks a parameter of type `dict`: it receives the fields of `model` that the user set, and no defaults."""

    model: type


@dataclass(frozen=True)
class _Group:
    """The options of one model, and the parameter of the command that receives them."""

    parameter: str
    model: type
    fields: Mapping[str, FieldInfo]
    typed_only: bool

    @property
    def config(self) -> Mapping[str, Any]:
        return getattr(self.model, "model_config", None) or getattr(self.model, "__pydantic_config__", {})

    @property
    def panel(self) -> str | None:
        return self.config.get("title")

    def options(self) -> list[inspect.Parameter]:
        return [_option(name, field, self.panel, self.typed_only) for name, field in self.fields.items()]

    def help_option(self) -> list[inspect.Parameter]:
        """The option that shows the group's own page of help, if it has one."""
        extra = self.config.get("json_schema_extra")
        if not isinstance(extra, dict):
            return []

        def show(context: typer.Context, wanted: bool) -> None:
            if wanted:
                context.meta[_PAGE] = self.panel
                typer.echo(context.get_help())
                raise typer.Exit

        option = typer.Option(
            str(extra["help_option"]),
            help=f"Show the options {extra['help_subject']}, and exit.",
            callback=show,
            is_eager=True,
        )
        name = str(extra["help_option"]).strip("-").replace("-", "_")
        return [_keyword(name, False, Annotated[bool, option])]

    def build(self, values: Mapping[str, Any]) -> Any:
        """The model, or the dictionary of what was set, from the values of all options."""
        typed = {
            name: _pairs(_flag(name, field), values[name]) if _is_mapping(field) else values[name]
            for name, field in self.fields.items()
            if not (values[name] is None or values[name] == [])
        }
        model: Any = checked(self.model, typed, lambda name: _flag(name, self.fields[name]))
        return {name: getattr(model, name) for name in typed} if self.typed_only else model


def derive_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the fields of its models as options, and `--config` to read them from a file.

    A field's `json_schema_extra` may name the option differently (`flag`) and set its `metavar`. A field with a
    `BeforeValidator` is typed as text, which the validator reads.

    Raises InputError when the command runs: if a value is out of range, with the option and the expected values.
    """
    signature = inspect.signature(command, eval_str=True)
    groups, parameters = [], []
    for parameter in signature.parameters.values():
        group = _group(parameter)
        if group is None:
            parameters.append(_stating_its_default(parameter).replace(kind=inspect.Parameter.KEYWORD_ONLY))
        else:
            groups.append(group)
    pages = [option for group in groups for option in group.help_option()]
    config = _keyword("config", None, ConfigFile)
    parameters += [config, *pages]
    parameters += [option for group in groups for option in group.options()]

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        for shown in (config, *pages):
            values.pop(shown.name)
        models = {
            group.parameter: group.build({name: values.pop(name) for name in group.fields})
            for group in groups
        }
        command(**values, **models)

    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    wrapped.own_pages = {group.panel for group in groups if group.help_option()}  # type: ignore[attr-defined]
    return wrapped


class Command(TyperCommand):
    """A command that looks at its files before any work, and whose help leaves out panels with pages of their own."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        if not helps_another_process():
            check_files(ctx.params)
            ctx.with_resource(claimed_file(ctx.params))
        return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page of help, or the one of the panel that was asked for."""
        own_pages: set[str] = getattr(self.callback, "own_pages", set())
        page = ctx.meta.get(_PAGE)
        parameters: list[Any] = self.params
        hidden = [parameter.hidden for parameter in parameters]
        for parameter in parameters:
            panel = getattr(parameter, "rich_help_panel", None)
            parameter.hidden |= panel != page if page else panel in own_pages
        super().format_help(ctx, formatter)
        for parameter, before in zip(parameters, hidden, strict=True):
            parameter.hidden = before


def as_arguments(model: BaseModel) -> list[str]:
    """The fields of a model that are not defaults, as arguments of a command."""
    arguments = []
    for name, value in model.model_dump(mode="json", exclude_defaults=True).items():
        flag, _, negative = _spelling(name, type(model).model_fields[name]).partition("/")
        if isinstance(value, bool):
            arguments.append(flag if value else negative)
        elif isinstance(value, dict):
            arguments += [text for key, entry in value.items() for text in (flag, f"{key}={entry}")]
        elif isinstance(value, list):
            arguments += [flag, *map(str, value)]
        else:
            arguments += [flag, str(value)]
    return arguments


def _keyword(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _stating_its_default(parameter: inspect.Parameter) -> inspect.Parameter:
    """An option that a command declares itself; its help states the default like the options of models."""
    default = parameter.default
    if get_origin(parameter.annotation) is not Annotated or default in ("", inspect.Parameter.empty):
        return parameter
    kind, info = get_args(parameter.annotation)
    if default is None or default is False or not isinstance(info, OptionInfo):
        return parameter
    info = copy.copy(info)
    info.help, info.show_default = f"{info.help} Default: {_in_words(default)}.", False
    return parameter.replace(annotation=Annotated[kind, info])


def _in_words(default: Any) -> str:
    if default is True:
        return "on"
    if isinstance(default, tuple):
        return ", ".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def _group(parameter: inspect.Parameter) -> _Group | None:
    """The options that a parameter of a command stands for; None for an option that the command declares itself."""
    annotation, omitted, typed_only = parameter.annotation, frozenset[str](), False
    if get_origin(annotation) is Annotated:
        annotation, *marks = get_args(annotation)
        for mark in marks:
            if isinstance(mark, Omit):
                omitted = mark.names
            elif isinstance(mark, TypedOnly):
                annotation, typed_only = mark.model, True
    fields = getattr(annotation, "__pydantic_fields__", None)
    if fields is None:
        return None
    if unknown := omitted - set(fields):
        raise TypeError(f"{annotation.__name__} has no fields {', '.join(sorted(unknown))} to omit")
    kept = {name: field for name, field in fields.items() if name not in omitted}
    return _Group(parameter.name, annotation, kept, typed_only)


def _option(name: str, field: FieldInfo, panel: str | None, typed_only: bool) -> inspect.Parameter:
    """The field of a model as a parameter that Typer turns into an option."""
    kind, flag, metavar = _kind(field), _spelling(name, field), _extra(field, "metavar")
    description = (field.description or "").rstrip(".")
    if get_origin(kind) is Literal and len("|".join(get_args(kind))) > _LONGEST_CHOICES:
        metavar = metavar or "NAME"
        description += f" ({' | '.join(get_args(kind))})"
    sentences = [description + "."]
    default: Any = inspect.Parameter.empty
    if not field.is_required():
        default = None if typed_only else field.get_default(call_default_factory=True)
        default = None if default in ((), {}) else default
        if default is not None and default is not False:
            sentences.append(f"Default: {_in_words(default)}.")
        kind = kind | None
    option = typer.Option(
        flag, help=" ".join(sentences), metavar=metavar, show_default=False, rich_help_panel=panel
    )
    return _keyword(name, default, Annotated[kind, option])


def _kind(field: FieldInfo) -> Any:
    """The type by which Typer reads a field: one of its own, or text that the model reads."""
    if any(isinstance(constraint, BeforeValidator) for constraint in field.metadata):
        return str
    kind: Any = field.annotation
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (choice for choice in get_args(kind) if choice is not types.NoneType)
    if get_origin(kind) is dict:
        return list[str]
    if get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis:
        element = get_args(kind)[0]
        kind = get_args(element)[0] if get_origin(element) is Annotated else element
        # Typer knows no lists of choices; the model refuses others.
        return list[str] if get_origin(kind) is Literal else list[kind]
    return kind


def _spelling(name: str, field: FieldInfo) -> str:
    """The option as Typer declares it; a switch that is not off by default has a negative."""
    flag = _extra(field, "flag")
    if flag is not None:
        return flag
    flag = name.replace("_", "-")
    return f"--{flag}/--no-{flag}" if _kind(field) is bool and field.default is not False else f"--{flag}"


def _flag(name: str, field: FieldInfo) -> str:
    """The option as messages name it."""
    return _spelling(name, field).partition("/")[0]


def _extra(field: FieldInfo, key: str) -> str | None:
    extra = field.json_schema_extra
    value = extra.get(key) if isinstance(extra, dict) else None
    return None if value is None else str(value)


def _is_mapping(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is dict


def _pairs(flag: str, texts: list[str]) -> dict[str, str]:
    """A dictionary from texts of the form KEY=VALUE."""
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise InputError(f"{flag} {text}: expected KEY=PATH")
        pairs[key] = value
    return pairs
