"""The application: commands put together, and errors turned into one line and an exit code."""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from ptychonnx.harness.cli import (
    adopt,
    bench,
    deploy,
    evaluate,
    export,
    export_module,
    inspect,
    reconstruct,
    sign,
    simulate,
    study,
    train,
)
from ptychonnx.harness.cli.console import errors
from ptychonnx.runtime.errors import PtychonnxError, VerificationError

__all__ = ["app", "main"]

app = typer.Typer(
    name="ptychonnx",
    help="Train ptychography networks in their own framework, compile them to ONNX, and compare them all "
    "through one runtime, one stitcher and one set of metrics.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(simulate.app, name="simulate")
app.command("train")(train.train)
app.command("export")(export.export)
app.command("export-module")(export_module.export_module)
app.command("adopt")(adopt.adopt)
app.command("inspect")(inspect.inspect)
app.command("sign")(sign.sign)
app.command("reconstruct")(reconstruct.reconstruct)
app.command("evaluate")(evaluate.evaluate)
app.command("bench")(bench.bench)
app.add_typer(deploy.app, name="deploy")
app.add_typer(study.app, name="study")


def main() -> None:
    """Run the command line. Exit codes: 0 success, 130 interrupted, others in `ptychonnx.runtime.errors`."""
    try:
        app()
    except VerificationError as error:
        errors.print(f"[bold red]Verification failed:[/] {_one_line(error)}", soft_wrap=True)
        sys.exit(error.exit_code)
    except PtychonnxError as error:
        errors.print(f"[bold red]Error:[/] {_one_line(error)}", soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        errors.print("Interrupted; nothing half-written was left behind.")
        sys.exit(130)


def _one_line(error: Exception) -> str:
    return escape(" ".join(str(error).split()))
