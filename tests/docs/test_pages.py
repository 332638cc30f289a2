"""Every block of code in the documentation is run, or says why it is not.

Blocks marked `sh` and `python` are run, page by page and in order, in a folder with networks of the zoo and a small
scan; `yaml`, `toml` and `python` blocks with a title are written to the file of that name. A block that is not run
follows a comment `<!-- not run: reason -->`; its `ptychonnx` commands are still parsed.

The pages that people read first run the installed command; on the others a server with the libraries loaded forks for
each command, see `tests/command_server.py`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from ptychonnx.harness.cli.app import all_commands

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *ROOT.glob("docs/**/*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
        *(ROOT / folder / "README.md" for folder in ("examples", "train", "zoo", "integrations/ptychodus")),
    )
)
RUN_ELSEWHERE = {"docs/how-to/deploy.md": "tests/guides/test_deploy.py"}
INSTALLED = Path(sys.executable).parent
FIRST_PAGES = {"README.md", "docs/tutorial/index.md"}
LANGUAGES = {"ini", "sh", "python", "shell", "yaml", "toml", "text", "json"}
_FENCE = re.compile(
    r"(?P<reason><!-- not run: [^\n]+ -->\n\n?)?^(?P<indent> *)```(?P<language>\w*)(?P<title>[^\n]*)\n"
    r"(?P<code>.*?)^(?P=indent)```$(?P<after>\n<!-- not run: [^\n]+ -->)?",
    re.MULTILINE | re.DOTALL,
)


def options_of(command: click.Command) -> set[str]:
    """The options of a command and of all its subcommands."""
    names = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return names.union(*map(options_of, getattr(command, "commands", {}).values()))


APPLICATION = all_commands()
OPTIONS = options_of(APPLICATION) | {"--help"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    title: str | None
    code: str
    skipped: bool


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for match in _FENCE.finditer((ROOT / page).read_text(encoding="utf-8")):
        title = re.search(r'title="([^"]+)"', match["title"])
        found.append(
            Block(
                match["language"], title and title[1], match["code"], bool(match["reason"] or match["after"])
            )
        )
    return found


def commands(code: str) -> Iterator[list[str]]:
    """The `ptychonnx` commands of a block, without their first word."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line.partition(" #")[0])
        if words and Path(words[0]).name == "ptychonnx":
            yield words[1:]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page}: a block of no known language:\n{block.code}"
        if block.language == "shell":
            assert block.skipped, f"{page}: no reason why this is not run:\n{block.code}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_those_of_the_application(page):
    for block in blocks(page):
        if block.language in {"sh", "shell"}:
            for words in commands(block.code):
                parse(words)


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CONTRIBUTING.md"])
def test_options_in_the_text_are_those_of_some_command(page):
    text = re.sub(
        r"^ *```.*?^ *```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    for code in re.findall(r"`((?:ptychonnx |--)[^`\n]+)`", text):
        assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", code)) <= OPTIONS, code


def parse(words: list[str]) -> None:
    """Check the names of a command and of its options."""
    command: click.Command = APPLICATION
    while hasattr(command, "commands"):
        name, *words = words
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in options_of(command), f"{command.name} has no option {word}"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small scan."""
    folder = tmp_path_factory.mktemp("prepared")
    shell("ptychonnx simulate lines --train-grid 4 --test-grid 5 --out simulated", folder)
    return folder


@pytest.fixture
def clone(tmp_path: Path, prepared: Path) -> Path:
    """A folder as the reader of a page has it."""
    for entry in ROOT.iterdir():
        if entry.name not in {".git", "models", "data", "runs", "repo", "report", "build"}:
            (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "models").mkdir()
    for name in ("pinn_fno", "baseline"):
        shutil.copyfile(ROOT / "zoo" / f"{name}.onnx", tmp_path / "models" / f"{name}.onnx")
    shutil.copytree(prepared / "simulated", tmp_path / "data")
    return tmp_path


def shell(code: str, folder: Path, programs: Path = INSTALLED) -> None:
    """Run a block of commands, which must end well; `ptychonnx` is that of a folder."""
    run(["bash", "-euc", code], code, folder, programs)


def run(command: list[str], code: str, folder: Path, programs: Path = INSTALLED) -> None:
    environment = os.environ | {
        "PATH": f"{programs}:{INSTALLED}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "PTYCHONNX_CACHE": str(folder / ".cache"),
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, text=True, capture_output=True, check=False, timeout=500
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


def runs(block: Block) -> bool:
    return not block.skipped and (block.language in {"sh", "python"} or block.title is not None)


@pytest.mark.integration
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in RUN_ELSEWHERE and any(map(runs, blocks(page)))]
)
def test_the_blocks_of_a_page_run_in_order(page, clone, request):
    programs = INSTALLED if page in FIRST_PAGES else request.getfixturevalue("programs")
    for block in filter(runs, blocks(page)):
        if block.title is not None:
            (clone / block.title).unlink(missing_ok=True)
            (clone / block.title).write_text(block.code, encoding="utf-8")
        elif block.language == "sh":
            shell(block.code, clone, programs)
        else:
            run([sys.executable, "-c", block.code], block.code, clone)
