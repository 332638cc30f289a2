"""`ptychonnx info`: what to paste into a bug report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ptychonnx.harness.cli.console import print_lines
from ptychonnx.harness.installation import describe_installation

__all__ = ["info"]


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Print versions, the providers that work here, the processor and the folders: paste it into a **bug report**.

    Each provider is tried with a model of one operator, since onnxruntime lists providers without a device too.

    Example: `ptychonnx info --json > info.json`
    """
    description = describe_installation()
    if as_json:
        print(json.dumps(description, indent=2))
        return
    for title, line in _lines(description):
        print_lines(f"{title:<14}{line}")


def _lines(description: dict[str, Any]) -> Iterator[tuple[str, str]]:
    machine = description["machine"]
    yield "versions", _pairs(description["versions"])
    for extra, packages in description["extras"].items():
        missing = [name for name, version in packages.items() if version is None]
        yield (f"[{extra}]", f"not installed: {', '.join(missing)}" if missing else _pairs(packages))
    for name, state in description["providers"].items():
        yield name, state
    yield "system", machine["system"]
    yield (
        "processor",
        f"{machine['processor']} ({', '.join(machine['vector_instructions']) or 'no vector units'})",
    )
    memory = machine["memory_gb"]
    yield (
        "threads",
        f"{machine['threads_available']} of {machine['threads']} available"
        + (f", {memory:g} GB of memory" if memory else ""),
    )
    yield (
        "environment",
        _pairs(description["environment"]) or "no variable that ptychonnx or its engines read",
    )
    for name, folder in description["folders"].items():
        yield name, folder


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
