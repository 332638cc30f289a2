"""The application: its commands, its verbosity, and how errors become one line and an exit code."""

from __future__ import annotations

import errno
import io
import logging
import os
import platform
import shlex
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from ptychonnx.harness.cli.commands import Commands
from ptychonnx.harness.cli.console import errors, one_line, output, print_lines, set_verbosity
from ptychonnx.runtime.errors import InputError, InternalError, PtychonnxError, VerificationError
from ptychonnx.runtime.paths import cache_folder
from ptychonnx.runtime.validation import expectation

__all__ = ["all_commands", "app", "main"]

_logger = logging.getLogger(__name__)
_EPILOG = (
    "Exit codes: **0** success, **1** a check failed, **2** a wrong input or option, **3** a server, a device or the "
    "machine failed, **4** a fault in ptychonnx, **130** interrupted, **141** the reader of the output went away."
)
_ERRORS_OF_PATHS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
# A value of any length may be in a message; its end says what was expected.
_LONGEST_LINE = 1500
_LOAD_OPTIONS = {"--scan", "--server", "--concurrency", "--rate", "--seconds", "--picture"}

app = typer.Typer(
    name="ptychonnx",
    cls=Commands,
    help="Train ptychography networks in their own framework, compile them to ONNX, and compare them all "
    "through one runtime, one stitcher and one set of metrics.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        output.print(f"ptychonnx {version('ptychonnx')}", highlight=False)
        raise typer.Exit


@app.callback()
def application(
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            show_default=False,
            help="Log the decisions of export passes; -vv also what other packages log.",
        ),
    ] = 0,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print results, warnings and errors only.")
    ] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Set the verbosity, before a command runs."""
    set_verbosity(-1 if quiet else verbose)


def all_commands() -> Commands:
    """The application with every command loaded."""
    group = typer.main.get_command(app)
    assert isinstance(group, Commands)
    for name in group.list_commands(None):
        group.get_command(None, name)
    return group


def main() -> None:
    """Run the command line and exit with a code of the table in `ptychonnx --help`."""
    set_verbosity(0)
    # Names of files may have letters that the encoding of a terminal lacks.
    for stream in (sys.stdout, sys.stderr):
        # Another program may have put a pipe in place of a file.
        with suppress(OSError):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
    command = typer.main.get_command(app)
    code = 0
    try:
        if "" in sys.argv[1:]:
            raise InputError("an argument is empty, expected a value: is a variable of the shell not set?")
        with command.make_context("ptychonnx", _renamed(sys.argv[1:])) as context:
            command.invoke(context)
    except typer.Exit as error:
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        errors.print("Interrupted; nothing half-written was left behind.")
        code = 130
    except SystemExit as error:
        # Rich ends the process when the reader of a page of help goes away.
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        code = _report(error.__context__)
    except Exception as error:
        code = _report(error)
    code = _flushed(code)
    if code:
        sys.exit(code)


def _flushed(code: int) -> int:
    """The exit code once what is left of the output has been written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        code = code or _report(error)
        # Python would complain once more when it flushes the output at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _renamed(arguments: list[str]) -> list[str]:
    """The arguments with `loadtest` for the `bench` of version 0.1 that measured load."""
    options = {argument.partition("=")[0] for argument in arguments}
    if arguments[:1] != ["bench"] or not options & _LOAD_OPTIONS:
        return arguments
    _logger.warning("bench under load is now `ptychonnx loadtest`; the old name goes in the next release")
    return ["loadtest", *arguments[1:]]


def _report(error: Exception) -> int:
    """Print an error as one line, and return its exit code."""
    if isinstance(error, TyperException):
        return _refuse(_usage_message(error), 2)
    if isinstance(error, VerificationError):
        return _refuse(str(error), error.exit_code, "Verification failed:")
    if isinstance(error, PtychonnxError) and not isinstance(error, InternalError):
        return _refuse(str(error), error.exit_code)
    if isinstance(error, MemoryError):
        return _refuse("out of memory", 3)
    if isinstance(error, BrokenPipeError):
        return 141
    if isinstance(error, OSError):
        place = "" if error.filename is None else f"{error.filename}: "
        return _refuse(
            f"{place}{error.strerror or error}",
            2 if isinstance(error, _ERRORS_OF_PATHS) or error.errno == errno.ENAMETOOLONG else 3,
        )
    return _refuse(
        f"{type(error).__name__}: {error}. This is a fault in ptychonnx; please report it with {_write_log()}",
        InternalError.exit_code,
        "Internal error:",
    )


def _refuse(message: str, code: int, title: str = "Error:") -> int:
    line = one_line(message)
    if len(line) > _LONGEST_LINE:
        line = f"{line[: _LONGEST_LINE - 300]} ... {line[-290:]}"
    # The exit code tells a reader of the errors who went away.
    with suppress(BrokenPipeError):
        if line:
            errors.print(f"[bold red]{title}[/]", end=" ")
            print_lines(line, console=errors)
    return code


def _usage_message(error: TyperException) -> str:
    """The message of Typer, and where to read more; empty if Typer printed the page of help instead."""
    context = getattr(error, "ctx", None)
    message = error.format_message()
    place, quote, reason = message.partition("': ")
    if quote:
        message = f"{place}{quote}{expectation(reason)}"
    if not context or not message:
        return message
    end = "" if message.endswith("?") else "."
    return f"{message.rstrip('.')}{end} See {context.command_path} --help."


def _write_log() -> str:
    """Write the traceback that is being handled to a file; its path, or the traceback if no file can be written."""
    content = "\n".join(
        [
            shlex.join(["ptychonnx", *sys.argv[1:]]),
            f"Python {platform.python_version()} on {platform.platform()}",
            traceback.format_exc(),
        ]
    )
    for folder in (cache_folder() / "logs", Path(tempfile.gettempdir())):
        path = folder / time.strftime("ptychonnx-%Y%m%d-%H%M%S.log")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return str(path)
    return content
