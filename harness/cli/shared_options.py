"""Groups of options that several commands have, declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

__all__ = ["Batch", "with_options"]


def _batch(text: str | int) -> int | None:
    """A positive number; None for ``auto``."""
    if text == "auto":
        return None
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise typer.BadParameter(f"{text!r} is neither a number above 0 nor 'auto'")
    return number


# None: `ptychonnx.runtime.inference.tuning.tuned` finds it.
Batch = Annotated[
    int | None,
    typer.Option(
        parser=_batch,
        metavar="N|auto",
        help="Patterns in one run of the network; auto finds what is fastest here, the threads too, and remembers it.",
    ),
]

Command = Callable[..., None]


def with_options(name: str, group: Callable[..., Any]) -> Callable[[Command], Command]:
    """A decorator that gives a command the parameters of `group` as options of its own.

    Parameters
    ----------
    name
        Of the one argument by which the command gets what `group` returns.
    group
        A function whose parameters are declared as Typer wants options to be declared.
    """
    ours = inspect.signature(group, eval_str=True).parameters

    def decorate(command: Command) -> Command:
        theirs = inspect.signature(command, eval_str=True)
        kept = [parameter for parameter in theirs.parameters.values() if parameter.name != name]

        @functools.wraps(command)
        def wrapped(**values: Any) -> None:
            made = group(**{each: values.pop(each) for each in ours})
            command(**values, **{name: made})

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [parameter.replace(kind=keyword) for parameter in [*kept, *ours.values()]]
        wrapped.__signature__ = theirs.replace(parameters=parameters)  # type: ignore[attr-defined]
        hints = get_type_hints(command, include_extras=True) | get_type_hints(group, include_extras=True)
        wrapped.__annotations__ = {parameter.name: hints[parameter.name] for parameter in parameters}
        return wrapped

    return decorate
