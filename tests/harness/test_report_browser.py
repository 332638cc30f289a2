"""The report in a real browser: it loads nothing from elsewhere, and its table sorts."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.evaluate import evaluate

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

# Runs in the page after it has loaded: click the first numeric header and write down what the page looks like.
PROBE = """
<script>
window.addEventListener("load", () => {
  const rows = () => [...document.querySelectorAll("#summary tbody tr")];
  const column = index => rows().map(row => row.cells[index].innerText.trim());
  const labels = () => rows().map(row => row.dataset.label);
  const before = labels();
  const button = document.querySelectorAll("#summary thead button")[2];
  button.click();
  const once = column(2);
  button.click();
  const twice = column(2);
  const broken = [...document.images].filter(image => !image.naturalWidth).length;
  const outside = performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length;
  const seen = {before, after: labels(), once, twice, heading: button.innerText, broken, outside};
  document.title = JSON.stringify({...seen, images: document.images.length});
});
</script></body>
"""


def test_the_page_is_self_contained_and_sorts(four_artifacts, lines_scan, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    evaluate(four_artifacts, [lines_scan], tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    (tmp_path / "probe.html").write_text(page.replace("</body>", PROBE))
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    )
    flags += f"--disable-component-update --disable-sync --user-data-dir={tmp_path / 'profile'} --dump-dom"
    done = subprocess.run(
        [CHROMIUM, *flags.split(), "--virtual-time-budget=5000", (tmp_path / "probe.html").as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None
    seen = json.loads(html.unescape(title[1]))
    assert seen["images"] >= 3
    assert (seen["broken"], seen["outside"]) == (0, 0)
    assert sorted(seen["before"]) == sorted(seen["after"]) == sorted(path.stem for path in four_artifacts)
    assert seen["heading"].startswith("SSIM")
    values = [float(text.split()[0]) for text in seen["once"]]
    assert values in (sorted(values), sorted(values, reverse=True))
    assert seen["twice"] == seen["once"][::-1]
