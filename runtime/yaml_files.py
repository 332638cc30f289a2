"""YAML files that a user wrote, read within bounds: no aliases, no repeated keys, bounded size and depth."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from ptychonnx.runtime.errors import InputError

__all__ = ["read_yaml_mapping"]

_LARGEST_FILE = 64 * 1024  # bytes; settings of a run are below 2 kB
_DEEPEST = 16
# YAML 1.1 reads 1:30 as 90 and 0100 as 64, which nobody expects.
_OTHER_BASE = re.compile(r"[-+]?(?:0[0-7_]+|.*:.*)")


class _BoundedLoader(yaml.SafeLoader):
    """`SafeLoader` without aliases, which let 500 bytes stand for gigabytes, and without repeated keys."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self._refuse("aliases (*name) are not accepted")
        self._depth += 1
        if self._depth > _DEEPEST:
            self._refuse(f"nested more than {_DEEPEST} levels deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key_node, _ in node.value:
            if keys.count(key_node.value) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key_node.value!r} is repeated", problem_mark=key_node.start_mark
                )
        return super().construct_mapping(node, deep=deep)

    def _refuse(self, problem: str) -> None:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.peek_event().start_mark)


def _number(loader: _BoundedLoader, node: yaml.ScalarNode) -> int | float:
    if _OTHER_BASE.fullmatch(node.value):
        raise yaml.MarkedYAMLError(
            problem=f"{node.value[:40]} would be a number in base 60 or 8: write it in quotes or as a decimal number",
            problem_mark=node.start_mark,
        )
    whole = node.tag.endswith(":int")
    return loader.construct_yaml_int(node) if whole else loader.construct_yaml_float(node)


class _WrittenLoader(_BoundedLoader):
    """Keeps numbers, dates and words such as `yes` as they are written."""


def _written(loader: _BoundedLoader, node: yaml.ScalarNode) -> str:
    if node.tag.endswith((":int", ":float")):
        _number(loader, node)
    return str(node.value)


for _tag in ("int", "float"):
    _BoundedLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _number)
for _tag in ("int", "float", "bool", "timestamp"):
    _WrittenLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _written)


def read_yaml_mapping(
    path: str | os.PathLike[str], expected: str, *, as_written: bool = False
) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises InputError if the file cannot be read, is too large, is not valid YAML, uses aliases, repeats a key, is
    nested more than 16 levels deep, or is not a mapping. The message names the line.

    * `path`: a regular file of at most 64 kB.
    * `expected`: what the file should hold, for the error: "a mapping of options to values".
    * `as_written`: keep numbers, dates and words such as ``yes`` as texts: 1.10 is not 1.1.

    Returns the mapping; keys are strings. An empty file is an empty mapping.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: not a regular file, expected {expected}")
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected {expected}") from error
    if len(data) > _LARGEST_FILE:
        raise InputError(f"{path}: larger than {_LARGEST_FILE // 1024} kB, expected {expected}")
    try:
        content = yaml.load(data.decode("utf-8"), Loader=_WrittenLoader if as_written else _BoundedLoader)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text, expected {expected}") from error
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise InputError(f"{path}: {line}{error.problem}, expected {expected} in YAML") from error
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:  # such as the date 2020-13-45
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: invalid YAML ({reason}), expected {expected}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected {expected}")
    return {str(key): value for key, value in content.items()}
