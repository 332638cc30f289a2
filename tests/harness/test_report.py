"""The page stands alone, shows every row, and hides no collapse."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from skimage.io import imread

from harness.evaluate import evaluate
from harness.metrics import compare
from harness.report import Evaluation, render_page
from harness.report.figures import Panel, comparison_figure, error_figure, frc_figure
from runtime.scan import Scan

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


def test_every_figure_is_embedded_whole(text: str, evaluation: Evaluation) -> None:
    images = [attributes["src"] for tag, attributes in Page(text).tags if tag == "img"]
    decoded = [base64.b64decode((image or "").removeprefix("data:image/png;base64,")) for image in images]
    assert decoded == list(evaluation.figures.values())
    assert len(decoded) == 3


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
    evaluate([path], [scan], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<img src=http" not in page
    assert page.count("<script>") == 1


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


def test_no_commands_no_section(evaluation: Evaluation) -> None:
    assert "How to reproduce" not in render_page(replace(evaluation, commands=()))


def test_several_scans_have_their_own_column(
    four_artifacts: list[Path], lines_scan: Scan, tmp_path: Path
) -> None:
    found = evaluate(four_artifacts[:2], [lines_scan, replace(lines_scan, name="second")], tmp_path)
    page = render_page(found)
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
        comparison_figure(truth, region, made),
        error_figure(truth, region, made),
        frc_figure(made),
    ):
        image = imread(BytesIO(content))
        assert 400 < image.shape[1] < 2200
        assert np.ptp(image[..., :3]) == 255


def test_equal_figures_are_equal_bytes() -> None:
    truth, made = panels(2)
    region = np.ones(truth.shape, dtype=bool)
    assert comparison_figure(truth, region, made) == comparison_figure(truth, region, made)


def test_frc_of_nothing_says_not_defined_instead_of_failing() -> None:
    truth, _ = panels(0)
    flat = Panel("flat", np.ones_like(truth), compare(np.ones_like(truth), truth))
    assert frc_figure([flat]).startswith(b"\x89PNG")
