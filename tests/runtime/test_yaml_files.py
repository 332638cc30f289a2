"""YAML files of users: whatever they hold, the answer is a mapping or one line."""

from __future__ import annotations

import os

import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.yaml_files import read_yaml_mapping

LAUGHS = "\n".join(
    ["a0: &a0 [lol, lol, lol]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 40))]
)
HOSTILE = {
    "aliases": (LAUGHS, r"line 2: aliases"),
    "anchor to itself": ("a: &a [*a]", r"line 1: aliases"),
    "impossible date": ("origin: 2020-13-45", r"invalid YAML \(month must be in 1\.\.12\)"),
    "impossible time": ("origin: 2020-01-01 99:99:99", r"invalid YAML"),
    "repeated key": ("n: 64\nlabel: a\nn: 128", r"line 1: the key 'n' is repeated"),
    "repeated key below": ("output:\n  gain: 1\n  gain: 2", r"line 2: the key 'gain' is repeated"),
    "deep": ("[" * 5000, r"nested more than 16 levels"),
    "long": ("a: " + "x" * 70_000, r"larger than 64 kB"),
    "long number": ("a: " + "9" * 5000, r"invalid YAML"),
    "base 60": ("time: 1:30", r"line 1: 1:30 would be a number in base 60 or 8"),
    "base 60 with a fraction": ("time: 1:30.5", r"line 1: 1:30\.5 would be"),
    "base 8": ("crop: 0100", r"line 1: 0100 would be a number in base 60 or 8"),
    "python object": ("a: !!python/object/apply:os.system ['true']", r"line 1: could not determine"),
    "no YAML": ("a: [1, 2", r"line 1: expected ',' or ']'"),
    "control character": ("a: \x07", r"invalid YAML"),
    "unhashable key": ("? [1, 2]\n: 3", r"line 1: found unhashable key"),
    "list": ("- 1\n- 2", r"holds a list"),
    "number": ("3", r"holds a int"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_one_line_that_names_file_and_place(kind, tmp_path):
    text, message = HOSTILE[kind]
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as refusal:
        read_yaml_mapping(path, "a mapping of options to values")
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500
    assert "expected a mapping of options to values" in str(refusal.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        read_yaml_mapping(path, "a mapping")


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_what_is_no_file_is_refused_at_once(kind, tmp_path):
    path = tmp_path / "settings.yaml"
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(InputError, match=r"No such file|not a regular file"):
        read_yaml_mapping(path, "a mapping")


def test_values_are_those_of_yaml(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("n: 64\nnested:\n  list: [1, 2.5, true, text]\n  none: null\n1: one\n")
    assert read_yaml_mapping(path, "a mapping") == {
        "n": 64,
        "nested": {"list": [1, 2.5, True, "text"], "none": None},
        "1": "one",
    }
    path.write_text("")
    assert read_yaml_mapping(path, "a mapping") == {}
