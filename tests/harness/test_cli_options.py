"""Options of commands, derived from the models of their subjects."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pytest
import typer
import yaml
from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.harness.cli.app import all_commands
from ptychonnx.harness.cli.model_options import Omit, TypedOnly, derive_options

COMMANDS = [
    "simulate lines",
    "train",
    "study lines",
    "study robustness",
    "export",
    "export-module",
    "adopt",
    "specialise",
    "inspect",
    "sign",
    "info",
    "reconstruct",
    "live",
    "replay",
    "evaluate",
    "bench",
    "loadtest",
    "gpu-check",
    "deploy triton",
    "deploy openvino",
    "deploy mlserver",
    "deploy kserve",
]


def command(name: str) -> Any:
    found = all_commands()
    for word in name.split():
        found = found.commands[word]
    return found


class Settings(BaseModel):
    side: int = Field(default=8, ge=2, description="Side of a square, in pixels")
    kind: Literal["square", "round"] = Field(default="square", description="Shape")
    labels: dict[str, str] = Field(
        default_factory=dict, description="Names", json_schema_extra={"flag": "--label"}
    )
    sizes: tuple[Annotated[int, Field(gt=0)], ...] = Field(default=(), description="Sizes")
    careful: bool = Field(default=True, description="Check everything")
    secret: int = Field(default=0, description="Not an option")


@pytest.fixture
def invoke():
    """`invoke(command, *words)` calls a command with these words."""

    def call(function: Any, *words: str) -> None:
        one = typer.Typer()
        one.command()(derive_options(function))
        typer.main.get_command(one)(list(words), standalone_mode=False)

    return call


def test_a_model_becomes_options_and_comes_back(invoke, tmp_path):
    received = []

    def work(settings: Annotated[Settings, Omit("secret")]) -> None:
        received.append(settings)

    invoke(work)
    assert received[-1] == Settings()
    invoke(
        work,
        "--side",
        "4",
        "--label",
        "a=b",
        "--label",
        "c=d=e",
        "--sizes",
        "1",
        "--sizes",
        "2",
        "--no-careful",
    )
    assert received[-1] == Settings(side=4, labels={"a": "b", "c": "d=e"}, sizes=(1, 2), careful=False)
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({"side": 5, "label": {"x": "y"}, "sizes": [3], "careful": False}))
    invoke(work, "--config", str(path), "--side", "6")
    assert received[-1] == Settings(side=6, labels={"x": "y"}, sizes=(3,), careful=False)


def test_typed_options_alone_reach_a_dictionary(invoke):
    received = []

    def work(settings: Annotated[dict[str, Any], TypedOnly(Settings)]) -> None:
        received.append(settings)

    invoke(work)
    invoke(work, "--side", "8", "--careful")
    assert received == [{}, {"side": 8, "careful": True}]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--side", "1"], "--side 1: expected a value greater than or equal to 2"),
        (["--sizes", "3", "--sizes", "0"], "--sizes 0: expected a value greater than 0"),
        (["--label", "a"], "--label a: expected KEY=PATH"),
    ],
)
def test_a_refused_value_is_named_with_its_option(invoke, words, message):
    def work(settings: Settings) -> None:
        raise AssertionError

    with pytest.raises(ValueError, match=message):
        invoke(work, *words)


def test_an_omitted_field_must_exist():
    def work(settings: Annotated[Settings, Omit("colour")]) -> None:
        pass

    with pytest.raises(TypeError, match="Settings has no fields colour"):
        derive_options(work)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_of_help_fits_a_screen_and_a_half_and_describes_every_option(run, name):
    code, text, err = run(*name.split(), "--help", columns=100)
    assert code == 0, err
    assert len(text.splitlines()) <= 75
    for parameter in command(name).params:
        text = "hidden from help" if parameter.hidden else parameter.help
        assert len(text.split()) > 1, parameter.name
        assert not text.startswith("Of ")


@pytest.mark.parametrize(
    ("page", "option"),
    [("--help-scan", "--positions-unit"), ("--help-server", "--tls-ca"), ("--help-many", "--shards")],
)
def test_long_groups_of_options_have_their_own_pages(run, page, option):
    _, text, _ = run("reconstruct", "--help", columns=100)
    assert page in text
    assert option not in text
    code, text, _ = run("reconstruct", page, columns=100)
    assert code == 0
    assert option in text
    assert "--picture" not in text
    assert len(text.splitlines()) <= 75


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("inspect", "sign", "info")])
def test_every_command_with_options_reads_them_from_a_file(run, tmp_path, name):
    path = tmp_path / "bad.yaml"
    path.write_text("colour: red\n")
    code, out, err = run(*name.split(), "--config", path)
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: {path}: colour is no option of this command; the nearest is ")


def test_a_file_configures_a_reconstruction(run, four_artifacts, lines_scan, tmp_path):
    from ptychonnx.runtime.formats import write_scan

    write_scan(tmp_path / "scan.npz", lines_scan)
    path = tmp_path / "settings.yaml"
    path.write_text(f"out: {tmp_path / 'o.npz'}\nweighting: uniform\nbatch: 5\npixel-size: 2.0e-8\n")
    code, out, err = run("reconstruct", four_artifacts[0], tmp_path / "scan.npz", "--config", path)
    assert code == 0, err
    assert "weighting uniform" in out
    assert Path(tmp_path / "o.npz").is_file()


class Words(BaseModel):
    note: str = Field(default="", description="Text")
    file: Path | None = Field(default=None, description="File")
    keep: bool = Field(default=False, description="Keep")


class More(Words):
    model_config = ConfigDict(
        title="More", json_schema_extra={"help_option": "--help-more", "help_subject": "of more"}
    )
    keep_it: bool = Field(default=False, description="Keep it")


@pytest.mark.parametrize("text", ["1.10", "yes", "off", "2020-1-1", "1_000", "0x10", "1e9", "true"])
def test_texts_of_a_file_are_those_that_were_written(invoke, tmp_path, text):
    received = []

    def work(settings: Words) -> None:
        received.append(settings)

    path = tmp_path / "settings.yaml"
    path.write_text(f"note: {text}\nfile: {text}\nkeep: yes\n")
    invoke(work, "--config", str(path))
    assert received == [Words(note=text, file=Path(text), keep=True)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file: ''", "file = '': expected one value"),
        ("file: []", "file = .*expected one value"),
        ("file: [a, b]", "file = .*expected one value"),
        ("file: {a: b}", "file = .*expected one value"),
        ("file: !!binary aGVsbG8=", "file = .*expected one value"),
        ("note: ''", "note = '': expected a text"),
        ("note: [[a], b]", "note = .*expected a text"),
        ("keep-it: true\nkeep_it: false", "keep_it is given twice"),
        ("help-more: true", "help-more is no option"),
    ],
)
def test_values_of_a_file_that_the_command_line_would_refuse_are_refused(invoke, tmp_path, content, message):
    def work(settings: More) -> None:
        raise AssertionError

    path = tmp_path / "settings.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        invoke(work, "--config", str(path))


def test_an_option_of_a_command_states_its_default_as_those_of_models_do():
    def work(
        rounds: Annotated[int, typer.Option(help="Rounds.")] = 0,
        reduced: Annotated[bool, typer.Option(help="Reduce.")] = True,
        out: Annotated[str | None, typer.Option(help="File.")] = None,
        *,
        settings: Settings,
    ) -> None: ...

    parameters = inspect.signature(derive_options(work)).parameters
    texts = {name: get_args(parameters[name].annotation)[1].help for name in ("rounds", "reduced", "out")}
    assert texts == {"rounds": "Rounds. Default: 0.", "reduced": "Reduce. Default: on.", "out": "File."}
    assert get_args(parameters["side"].annotation)[1].help.endswith("Default: 8.")
