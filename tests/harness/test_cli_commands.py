"""The list of commands: each is loaded alone, and all are found."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from ptychonnx.harness.cli.app import all_commands

MODULES = Path(__file__).parents[2] / "harness" / "cli"
# Prints the modules of commands that one command loads.
PROGRAM = """
import sys
from ptychonnx.harness.cli import main
try:
    main()
finally:
    print(sorted(name for name in sys.argv.pop().split(",") if f"ptychonnx.harness.cli.{name}" in sys.modules))
"""
# Prints how often everything was searched for garbage, and whether most objects are left out of the last search.
SEARCHES = """
import atexit, gc
searches = []
gc.callbacks.append(lambda phase, details: searches.append(details["generation"]))
atexit.register(lambda: print(searches.count(2), gc.get_freeze_count() > 10 * len(gc.get_objects())))
from ptychonnx.harness.cli import main
main()
"""


def test_every_module_that_defines_a_command_is_in_the_list() -> None:
    commands = all_commands().commands
    modules = {path.stem for path in MODULES.glob("*.py") if f'__all__ = ["{path.stem}"]' in path.read_text()}
    modules |= {path.stem for path in MODULES.glob("*.py") if '\n__all__ = ["app"]' in path.read_text()}
    assert {name.replace("-", "_") for name in commands} == modules
    assert len(commands) > 20


def test_a_command_does_not_wait_for_the_modules_of_others() -> None:
    names = ",".join(name.replace("-", "_") for name in all_commands().commands)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("sys.argv.pop()", repr(names)), "metrics", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "['metrics']"


def test_a_command_that_loads_a_framework_does_not_search_it_for_garbage() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SEARCHES, "export", "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 True"


def test_the_version_is_that_of_the_installed_package(run) -> None:
    assert run("--version") == (0, f"ptychonnx {version('ptychonnx')}\n", "")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("recnstruct", "No such command 'recnstruct'. Did you mean 'reconstruct'? See ptychonnx --help."),
        ("x", "No such command 'x'. See ptychonnx --help."),
    ],
)
def test_a_command_that_does_not_exist_is_refused_with_a_similar_name(run, word, message) -> None:
    code, out, err = run(word)
    assert (code, out) == (2, "")
    assert " ".join(err.split()) == f"Error: {message}"


def test_the_page_of_help_lists_every_command_in_its_panel(run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    panels = out.split("─ ")[1:]
    for panel, name in (
        ("Train", "study"),
        ("Make artifacts", "export-module"),
        ("Use artifacts", "evaluate"),
    ):
        assert f"│ {name} " in next(text for text in panels if text.startswith(panel)), name
