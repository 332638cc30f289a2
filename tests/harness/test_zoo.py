"""The networks in `zoo/` are those that `zoo.json` describes, with its quality, and need no training framework."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.record_zoo import at_size
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, build_lines
from ptychonnx.runtime.inference import Session

ZOO = Path(__file__).parents[2] / "zoo"
RECORD = json.loads((ZOO / "zoo.json").read_text(encoding="utf-8"))
ARTIFACTS = RECORD["artifacts"]
WITHOUT_FRAMEWORKS = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "tensorflow", "keras", "neuralop"):
            raise ImportError(name)

sys.meta_path.insert(0, Missing())
from ptychonnx.harness.cli import main
main()
"""


@pytest.fixture(scope="module", params=sorted({entry["n"] for entry in ARTIFACTS.values()}))
def size_and_rows(request, tmp_path_factory):
    """The files of the zoo for a size, and one for each other size, which is left out."""
    folder, n = tmp_path_factory.mktemp("zoo"), request.param
    config = at_size(LinesConfig(**RECORD["test_scans"]["quick"]), n)
    dataset = build_lines(config, folder / "data")
    sizes = {entry["n"]: [] for entry in ARTIFACTS.values()}
    for entry in ARTIFACTS.values():
        sizes[entry["n"]].append(entry)
    given = [entry for size, entries in sizes.items() for entry in (entries if size == n else entries[:1])]
    artifacts = [str(ZOO / entry["file"]) for entry in given]
    command = ["evaluate", *artifacts, "--scan", str(dataset.test), "--out", str(folder / "report")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FRAMEWORKS, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    for entry in given:
        line = f"{entry['file']}: left out, takes patterns of {entry['n']} pixels, the scan has {n}"
        assert (line in said) == (entry["n"] != n)
    return n, json.loads((folder / "report" / "metrics.json").read_text(encoding="utf-8"))["rows"]


def test_the_networks_of_the_zoo_score_what_their_records_say(size_and_rows):
    n, rows = size_and_rows
    fitting = [entry for entry in ARTIFACTS.values() if entry["n"] == n]
    assert set(rows) == {entry["label"] for entry in fitting}
    for entry in fitting:
        for quantity, metrics in entry["metrics"]["quick"].items():
            found = {name: rows[entry["label"]][quantity][name] for name in metrics}
            assert found == pytest.approx(metrics, rel=1e-3), (entry["file"], quantity)


@pytest.mark.parametrize("label", ARTIFACTS)
def test_a_file_of_the_zoo_is_the_recorded_one(label):
    entry = ARTIFACTS[label]
    content = (ZOO / entry["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    contract = Session(ZOO / entry["file"], "cpu").contract
    assert (contract.label, contract.n) == (entry["label"], entry["n"])
    assert contract.architecture == entry["architecture"]
    assert contract.parity.max_relative_error == pytest.approx(entry["parity"])
    assert contract.parity.max_relative_error < 1e-5


def test_the_zoo_is_small_and_its_page_names_every_file_and_hash():
    general = [entry["bytes"] for entry in ARTIFACTS.values() if entry["label"].endswith("_any")]
    assert sum(general) < 15e6
    assert sum(entry["bytes"] for entry in ARTIFACTS.values()) - sum(general) < 11e6
    assert {path.name for path in ZOO.glob("*.onnx")} == {entry["file"] for entry in ARTIFACTS.values()}
    page = (ZOO / "README.md").read_text(encoding="utf-8")
    for entry in ARTIFACTS.values():
        assert entry["file"] in page
        assert entry["sha256"] in page
