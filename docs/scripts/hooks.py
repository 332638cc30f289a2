"""Hooks of MkDocs: pages that are generated when the site is built.

The home page is `README.md`, the page of the zoo `zoo/README.md`. Commands come from the Typer application, the table
of exit codes from the error classes, the fields of the contract from its schema, and tables of results from the JSON
files next to their pages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import architecture  # next to this file, where MkDocs looks for modules of a hook
import beam_tables
import exporters
import live
import scale
from markdown_tables import ROOT, results, whole
from markdown_tables import table as markdown_table
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_FIGURES = {
    "amplitude_ssim": "amplitude SSIM",
    "amplitude_pearson": "amplitude Pearson",
    "phase_ssim": "phase SSIM",
    "phase_pearson": "phase Pearson",
    "phase_ssim_synchronised": "phase SSIM, synchronised",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the decisions in the navigation."""
    for section in config.nav or []:
        if "Decisions" in section:
            section["Decisions"] += [f"decisions/{page.name}" for page in _decisions()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {
        "index.md": _moved("README.md", "", "index.md"),
        "contributing.md": _moved("CONTRIBUTING.md", "", "contributing.md"),
        "results/zoo.md": _moved("zoo/README.md", "zoo", "results/zoo.md"),
        "reference/commands.md": commands(),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Fill the marks `<!-- generated: NAME ARGUMENT -->` of a page, and lead links to READMEs to their pages."""
    filled = re.sub(
        r"<!-- generated: (\w+) ?(\w*) -->",
        lambda mark: _GENERATORS[mark[1]](*filter(None, [mark[2]])),
        markdown,
    )
    up = "../" * page.file.src_uri.count("/")
    return filled.replace("(../../zoo/README.md)", f"({up}results/zoo.md)").replace(
        "(../../README.md", f"({up}index.md"
    )


def on_page_content(html: str, **_: Any) -> str:
    """Keep the dashes of an option on the line of its name."""
    return re.sub(r"<code>(--[\w-]+(?: \w+)?)</code>", r'<code class="option">\1</code>', html)


def _moved(source: str, folder: str, target: str) -> str:
    """A Markdown file of the repository as a page of the site: relative links lead to the pages that they name.

    A link to a file that is no page of the site becomes the path of that file.
    """
    pages = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "zoo/README.md": "results/zoo.md"}
    up = "../" * target.count("/")

    def link(found: re.Match[str]) -> str:
        bang, text, address = found.groups()
        if re.match(r"[a-z]+:|#", address):
            return found[0]
        path, hash_, anchor = address.partition("#")
        parts: list[str] = []
        for part in [*folder.split("/"), *path.split("/")]:
            if part == "..":
                parts.pop()
            elif part:
                parts.append(part)
        name = "/".join(parts)
        if name in pages or name.startswith("docs/"):
            return f"{bang}[{text}]({up}{pages.get(name, name.removeprefix('docs/'))}{hash_}{anchor})"
        return text if text.startswith("`") else f"{text} (`{name}`)"

    text = (ROOT / source).read_text(encoding="utf-8")
    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", link, text)


def commands() -> str:
    """The page of commands, one section for each, from the application itself."""
    from typer import Context

    from ptychonnx.harness.cli.app import all_commands

    root = all_commands()
    lines = ["# Commands", "", root.help or "", ""]
    groups = [("ptychonnx", root)]
    while groups:
        prefix, group = groups.pop(0)
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            full = f"{prefix} {name}"
            if getattr(command, "hidden", False):
                continue
            if hasattr(command, "commands"):
                groups.append((full, command))
                continue
            lines += _command(full, command, Context(command, info_name=full))
    return "\n".join(lines) + "\n"


def _command(name: str, command: Any, context: Any) -> Iterable[str]:
    rows, panels = [], {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or record[0].strip() == "--help":
            continue
        panel = getattr(parameter, "rich_help_panel", None)
        panel = panel or ("Arguments" if parameter.param_type_name == "argument" else "Options")
        panels.setdefault(panel, []).append(f"| {_cell(f'`{record[0]}`')} | {_cell(record[1] or '')} |")
    for panel, options in panels.items():
        rows += [f"**{panel}**", "", "| | |", "| --- | --- |", *options, ""]
    usage = f"{name} {' '.join(command.collect_usage_pieces(context))}"
    text = re.sub(r"^\s*\x08\s*$", "", command.help or "", flags=re.MULTILINE)
    return [f"## `{name}`", "", text, "", "```text", usage, "```", "", *rows]


def _cell(text: str) -> str:
    """Text for a cell of a table: one line, without HTML outside of code."""
    parts = " ".join(text.split()).split("`")
    # A bar inside of code ends no cell, and a backslash there would be shown.
    return "`".join(
        part if index % 2 else part.replace("<", "&lt;").replace("|", "\\|")
        for index, part in enumerate(parts)
    )


def exit_codes() -> str:
    """The table of errors and exit codes, from the docstring of `ptychonnx.runtime.errors`."""
    from ptychonnx.runtime import errors

    return "\n".join(line for line in (errors.__doc__ or "").splitlines() if line.startswith("|"))


def contract() -> str:
    """Fields of the contract, a table for each part, from its JSON schema."""
    schema = json.loads((ROOT / "docs/reference/contract.schema.json").read_text(encoding="utf-8"))
    parts = {"Contract": schema} | schema["$defs"]
    lines: list[str] = []
    for name, part in parts.items():
        if "properties" not in part:
            continue
        lines += [
            f"## {name}",
            "",
            part.get("description", "").partition("\n\nExamples")[0],
            "",
            "| field | type | meaning |",
            "| --- | --- | --- |",
        ]
        for key, field in part["properties"].items():
            kind = _cell(_type(field))
            lines.append(f"| `{key}` | {kind} | {_cell(field.get('description', ''))} |")
        lines.append("")
    return "\n".join(lines)


def _type(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}" if "items" in field else "list"
    return str(field.get("type", "any"))


def options(model: str) -> str:
    """The fields of a model of options, with type, default and meaning."""
    from ptychonnx.runtime.formats import ReadOptions
    from ptychonnx.train.config import NetworkConfig, TrainingConfig

    models = {model.__name__: model for model in (NetworkConfig, ReadOptions, TrainingConfig)}
    rows = []
    for name, field in models[model].__pydantic_fields__.items():
        default = field.get_default(call_default_factory=True)
        shown = "–" if default in (None, {}) else f"`{default}`"
        rows.append([f"`{name}`", shown, _cell(field.description or "")])
    return markdown_table(["setting", "default", "meaning"], rows)


def settings(network: str = "") -> str:
    """A table of training choices: those of one network, or of the longer training of `hybrid`."""
    part, time, heading = ("settings", "minutes_at_most", "minutes, at most")
    if network:
        part, time, heading = f"settings_{network}", "core_minutes", "core-minutes"
    return _figures(part, {"setting": "setting"}, _FIGURES | {time: heading})


def last_steps() -> str:
    """The table of the steps after the network."""
    return _figures("last_steps", {"network": "network", "last_steps": "last steps"}, _FIGURES)


def bounds() -> str:
    """The table of what limits a reconstruction without any network."""
    return _figures("bounds", {"setting": "setting"}, dict(list(_FIGURES.items())[:4]))


def _figures(part: str, names: Mapping[str, str], figures: Mapping[str, str]) -> str:
    """A table from a part of `results/quality.json`."""
    rows = [
        [str(row[key]) for key in names]
        + [
            "–" if row[key] is None else f"{row[key]:.1f}" if "minutes" in key else f"{row[key]:.3f}"
            for key in figures
        ]
        for row in results("quality")[part]
    ]
    return markdown_table([*names.values(), *figures.values()], rows)


def rooms(part: str) -> str:
    """The table of rooms, or of the way of a scan or a checkpoint, from `explanation/architecture.yaml`."""
    return architecture.tables(architecture.read_list())[part]


def table(part: str) -> str:
    """A table that a benchmark wrote."""
    return "\n".join(results("tables")[part])


def robustness() -> str:
    """The tables of robustness, one for each axis."""
    parts = []
    for axis, content in results("robustness").items():
        rows = [[f"`{network}`", *map(whole, cells)] for network, cells in content["networks"].items()]
        parts += [f"**{axis}**: {content['meaning']}", markdown_table(["network", *content["levels"]], rows)]
    return "\n\n".join(parts)


def neuraloperator() -> str:
    """The table of layers and models of neuraloperator."""
    rows = results("neuraloperator")
    return markdown_table(
        list(rows[0]), [[*list(row.values())[:3], whole(row["error"]), row["file"]] for row in rows]
    )


def decisions() -> str:
    """The table of decisions, from the titles of their pages."""
    rows = []
    for page in _decisions():
        number, _, title = (
            page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").partition(". ")
        )
        rows.append([number, f"[{title}]({page.name})"])
    return markdown_table(["", "decision"], rows)


def _decisions() -> list[Path]:
    return sorted((ROOT / "docs/decisions").glob("0*.md"))


_GENERATORS = {
    function.__name__: function
    for function in (
        exit_codes,
        contract,
        options,
        settings,
        last_steps,
        bounds,
        rooms,
        table,
        robustness,
        neuraloperator,
        beam_tables.unseen_beams,
        beam_tables.fine_tuned_beams,
        beam_tables.probe_modes,
        beam_tables.held_out,
        beam_tables.regimes,
        beam_tables.lsqml,
        beam_tables.calibration,
        decisions,
    )
} | {"exporters": exporters.table, "scale": scale.table, "live": live.table}
