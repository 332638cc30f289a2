"""The page of the zoo holds the tables that follow from its record."""

from __future__ import annotations

import json

import pytest

from benchmarks.record_zoo import ZOO, tables

RECORD = json.loads((ZOO / "zoo.json").read_text(encoding="utf-8"))["artifacts"]


@pytest.mark.parametrize("name", ["figures", "recipe", "hashes"])
def test_a_table_of_the_page_follows_from_the_record(name: str) -> None:
    page = (ZOO / "README.md").read_text(encoding="utf-8")
    assert f"<!-- {name} -->\n{tables(RECORD)[name]}\n<!-- end -->" in page
