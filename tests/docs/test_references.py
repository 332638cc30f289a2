"""Files that the documentation names exist, and pages that the code names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    "benchmarks",
    "docs",
    "examples",
    "export",
    "harness",
    "integrations",
    "runtime",
    "tests",
    "train",
    "zoo",
)
PAGES = sorted((*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"))
_FILE = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*\w)`")
_PAGE = re.compile(r"\bdocs/[\w./-]+\.(?:md|json|yaml|svg|png)\b")
_OTHER_PROJECTS = {"docs/operators.md"}  # of onnx-tensorrt


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_a_page_names_exist(page):
    for name in set(_FILE.findall(page.read_text(encoding="utf-8"))) - _OTHER_PROJECTS:
        assert (ROOT / name).exists(), name


def test_pages_that_the_code_names_exist():
    sources = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    for source in (*sources, ROOT / "pyproject.toml", ROOT / "Makefile"):
        for name in set(_PAGE.findall(source.read_text(encoding="utf-8"))) - _OTHER_PROJECTS:
            assert (ROOT / name).exists(), f"{source.relative_to(ROOT)}: {name}"
