"""The page is self-contained, shows every row, and flags every collapse."""

from __future__ import annotations

import base64
import csv
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image
from rich.console import Console
from skimage.io import imread

from ptychonnx.harness.evaluation.evaluate import evaluate
from ptychonnx.harness.evaluation.results import Evaluation, EvaluationRow
from ptychonnx.harness.metrics.comparison import compare
from ptychonnx.harness.report.evaluation_figures import draw_figures
from ptychonnx.harness.report.frequency_curves import frc_figure, psd_figure
from ptychonnx.harness.report.html_page import render_page
from ptychonnx.harness.report.object_figure import object_figure
from ptychonnx.harness.report.page_images import LARGEST_SIDE, image_strip
from ptychonnx.harness.report.quantity_images import Panel, QuantityImages, quantity_images
from ptychonnx.harness.report.table_formats import as_csv, as_markdown
from ptychonnx.harness.report.terminal_table import comparison_table
from ptychonnx.runtime.scan import Scan

COMMANDS = ["ptychonnx evaluate models/*.onnx --scan 'a & b.npz' --out report/"]


class Page(HTMLParser):
    """Tags with their attributes, and the text of the summary table by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: dict[str, str] = {}
        self._row: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "tr":
            self._row = attributes.get("data-label")

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr":
            self._row = None

    def handle_data(self, data: str) -> None:
        if self._row is not None:
            self.rows[self._row] = self.rows.get(self._row, "") + " " + data.strip()


@pytest.fixture(scope="module")
def evaluation(
    four_artifacts: list[Path], lines_scan: Scan, tmp_path_factory: pytest.TempPathFactory
) -> Evaluation:
    out = tmp_path_factory.mktemp("report")
    return evaluate(four_artifacts, [lines_scan], out, commands=COMMANDS)


@pytest.fixture(scope="module")
def text(evaluation: Evaluation) -> str:
    return render_page(evaluation, "Lines & more")


def test_nothing_is_fetched_from_outside(text: str) -> None:
    for tag, attributes in Page(text).tags:
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), f"<{tag} {name}={value}>"
    assert "@import" not in text
    assert "url(" not in text
    assert "fetch(" not in text


def embedded(text: str) -> dict[str, bytes]:
    """The PNG of each image of a page, by its alternative text."""
    images = [attributes for tag, attributes in Page(text).tags if tag == "img"]
    assert all((each["src"] or "").startswith("data:image/png;base64,") for each in images)
    return {str(each["alt"]): base64.b64decode((each["src"] or "").partition(",")[2]) for each in images}


def rgba(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(content)).convert("RGBA"))


def test_curves_are_embedded_whole(text: str, evaluation: Evaluation) -> None:
    images, figures = embedded(text), draw_figures(evaluation)
    for name in ("frc", "psd", "misfit"):
        assert images[name] == figures[name]


def test_a_pixel_of_an_image_is_a_pixel_of_the_object(text: str, evaluation: Evaluation) -> None:
    images = embedded(text)
    scan = evaluation.scans[0]
    assert scan.reference is not None
    rows, columns = np.flatnonzero(scan.region.any(axis=1)), np.flatnonzero(scan.region.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    region = scan.region[box]
    colours = colormaps["viridis"](np.linspace(0, 1, 255))[:, :3]
    low, high = np.percentile(np.abs(scan.reference)[scan.region], (0.2, 99.8))
    for row in (None, evaluation.rows[1]):
        label = "reference" if row is None else row.label
        image = rgba(images[f"amplitude of {label}"])
        assert image.shape == (*region.shape, 4)
        np.testing.assert_array_equal(image[..., 3] > 0, region)
        amplitude = np.abs(scan.reference if row is None else row.results["lines"].object)[box]
        # The nearest colour of the map recovers the value, to a hundredth of the scale.
        distance = np.linalg.norm(image[..., None, :3] / 255 - colours, axis=-1)
        value = low + (high - low) * distance.argmin(axis=-1) / 254
        np.testing.assert_allclose(
            value[region], np.clip(amplitude, low, high)[region], atol=(high - low) / 100
        )


def test_large_images_are_averaged_over_blocks_inside_the_region() -> None:
    image = np.full((3, LARGEST_SIDE + 1), np.nan)
    image[:2, :2] = [[1, 2], [3, 6]]
    image[0, 2] = 6
    strip = image_strip(QuantityImages("x", "viridis", [("a", "b")], [image], (0.0, 6.0)))
    assert (strip.block, strip.rows, strip.columns) == (2, 3, LARGEST_SIDE + 1)
    picture = rgba(base64.b64decode(strip.images[0].source.partition(",")[2]))
    assert picture.shape == (2, LARGEST_SIDE // 2 + 1, 4)
    np.testing.assert_array_equal(picture[0, :3, 3], [255, 255, 0])
    ends = (255 * colormaps["viridis"]([0.5, 1.0])).round()
    np.testing.assert_array_equal(picture[0, :2], ends)


def test_a_row_that_is_no_artifact_stands_beside_the_others(evaluation: Evaluation) -> None:
    first = evaluation.rows[1]
    iterations = EvaluationRow(
        "rPIE 100",
        "some-package 1.0",
        None,
        "CPU",
        first.results,
        kind="iterations",
        facts={"algorithm": "rPIE", "iterations": "100"},
    )
    both = replace(evaluation, rows=(first, iterations))
    page = render_page(both)
    assert list(Page(page).rows) == ["pinn_fno", "rPIE 100"]
    test_cells_match_headings(page)
    assert "some-package 1.0 (iterations)" in page
    assert "<dt>algorithm</dt><dd>rPIE</dd>" in page
    assert page.count("<h3>Contract</h3>") == 1
    entry = both.as_json()["rows"]["rPIE 100"]
    assert entry["kind"] == "iterations"
    assert entry["parity"] is entry["architecture"] is None
    assert entry["facts"]["iterations"] == "100"
    assert entry["amplitude"] == both.as_json()["rows"]["pinn_fno"]["amplitude"]
    assert "rPIE 100" in as_markdown(both)
    (one, two) = csv.DictReader(StringIO(as_csv(both)))
    assert (one["parity_max_relative_error"], two["parity_max_relative_error"]) == ("3e-06", "")
    console = Console(width=120, record=True, file=StringIO())
    console.print(comparison_table(both))
    assert "rPIE 100" in console.export_text()


@pytest.mark.parametrize("width", [70, 80, 120])
def test_the_table_fits_the_terminal_and_names_every_network(evaluation: Evaluation, width: int) -> None:
    console = Console(width=width, record=True, file=StringIO())
    console.print(comparison_table(evaluation, width))
    text = console.export_text()
    assert all(row.label in text for row in evaluation.rows)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert ("FRC" in text) == (width == 120)


def test_each_label_has_one_row_and_only_the_blank_one_is_flagged(text: str, evaluation: Evaluation) -> None:
    rows = Page(text).rows
    assert list(rows) == [row.label for row in evaluation.rows]
    assert {label for label, words in rows.items() if "collapsed" in words} == {"baseline"}
    alert = re.search(r'class="alert".*?</p>', text, re.DOTALL)
    assert alert is not None
    assert "baseline" in alert[0]
    assert "pinn_fno" not in alert[0]


def test_the_row_shows_the_numbers_of_the_evaluation(text: str, evaluation: Evaluation) -> None:
    rows = Page(text).rows
    fno = evaluation.rows[1].results["lines"].comparison
    assert fno is not None
    for value in (fno.amplitude.ssim, fno.phase.ssim, fno.amplitude.pearson, fno.phase.pearson):
        assert f" {value:.3f} " in rows["pinn_fno"]
    assert "never" in rows["pinn_cnn"]
    assert "–" in rows["baseline"]
    assert "3.0e-06" in rows["pinn_fno"]
    low, high = evaluation.intervals(evaluation.rows[1], "lines")["amplitude_ssim"]
    assert f" {low:.3f}–{high:.3f} " in rows["pinn_fno"]
    assert fno.amplitude.frc is not None
    assert fno.amplitude.frc.half_period_m is not None
    assert f"{1e9 * (fno.amplitude.frc.half_period_m.half or 0):.3g} nm" in rows["pinn_fno"]
    assert fno.phase.psd is not None
    assert f"{fno.phase.psd.log_error_db:.1f}" in rows["pinn_fno"]


def test_cells_match_headings(text: str) -> None:
    table = re.search(r"<table.*?</table>", text, re.DOTALL)
    assert table is not None
    heads = table[0].count('scope="col"')
    for row in re.findall(r"<tr data-label.*?</tr>", table[0], re.DOTALL):
        assert row.count("<td") == heads


def test_contract_definitions_and_commands_are_on_the_page(text: str) -> None:
    assert text.count("<details>") == 4
    assert "&#34;training_data_sha256&#34;" in text
    assert "How to reproduce" in text
    assert "a &amp; b.npz" in text
    assert "photon-weighted median" in text
    assert "<title>Lines &amp; more</title>" in text


def test_a_label_cannot_inject_markup(oracle: Callable[..., Path], lines_scan: Scan, tmp_path: Path) -> None:
    path = oracle(tmp_path / "m.onnx", lines_scan, "<img src=http://x/>")
    scan = replace(lines_scan, name="<script>")
    page = render_page(evaluate([path], [scan], None))
    assert "<img src=http" not in page
    assert page.count("<script>") == 1


@pytest.mark.parametrize("name", ["$x_{$", "[/b]", "a\nb|c"])
def test_names_are_drawn_and_printed_as_they_are(
    oracle: Callable[..., Path], lines_scan: Scan, tmp_path: Path, name: str
) -> None:
    path = oracle(tmp_path / "m.onnx", lines_scan, f"pinn {name}")
    evaluation = evaluate([path], [replace(lines_scan, name=f"{name}.npz")], tmp_path / "report")
    assert len(list((tmp_path / "report").glob("*.png"))) >= 3
    stream = StringIO()
    console = Console(file=stream, width=200)
    console.print(comparison_table(evaluation, 200))
    assert name.split()[0] in stream.getvalue()
    assert as_markdown(evaluation).splitlines()[2].count(" | ") == as_markdown(evaluation).splitlines()[
        0
    ].count(" | ")
    *_, row = csv.DictReader(StringIO(as_csv(evaluation)))
    assert row["label"] == f"pinn {name}"


def test_an_adopted_network_says_where_it_came_from_and_of_no_training(evaluation: Evaluation) -> None:
    row = evaluation.rows[0]
    unknown = dict.fromkeys(("seed", "epochs", "loss", "final_loss", "training_data_sha256"))
    provenance = row.contract.provenance.model_copy(
        update={"framework": "foreign", "origin": "a colleague", **unknown}
    )
    adopted = replace(row, contract=row.contract.model_copy(update={"provenance": provenance}))
    page = render_page(replace(evaluation, rows=[adopted]))
    assert "<dt>adopted</dt><dd>a colleague; " in page
    assert "None" not in page.partition("<h3>Contract")[0]


def test_alignment_and_ptychopinn_figures_are_stated(four_artifacts: list[Path], lines_scan: Scan) -> None:
    page = render_page(
        evaluate(four_artifacts[1:2], [lines_scan], None, register=True, plane=True, ptychopinn=True)
    )
    assert "phase_cross_correlation" in page
    assert re.search(
        r"ramp \(-?0\.\d{5}, -?0\.\d{5}\) rad per pixel, shift \(-?0\.\d\d, -?0\.\d\d\) pixels", page
    )
    assert "by PtychoPINN&#39;s definitions" in page or "by PtychoPINN's definitions" in page
    assert "2 sigma: " in page


def test_versions_are_stated(text: str) -> None:
    assert f"numpy {np.__version__}" in text


def test_no_commands_no_section(evaluation: Evaluation) -> None:
    assert "How to reproduce" not in render_page(replace(evaluation, commands=()))


def test_several_scans_have_their_own_column(four_artifacts: list[Path], lines_scan: Scan) -> None:
    page = render_page(evaluate(four_artifacts[:2], [lines_scan, replace(lines_scan, name="second")], None))
    test_cells_match_headings(page)
    assert page.count("<tr data-label") == 4
    assert "Region of second" in page


def panels(count: int) -> tuple[np.ndarray, list[Panel]]:
    rng = np.random.default_rng(0)
    truth = np.exp(1j * rng.random((30, 40))) * (1 + rng.random((30, 40)))
    made = []
    for number in range(count):
        image = truth + 0.1 * number
        made.append(Panel(f"network {number}", image, compare(image, truth)))
    return truth, made


@pytest.mark.parametrize("count", [1, 4, 9])
def test_figures_are_pngs_of_a_size_that_fits_their_panels(count: int) -> None:
    truth, made = panels(count)
    region = np.ones(truth.shape, dtype=bool)
    for content in (
        object_figure(quantity_images(truth, region, made)[:2]),
        object_figure(quantity_images(truth, region, made)[2:]),
        frc_figure(made),
        psd_figure(made),
    ):
        image = imread(BytesIO(content))
        assert 400 < image.shape[1] < 2200
        assert np.ptp(image[..., :3]) == 255


@pytest.mark.parametrize("count", [1, 9])
def test_nothing_of_the_curves_is_cut_off(count: int) -> None:
    _, made = panels(count)
    for figure in (frc_figure, psd_figure):
        image = imread(BytesIO(figure(made, "scan")))[..., :3]
        for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
            assert edge.min() == 255


def test_equal_figures_are_equal_bytes() -> None:
    truth, made = panels(2)
    region = np.ones(truth.shape, dtype=bool)
    quantities = quantity_images(truth, region, made)[:2]
    assert object_figure(quantities) == object_figure(quantities)


def test_frc_of_nothing_says_not_defined_instead_of_failing() -> None:
    truth, _ = panels(0)
    flat = Panel("flat", np.ones_like(truth), compare(np.ones_like(truth), truth))
    assert frc_figure([flat]).startswith(b"\x89PNG")
    assert psd_figure([flat]).startswith(b"\x89PNG")
