"""The report in a real browser: nothing is loaded from elsewhere, tables sort, and images zoom together."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from ptychonnx.harness.evaluation.evaluate import evaluate

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

# Before anything else of the page: write down what goes wrong.
WATCH = """
<script>
const wrong = [];
window.addEventListener("error", event => wrong.push(String(event.message || event.target.tagName)), true);
window.addEventListener("unhandledrejection", event => wrong.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", event => wrong.push(event.blockedURI));
</script>
"""
# After it has loaded: click headings, zoom, and write down what the page looks like.
PROBE = """
<script>
window.addEventListener("load", () => {
  const rows = () => [...document.querySelectorAll("#summary tbody tr")];
  const column = index => rows().map(row => row.cells[index].innerText.trim());
  const seen = { labels: rows().map(row => row.dataset.label) };
  const buttons = [...document.querySelectorAll("#summary thead button")];
  const click = name => buttons.find(button => button.innerText.trim().startsWith(name)).click();
  const sorted = (name, index) => { click(name); const up = column(index); click(name); return [up, column(index)]; };
  seen.artifact = sorted("artifact", 0);
  seen.ssim = sorted("SSIM", 2);
  seen.cutoff = sorted("FRC 0.5", 7);
  seen.direction = buttons.map(button => button.closest("th").getAttribute("aria-sort"));
  seen.after = rows().map(row => row.dataset.label);

  const group = document.querySelector(".linked");
  const views = [...group.querySelectorAll(".view")];
  const images = views.map(view => view.querySelector("img"));
  const state = () => ({
    transforms: images.map(image => getComputedStyle(image).transform),
    rendering: [...new Set(images.map(image => getComputedStyle(image).imageRendering))],
    text: group.querySelector("output").textContent,
  });
  const at = (view, across, down, more) => {
    const box = view.getBoundingClientRect();
    const point = { clientX: box.left + across * box.width, clientY: box.top + down * box.height };
    return { bubbles: true, cancelable: true, button: 0, pointerType: "mouse", ...point, ...more };
  };
  const press = name => group.querySelector(`[data-action=${name}]`).click();
  // Of a point of the object: where the second image shows it, as fractions of its view.
  const shows = (across, down) => {
    const [box, image] = [views[1].getBoundingClientRect(), images[1].getBoundingClientRect()];
    const x = (image.left + across * image.width - box.left) / box.width;
    const y = (image.top + down * image.height - box.top) / box.height;
    return [x, y];
  };
  seen.width = images[0].getBoundingClientRect().width;
  seen.start = state();
  views[0].dispatchEvent(new WheelEvent("wheel", at(views[0], 0.25, 0.75, { deltaY: -240 })));
  seen.unfocused = state();
  views[0].focus({ preventScroll: true });
  const wheel = new WheelEvent("wheel", at(views[0], 0.25, 0.75, { deltaY: -240 }));
  views[0].dispatchEvent(wheel);
  seen.wheel = { ...state(), fixed: shows(0.25, 0.75), prevented: wheel.defaultPrevented };
  views[2].dispatchEvent(new PointerEvent("pointerdown", at(views[2], 0.5, 0.5)));
  views[2].dispatchEvent(new PointerEvent("pointermove", at(views[2], 0.6, 0.4)));
  views[2].dispatchEvent(new PointerEvent("pointerup", at(views[2], 0.6, 0.4)));
  views[2].dispatchEvent(new PointerEvent("pointermove", at(views[2], 0.1, 0.1)));
  seen.drag = { ...state(), moved: shows(0.25, 0.75) };
  press("reset");
  seen.reset = state();
  press("in");
  seen.button = state();
  views[3].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true, cancelable: true }));
  seen.arrow = state();
  views[3].dispatchEvent(new KeyboardEvent("keydown", { key: "0", bubbles: true, cancelable: true }));
  seen.key = state();
  for (let step = 0; step < 40; step++) press("in");
  seen.largest = state();
  for (let step = 0; step < 40; step++) press("out");
  seen.smallest = state();
  seen.others = [...document.querySelectorAll(".linked")].length;

  seen.broken = [...document.images].filter(image => !image.naturalWidth).length;
  seen.images = document.images.length;
  seen.outside = performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length;
  seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  seen.wrong = wrong;
  document.title = JSON.stringify(seen);
});
</script></body>
"""


@pytest.fixture(scope="module")
def page(four_artifacts, lines_scan, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("report")
    evaluate(four_artifacts, [lines_scan], folder)
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module", params=[1400, 500])
def seen(request, page, tmp_path_factory) -> dict[str, Any]:
    assert CHROMIUM is not None
    folder = tmp_path_factory.mktemp("browser")
    (folder / "probe.html").write_text(page.replace("<head>", "<head>" + WATCH).replace("</body>", PROBE))
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=5000 --dump-dom"
    )
    done = subprocess.run(
        [
            CHROMIUM,
            *flags.split(),
            f"--window-size={request.param},900",
            f"--user-data-dir={folder / 'profile'}",
            (folder / "probe.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    title = re.search(r"<title>(\{.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(title[1])) | {"console": console}


def scale_and_shift(transform: str) -> tuple[float, float, float]:
    """(zoom, x, y in pixels) of a computed transform."""
    if transform == "none":
        return (1.0, 0.0, 0.0)
    a, b, c, d, x, y = map(float, transform.removeprefix("matrix(").removesuffix(")").split(","))
    assert (a, b, c) == (d, 0, 0)
    return (a, x, y)


def only(state: dict[str, Any]) -> tuple[float, float, float]:
    """The transform that all images have in common."""
    assert len(state["transforms"]) == 18  # reference and 4 networks twice, 4 errors twice
    assert len(set(state["transforms"])) == 1
    return scale_and_shift(state["transforms"][0])


def test_nothing_fails_to_load_and_nothing_is_fetched(seen) -> None:
    assert seen["images"] == 18 + 3  # the two curves and the map of misfits
    assert (seen["broken"], seen["outside"]) == (0, 0)
    assert seen["wrong"] == []
    assert seen["console"] == []


def test_the_page_is_no_wider_than_the_window(seen) -> None:
    assert seen["overflow"] == 0


def test_a_heading_sorts_by_its_numbers_and_back(seen) -> None:
    assert (
        sorted(seen["labels"]) == sorted(seen["after"]) == ["baseline", "pinn_cnn", "pinn_fno", "pinn_hybrid"]
    )
    up, down = seen["ssim"]
    values = [float(text.split()[0]) for text in up]
    assert values == sorted(values)
    assert len(set(values)) > 2
    assert down == up[::-1]
    assert [text.split()[0] for text in seen["artifact"][0]] == sorted(seen["labels"])


def test_never_crossed_is_the_largest_and_not_defined_is_last_either_way(seen) -> None:
    up, down = ([text.split()[0] for text in texts] for texts in seen["cutoff"])
    assert up[-2:] == ["never", "–"]
    assert down[0] == "never"
    assert down[-1] == "–"
    assert [each for each in seen["direction"] if each] == ["descending"]


def test_the_wheel_zooms_all_images_about_the_pointer(seen) -> None:
    assert only(seen["start"]) == (1, 0, 0)
    zoom, x, y = only(seen["wheel"])
    assert zoom == pytest.approx(2)
    # The point at (0.25, 0.75) stays: the corner moves by 0.25 and 0.75 of the width, images being square.
    width = seen["width"]
    # (An event made by a script points at whole pixels.)
    assert (x, y) == pytest.approx((-0.25 * width, -0.75 * width), abs=1)
    assert seen["wheel"]["fixed"] == pytest.approx([0.25, 0.75], abs=1 / width)
    assert seen["wheel"]["prevented"]
    assert seen["wheel"]["rendering"] == ["pixelated"]
    assert seen["wheel"]["text"].startswith("2.0×")


def test_the_wheel_over_an_image_that_is_not_selected_belongs_to_the_page(seen) -> None:
    assert only(seen["unfocused"]) == (1, 0, 0)


def test_dragging_one_image_moves_all_with_the_pointer(seen) -> None:
    assert only(seen["drag"])[0] == pytest.approx(2)
    assert seen["drag"]["moved"] == pytest.approx([0.35, 0.65], abs=2 / seen["width"])


def test_reset_undoes_everything_by_button_and_by_key(seen) -> None:
    assert only(seen["reset"]) == (1, 0, 0)
    assert seen["reset"] == seen["start"]
    assert only(seen["button"])[0] == pytest.approx(1.5)
    assert only(seen["arrow"])[1] < only(seen["button"])[1]
    assert seen["key"] == seen["start"]


def test_zoom_ends_at_a_few_pixels_and_at_the_whole(seen) -> None:
    assert only(seen["largest"])[0] == pytest.approx(44 / 6, rel=0.3)
    assert seen["smallest"] == seen["start"]
