"""The check of a device, rehearsed on the CPU: the same code as on a GPU."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from ptychonnx.harness.gpu import gpu_check
from ptychonnx.harness.gpu.gpu_check import check_device
from ptychonnx.harness.gpu.network_check import NetworkCheck
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.errors import DeviceError, InputError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.artifact_path import zoo_path


@pytest.fixture(scope="module")
def network():
    return zoo_path("baseline")


@pytest.fixture
def patient(monkeypatch):
    """A clock that stands still: no step is left out for lack of time, on any machine."""
    for module in ("gpu_check", "network_check"):
        clock = SimpleNamespace(monotonic=lambda: 0.0, perf_counter=__import__("time").perf_counter)
        monkeypatch.setattr(f"ptychonnx.harness.gpu.{module}.time", clock)


def test_everything_is_measured_written_and_said(network, tmp_path, run, patient):
    out = tmp_path / "check"
    options = ["--provider", "cpu", "--grid", 4, "--batch", 1, "--batch", 3, "--out", out]
    code, text, error = run("gpu-check", network, *options)
    assert code == 0, error
    record = json.loads((out / "gpu_check.json").read_text())
    results = record["results"]
    assert record["not_run"] == []
    assert record["device"]["providers"]["cpu"] == "works"
    nodes = results["baseline/nodes"]
    assert nodes["provider"] == "CPUExecutionProvider"
    assert set(nodes["nodes_by_provider"]) == {"CPUExecutionProvider"}
    assert nodes["on_the_cpu"] is None
    parity = results["baseline/parity"]
    assert parity["fp32"]["relative_error"] < 1e-5
    lower = results["baseline/lower precision"]
    assert 1e-5 < lower["fp16"]["relative_error"] < 0.1
    assert lower["fp16"]["verdict"].startswith(("accepted", "refused"))
    batches = results["baseline/rates"]["batches"]
    assert [row["batch"] for row in batches] == [1, 3]
    ways = ("with copies", "without copies")
    for row in batches:
        assert set(row["patterns_per_second"]) == {*ways, *(f"fixed batch, {way}" for way in ways)}
        assert min(*row["patterns_per_second"].values(), row["memory_mb"]) > 0
    whole = results["baseline/end to end"]
    assert whole["patterns"] == 16
    assert whole["batch"] in (1, 3)
    kernels = results["baseline/kernels"]
    # A convolution and its activation are assigned as two nodes and started as one.
    assert 60 < kernels["launches"] <= nodes["nodes_by_provider"]["CPUExecutionProvider"]
    assert 0 < sum(entry["share"] for entry in kernels["largest"]) <= 1
    assert any(entry["operator"].endswith("Conv") for entry in kernels["largest"])
    assert (out / "gpu_check.txt").read_text().strip() in text
    assert "batch 3, patterns/s: with copies" in text
    assert (out / "gpu_check.png").read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_check_goes_on_and_keeps_its_results(network, tmp_path, monkeypatch, patient):
    calls = []

    def nodes(check):
        calls.append("nodes")
        return {
            "provider": "x",
            "load_seconds": 1.0,
            "nodes_in_file": 1,
            "nodes_by_provider": {},
            "on_the_cpu": None,
        }

    def interrupted(check):
        raise KeyboardInterrupt

    monkeypatch.setattr(NetworkCheck, "nodes", nodes)
    monkeypatch.setattr(NetworkCheck, "parity", interrupted)
    settings = {"provider": "cpu", "batches": [1], "grid": 3}
    with pytest.raises(KeyboardInterrupt):
        check_device([network], tmp_path, **settings)
    kept = json.loads((tmp_path / "gpu_check.json").read_text())
    assert list(kept["results"]) == ["baseline/nodes"]
    assert kept["not_run"][0] == "baseline/parity"

    def lost(check):
        raise DeviceError("the device was lost")

    monkeypatch.setattr(NetworkCheck, "parity", lost)
    for step in ("rates", "end_to_end", "kernels", "precision"):
        monkeypatch.setattr(NetworkCheck, step, lambda *arguments: {"batches": [], "ended": None})
    monkeypatch.setattr(gpu_check, "as_text", lambda record: iter(["text"]))
    record = check_device([network], tmp_path, **settings)
    assert calls == ["nodes"]
    assert record["failed"] == {"baseline/parity": "the device was lost"}
    assert set(record["results"]) == {
        f"baseline/{step}" for step in ("nodes", "rates", "end to end", "kernels", "lower precision")
    }
    with pytest.raises(InputError, match="holds results with other settings, expected a new folder"):
        check_device([network], tmp_path, provider="cpu", batches=[2], grid=3)


def test_an_output_that_is_not_finite_is_said_and_the_check_goes_on(network, monkeypatch):
    # The fp16 form of any_128_grid2 ended the check: NaN is no JSON.
    scan = simulate_scan(LinesConfig(n=64), 3, np.random.SeedSequence(0), "test")
    check = NetworkCheck(network, "cpu", scan, [1], None)
    monkeypatch.setattr(Session, "predict", lambda session, *inputs: np.array([1, np.nan]))
    assert check.parity() == {"fp32": {"error": "the output holds values that are not finite"}}


def test_every_network_has_its_share_of_the_time(network, tmp_path, monkeypatch, patient):
    ends = {}

    def rates(check, until):
        ends[check.path.stem] = until
        return {"batches": [], "ended": None}

    monkeypatch.setattr(NetworkCheck, "rates", rates)
    for step in ("nodes", "parity", "end_to_end", "kernels", "precision"):
        monkeypatch.setattr(NetworkCheck, step, lambda *arguments: {})
    monkeypatch.setattr(gpu_check, "as_text", lambda record: iter(["text"]))
    check_device([network, zoo_path("pinn_cnn")], tmp_path, "cpu", minutes=1, batches=[1], grid=3)
    # Of 60 seconds, by a clock that stands still: thirds for the first, halves for the second.
    assert ends == {"baseline": 20, "pinn_cnn": 30}


def test_small_patterns_come_first_and_what_takes_longest_last(network, tmp_path):
    record = check_device([zoo_path("any_128"), network], tmp_path, "cpu", minutes=1e-9, batches=[1], grid=3)
    names = [name.partition("/")[0] for name in record["not_run"]]
    assert names == ["baseline", "any_128"] * 6
    assert record["not_run"][-1] == "any_128/lower precision"


def test_when_the_time_is_over_the_rest_is_named(network, tmp_path):
    record = check_device([network], tmp_path, "cpu", minutes=1e-9, batches=[1], grid=3)
    assert record["results"] == {}
    assert len(record["not_run"]) == 6
    assert "baseline/rates" in record["not_run"]
    assert "rates: not run, the time was over" in (tmp_path / "gpu_check.txt").read_text()


def test_what_cannot_be_checked_is_refused(network, tmp_path):
    with pytest.raises(InputError, match="numbers above 0"):
        check_device([network], tmp_path, "cpu", minutes=0)
    (tmp_path / "gpu_check.json").write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        check_device([network], tmp_path, "cpu", grid=3)
