"""The commands of `ptychonnx`. Each is loaded when it is asked for: all of them take seconds."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from ptychonnx.harness.cli.model_options import Command

if TYPE_CHECKING:
    from typer._click import Command as AnyCommand

__all__ = ["Commands", "load_command"]

# By the panel of `ptychonnx --help`. The module of a command has its name, and in it the function or, for commands with
# subcommands, `app`.
_PANELS = {
    "Train": ("simulate", "train", "study"),
    "Make artifacts": ("export", "export-module", "adopt", "specialise", "inspect", "sign"),
    "Use artifacts": (
        *("check", "reconstruct", "live", "replay", "merge", "slurm", "summary"),
        *("evaluate", "metrics", "bench", "ptychodus-child", "loadtest", "gpu-check", "deploy"),
    ),
    "This installation": ("info",),
}
_PANEL_OF = {name: panel for panel, names in _PANELS.items() for name in names}


class Commands(TyperGroup):
    """The group of all commands, of which only those that are used have been loaded."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the page of help."""
        return [*_PANEL_OF]

    def get_command(self, ctx: Any, cmd_name: str) -> AnyCommand | None:
        """A command, or None; all are loaded if there is none of this name, so that similar ones can be proposed."""
        if cmd_name not in self.commands:
            for name in [cmd_name] if cmd_name in _PANEL_OF else _PANEL_OF:
                self.commands[name] = load_command(name)
        return self.commands.get(cmd_name)


def load_command(name: str) -> AnyCommand:
    """Import the module of a command."""
    name_in_python = name.replace("-", "_")
    module = importlib.import_module(f"ptychonnx.harness.cli.{name_in_python}")
    parent = typer.Typer(rich_markup_mode="markdown", pretty_exceptions_enable=False)
    # Typer makes a group only of several commands, or with a callback.
    parent.callback()(lambda: None)
    if hasattr(module, "app"):
        parent.add_typer(module.app, name=name, rich_help_panel=_PANEL_OF[name])
    else:
        function = getattr(module, name_in_python)
        parent.command(name, cls=Command, rich_help_panel=_PANEL_OF[name])(function)
    return typer.main.get_group(parent).commands[name]
