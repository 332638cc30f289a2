"""The networks in `zoo/` are those that `zoo.json` describes, with its quality, and need no training framework."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ptychonnx.harness.simulate.lines_dataset import LinesConfig, build_lines
from ptychonnx.runtime.inference import Session

ZOO = Path(__file__).parents[2] / "zoo"
RECORD = json.loads((ZOO / "zoo.json").read_text(encoding="utf-8"))
ARTIFACTS = RECORD["artifacts"]
WITHOUT_FRAMEWORKS = (
    "import sys; sys.modules.update(dict.fromkeys(('torch', 'tensorflow', 'keras', 'neuralop')));"
    "from ptychonnx.harness.cli import main; main()"
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    dataset = build_lines(LinesConfig(**RECORD["test_scans"]["quick"]), folder / "data")
    artifacts = [str(ZOO / entry["file"]) for entry in ARTIFACTS.values()]
    command = ["evaluate", *artifacts, "--scan", str(dataset.test), "--out", str(folder / "report")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FRAMEWORKS, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "report" / "metrics.json").read_text(encoding="utf-8"))["rows"]


@pytest.mark.parametrize("label", ARTIFACTS)
def test_a_network_of_the_zoo_scores_what_its_record_says(rows, label):
    recorded = ARTIFACTS[label]["metrics"]["quick"]
    for quantity, metrics in recorded.items():
        found = {name: rows[label][quantity][name] for name in metrics}
        assert found == pytest.approx(metrics, rel=1e-3), quantity


@pytest.mark.parametrize("label", ARTIFACTS)
def test_a_file_of_the_zoo_is_the_recorded_one(label):
    entry = ARTIFACTS[label]
    content = (ZOO / entry["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    contract = Session(ZOO / entry["file"], "cpu").contract
    assert (contract.label, contract.architecture) == (label, entry["architecture"])
    assert contract.parity.max_relative_error == pytest.approx(entry["parity"])
    assert contract.parity.max_relative_error < 1e-5


def test_the_zoo_is_small_and_its_page_names_every_file_and_hash():
    assert sum(entry["bytes"] for entry in ARTIFACTS.values()) < 16e6
    assert {path.name for path in ZOO.glob("*.onnx")} == {entry["file"] for entry in ARTIFACTS.values()}
    page = (ZOO / "README.md").read_text(encoding="utf-8")
    for entry in ARTIFACTS.values():
        assert entry["file"] in page
        assert entry["sha256"] in page
