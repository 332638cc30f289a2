"""`ptychonnx info` describes the installation as it is."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import version
from pathlib import Path

import onnxruntime
import pytest

from ptychonnx.harness.installation import EXTRAS
from ptychonnx.runtime.inference.providers import available, probe_providers

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_json_holds_versions_providers_machine_and_folders(run, monkeypatch, tmp_path):
    monkeypatch.setenv("PTYCHONNX_CACHE", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code, text, _ = run("info", "--json")
    assert code == 0
    info = json.loads(text)
    assert info["versions"]["numpy"] == version("numpy")
    assert info["folders"]["cache"] == str(tmp_path)
    assert info["environment"]["OMP_NUM_THREADS"] == "1"
    assert info["machine"]["threads_available"] >= 1
    assert info["providers"]["cpu"] == "works"


def test_lines_say_the_same_to_a_reader(run):
    code, text, err = run("info")
    assert code == 0
    assert err == ""
    assert f"numpy {version('numpy')}" in text
    assert any(line.split() == ["cpu", "works"] for line in text.splitlines())


def test_only_providers_with_a_device_work():
    works = [name for name, state in probe_providers().items() if state == "works"]
    assert set(works) <= set(available())
    assert works[-1] == "cpu"


def test_a_provider_that_is_compiled_in_and_does_not_start_says_so(capfd, monkeypatch):
    if "cuda" in available():
        pytest.skip("this machine has a GPU")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider")
    assert probe_providers()["cuda"].startswith("does not start")
    assert capfd.readouterr() == ("", "")


def test_the_extras_are_those_of_the_project():
    groups = PROJECT["optional-dependencies"]
    declared = {
        extra: {requirement.split(">")[0].split("=")[0].split("[")[0] for requirement in groups[extra]}
        for extra in groups
        if extra not in ("all", "dev", "docs", "cuda")
    }
    assert {extra: set(names) for extra, names in EXTRAS.items()} == declared
