"""The documentation as a site: it builds without a warning, and fetches nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_no_page_fetches_anything_from_another_host(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(https?://[^\">\s]+)", text
        )
        assert not fetched, page


def test_every_command_is_on_the_page_of_commands(site):
    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for command in ("simulate lines", "train", "export", "evaluate", "deploy triton", "study robustness"):
        assert f"<code>ptychonnx {command}</code>" in page, command
    assert "<code>--out &lt;path&gt;</code>" in page


def test_the_public_names_are_on_the_page_of_the_api(site):
    import ptychonnx

    page = (site / "reference" / "api.html").read_text(encoding="utf-8")
    page += (site / "reference" / "settings.html").read_text(encoding="utf-8")
    for name in set(ptychonnx.__all__) - {"__version__"}:
        assert re.search(rf'id="ptychonnx\.(?:\w+\.)*{name}"', page), name
