"""Damage of files, drawn from a seeded generator: bytes, arrays, HDF5 objects, text, contracts, server answers."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.hostile.subjects import Subject, publish
from tests.runtime.test_formats_damaged import damage_arrays, damage_bytes, damage_datasets

__all__ = ["ORDERS", "damage"]

ORDERS = (
    "503",
    "500",
    "400",
    "401",
    "404",
    "reset",
    "cut",
    "slow",
    "shape",
    "name",
    "garbage",
    "newer",
    "gzip",
)
ORDERS += ("long", "endless", "drip", "drip head", "bytes", "deep", "less")
_TEXTS = (
    "",
    "[b]x[/c]",
    "$x_{$",
    "<script>",
    "../../x",
    "a\x00b",
    "nan",
    "-1",
    "1e400",
    "99999999999999999999",
    "&a [*a]",
    "!!python/object:os.system x",
    "2020-13-45",
    "[[[[1]]]]",
    "{a: {b: c}}",
    "ÿ" * 3,
    "x" * 3000,
    "null",
    "true",
    "0",
)
_VALUES = (None, -1, 0, 1e300, float("nan"), "", [], {}, "[/b]", 10**12, True, "x" * 3000, [[]], "$x_{$", 1.5)


def damage(subject: Subject, folder: Path, chance: random.Random) -> str:
    """Damage one file of a subject, and return how."""
    if subject.served:
        return f"answer: {chance.choice(ORDERS)}"
    name = chance.choice(sorted(subject.files))
    path = folder / name
    if path.suffix == ".onnx" and chance.random() < 0.5:
        return f"{name}: {damage_contract(path, chance)}"
    kinds = [damage_bytes]
    if path.suffix == ".npz":
        kinds += [damage_arrays] * 2
    elif path.read_bytes()[:8] == b"\x89HDF\r\n\x1a\n":
        kinds += [damage_datasets] * 2
    elif path.suffix in {".yaml", ".csv"}:
        kinds += [damage_text] * 3
    kind = chance.choice(kinds)
    kind(path, chance)
    return f"{name}: {kind.__name__.removeprefix('damage_')}"


def damage_text(path: Path, chance: random.Random) -> None:
    """Replace, repeat or drop a part of a line."""
    lines = path.read_text().splitlines()
    index = chance.randrange(len(lines))
    key, colon, value = lines[index].partition(":" if path.suffix == ".yaml" else ",")
    kind = chance.choice(["value", "value", "value", "key", "repeat", "drop", "line", "indent"])
    if kind == "value":
        lines[index] = f"{key}{colon} {chance.choice(_TEXTS)}"
    elif kind == "key":
        lines[index] = f"{chance.choice(_TEXTS)}{colon}{value}"
    elif kind == "repeat":
        lines.insert(index, lines[index])
    elif kind == "drop":
        del lines[index]
    elif kind == "line":
        lines.insert(index, chance.choice(_TEXTS))
    else:
        lines[index] = " " * chance.randrange(1, 5) + lines[index]
    path.write_text("\n".join(lines) + "\n")


def damage_contract(path: Path, chance: random.Random) -> str:
    """Another value in the contract of an artifact, whose hash is right."""
    place = ""

    def change(text: str) -> str:
        nonlocal place
        content = json.loads(text)
        parent, key = content, chance.choice(sorted(content))
        while isinstance(parent[key], dict) and parent[key] and chance.random() < 0.8:
            parent = parent[key]
            key = chance.choice(sorted(parent))
        value = chance.choice(_VALUES)
        place = f"contract, {key} = {json.dumps(value)[:30]}"
        parent[key] = value
        return json.dumps(content)

    publish(path, change)
    return place
