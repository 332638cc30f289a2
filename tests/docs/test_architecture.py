"""The page of the architecture, its picture and its list of rooms say what the code does."""

from __future__ import annotations

import pytest

pytest.importorskip("grimp")

from docs.scripts import architecture


@pytest.fixture(scope="module")
def content():
    return architecture.read_list()


@pytest.fixture(scope="module")
def imports():
    return architecture.imports()


def test_the_arrows_are_the_imports_between_rooms(content, imports):
    assert content["imports"] == imports, "run python docs/scripts/architecture.py --imports"


def test_every_room_is_on_the_page_and_exists(content, imports):
    listed = {name for name, _ in architecture.rooms(content)}
    assert imports.keys() <= listed
    assert {other for others in imports.values() for other in others} <= listed
    root = architecture.DOCS.parent
    for name in listed - {"api"}:
        assert (root / name).is_dir(), name


def test_imports_between_folders_lead_downwards(content, imports):
    order = [folder["name"] for folder in content["folders"]]
    for room, others in imports.items():
        for other in others:
            assert order.index(room.partition("/")[0]) <= order.index(other.partition("/")[0]), (room, other)


@pytest.mark.parametrize(
    ("way", "conductor"), [("scan", "harness/evaluation"), ("checkpoint", "export/artifact")]
)
def test_one_room_conducts_each_way(content, imports, way, conductor):
    reached, new = set(), {conductor}
    while new:
        reached |= new
        new = {other for room in new for other in imports.get(room, [])} - reached
    assert {step["room"] for step in content["ways"][way]} <= reached


def test_the_picture_is_drawn_from_the_list(content):
    assert architecture.PICTURE.read_text(encoding="utf-8") == architecture.draw(content)


def test_the_page_shows_the_rooms_and_both_ways(content):
    page = (architecture.DOCS / "explanation" / "architecture.md").read_text(encoding="utf-8")
    for table in architecture.tables(content):
        assert f"<!-- generated: rooms {table} -->" in page
