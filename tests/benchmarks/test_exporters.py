"""The comparison of exporters: our exporter is right, files are judged correctly, and the page shows the results."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")

from benchmarks.exporter_cases import cases_of  # noqa: E402
from benchmarks.exporter_worker import export, judge, native_of, open_onnx  # noqa: E402
from benchmarks.exporters import Results, until_end  # noqa: E402
from ptychonnx.export.graph.inspection import operators  # noqa: E402

sys.path.append(str(Path(__file__).parents[2] / "docs" / "scripts"))
import exporters as tables  # noqa: E402

CASES = cases_of("torch")
RIGHT = "right"


MEASURED = [name for name in CASES if tables.read_results()["modules"].get(name, {}).get("milliseconds")]


@pytest.mark.parametrize("name", MEASURED[::8])
def test_our_exporter_is_right_for_every_eighth_module_that_is_measured(name, tmp_path):
    record, *_ = export("ptychonnx", CASES[name], tmp_path)
    assert record["status"] == RIGHT, record
    assert record["dft"] == 0


def test_a_file_is_judged_by_its_answers(tmp_path):
    native, path = native_of(CASES["odd_length"]), tmp_path / "file.onnx"
    model = native.convert(18).model
    onnx.save(model, path)
    assert judge(path, native, 1e-5, open_onnx)["status"] == RIGHT
    tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    tensor.raw_data = tensor.raw_data[::-1]
    onnx.save(model, path)
    assert judge(path, native, 1e-5, open_onnx)["status"] == "wrong"
    onnx.save(native_of(CASES["odd_length"], 2).convert(18).model, path)
    assert judge(path, native, 1e-5, open_onnx)["status"] == "fixed batch"
    path.write_bytes(b"nothing")
    assert judge(path, native, 1e-5, open_onnx)["status"] == "does not load"
    assert "DFT" not in operators(model)


def test_results_are_kept_and_read_again(tmp_path):
    Results(tmp_path / "r.json").add({"case": "a", "exporter": "torch", "status": RIGHT})
    again = Results(tmp_path / "r.json")
    again.add({"case": "a", "milliseconds": {"torch": 1.0}})
    expected = {"exporters": {"torch": {"status": RIGHT}}, "milliseconds": {"torch": 1.0}}
    assert Results(tmp_path / "r.json").module("a") == expected


def worker(body):
    """A process that speaks as a worker does."""
    code = f"import json, os, sys, time\ndef say(**record): print(json.dumps(record), flush=True)\n{body}"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("body", "status"), [("os._exit(3)", "crash"), ("time.sleep(100)", "time limit"), ("", None)]
)
def test_a_worker_that_crashes_or_takes_too_long_is_a_result(body, status):
    script = f"""
say(offer="a", job="torch")
assert sys.stdin.readline() == "yes\\n"
{body or "pass"}
say(case="a", exporter="torch", status="right")
say(end=True)
"""
    records, process = [], worker(script)
    limit = 1 if "sleep" in body else 60
    is_complete = until_end(process, lambda offer: True, limit, records.append)
    process.kill()
    process.wait()
    assert is_complete == (status is None)
    assert records == [{"case": "a", "exporter": "torch", "status": status or "right"}]


def state(status, **figures):
    return {"status": status, "error": 1e-7, **figures}


def test_the_tables_say_where_another_exporter_is_better():
    results = {
        "modules": {
            name: {
                "about": "about",
                "framework": "torch",
                "exporters": {"ptychonnx": state(RIGHT, nodes=3), "torch": state(status)},
                "milliseconds": {"native": 4.0, "ptychonnx": 2.0, "torch": milliseconds},
            }
            for name, status, milliseconds in (
                ("a", RIGHT, 1.0),
                ("b", "wrong", 1.0),
                ("c", "fixed batch", 8.0),
            )
        }
    }
    by_name = {row[0]: row[1:] for row in tables.summary(results)}
    assert by_name["ptychonnx"][:4] == ["3", "3", "3", "3"]
    assert by_name["torch"] == ["3", "3", "2", "1", "1", "0", "1"]
    rows = [row[4] for row in tables.modules(results, "torch")[1:]]
    assert rows == ["**0.50×, faster**", "wrong (1e\u201107)", "4.00×, fixed batch"]


def test_the_page_holds_every_module_and_what_ours_does_not_export():
    results = tables.read_results()
    page = "\n".join(tables.table(part) for part in ("torch", "tensorflow"))
    refused = tables.table("refusals")
    for name, module in results["modules"].items():
        assert module["framework"] == "tensorflow" or name in CASES
        ours = module["exporters"].get("ptychonnx")
        assert page.count(f"| `{name}`: {module['about']} |") == (ours is not None)
        assert (ours is not None and ours["status"] not in tables.RIGHT) == (f"`{name}`" in refused)
    total = re.search(r"(\d+) of (\d+) modules measured", tables.table("conditions"))
    assert int(total[2]) > len(CASES) >= 40
