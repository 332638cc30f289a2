"""Damage of files, drawn from a seeded generator: bytes, arrays, HDF5 objects, text, contracts, server answers."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ptychonnx.runtime.contract import CONTRACT_KEY
from ptychonnx.runtime.contract.integrity import CONTRACT_HASH_KEY, contract_sha256, graph_sha256
from tests.hostile.subjects import Subject
from tests.runtime.conftest import SIZE
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
ORDERS += ("long", "endless", "drip", "drip head", "bytes", "deep", "less", "nan", "nothing")
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
    if subject.name == "server/description":
        return f"description: {damage_description(chance)}"
    if subject.served:
        return f"answer: {chance.choice(ORDERS)}"
    name = chance.choice(sorted(subject.files))
    path = folder / name
    if subject.name.startswith("network/"):
        return f"{name}: {damage_constants(path, chance)}"
    if path.suffix == ".onnx" and chance.random() < 0.5:
        return f"{name}: {damage_contract(path, chance)}"
    kinds = [damage_bytes]
    if path.suffix == ".npz":
        kinds += [damage_arrays] * 2
    elif path.read_bytes()[:8] == b"\x89HDF\r\n\x1a\n":
        kinds += [damage_datasets] * 2
    elif path.suffix in {".yaml", ".csv"}:
        kinds += [damage_text] * 3
    elif path.suffix == ".jsonl":
        kinds += [damage_journal] * 3
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
    model = onnx.load(path)
    (text,) = (entry.value for entry in model.metadata_props if entry.key == CONTRACT_KEY)
    text, place = damage_json(text, chance)
    helper.set_model_props(model, {CONTRACT_KEY: text, CONTRACT_HASH_KEY: contract_sha256(text)})
    onnx.save(model, path)
    return f"contract, {place}"


def damage_constants(path: Path, chance: random.Random) -> str:
    """Other values in a constant of an artifact, all of whose hashes are right."""
    model = onnx.load(path)
    tensor = chance.choice(list(model.graph.initializer))
    values = numpy_helper.to_array(tensor).copy()
    value = chance.choice([np.nan, np.inf, 3e38, -3e38, 1e-40, 0, -1, 10**9])
    everywhere = values.ndim == 0 or chance.random() < 0.5
    with np.errstate(invalid="ignore"):
        values[... if everywhere else (0,) * values.ndim] = np.array(value).astype(values.dtype)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    (text,) = (entry.value for entry in model.metadata_props if entry.key == CONTRACT_KEY)
    text = json.dumps(json.loads(text) | {"graph_sha256": graph_sha256(model)})
    helper.set_model_props(model, {CONTRACT_KEY: text, CONTRACT_HASH_KEY: contract_sha256(text)})
    onnx.save(model, path)
    return f"{tensor.name} = {value:g}"


def damage_description(chance: random.Random) -> str:
    """What a server answers instead of a description: a part of the path, and an order or a text."""
    from tests.runtime.failing_server import ANYWHERE, Script
    from tests.runtime.test_session import contract

    script = Script(contract().to_json(), SIZE, -1)
    right = {
        "network": script.metadata(),
        "config": script.config(),
        "v2": {"name": "script", "extensions": ["binary_tensor_data"]},
        "ready": {"ready": True},
    }
    place = chance.choice(sorted(right))
    if chance.random() < 0.4:
        return f"{place} {chance.choice(['503', '404', '401', *sorted(ANYWHERE)])}"
    return f"{place} {damage_json(json.dumps(right[place]), chance)[0]}"


def damage_journal(path: Path, chance: random.Random) -> None:
    """Another value in a line of JSON, a line that is cut short, or another line before it."""
    line = path.read_text().splitlines()[0]
    kind = chance.choice(["value", "value", "value", "cut", "line"])
    if kind == "value":
        line, _ = damage_json(line, chance)
    elif kind == "cut":
        line = line[: chance.randrange(len(line))]
    else:
        line = chance.choice([*_TEXTS, "[" * 100_000, "{}"]) + "\n" + line
    path.write_text(line + chance.choice(["\n", ""]))


def damage_json(text: str, chance: random.Random) -> tuple[str, str]:
    """JSON of an object with another value in one place, and the place."""
    content = json.loads(text)
    parent, key = content, chance.choice(sorted(content))
    while isinstance(parent[key], dict | list) and parent[key] and chance.random() < 0.8:
        parent = parent[key]
        key = chance.choice(sorted(parent) if isinstance(parent, dict) else range(len(parent)))
    value = chance.choice(_VALUES)
    parent[key] = value
    return json.dumps(content), f"{key} = {json.dumps(value)[:30]}"
