"""The comparison of engines reports differences, errors and crashed processes as such."""

from __future__ import annotations

import argparse
import sys

import numpy as np
import onnx
import pytest

from benchmarks.engine_versions import (
    Worker,
    agreement,
    first_answer,
    form_of,
    inputs_of,
    measure,
    requirements,
    times,
)
from benchmarks.engine_worker import relative_error
from ptychonnx.export.verification.engines import open_onnxruntime
from tests.export.small_network import N, contract_of, small_network, write_artifact


@pytest.fixture
def artifact(tmp_path):
    return write_artifact(tmp_path / "small.onnx", small_network())


@pytest.fixture
def worker():
    with Worker("this onnxruntime", sys.executable, "onnxruntime") as started:
        yield started


def archive_of(path, artifact, change=0.0):
    inputs = inputs_of(contract_of("small"), (1, 3))
    engine = open_onnxruntime(artifact.read_bytes())
    arrays = {f"input_{index}": array for index, array in enumerate(inputs)}
    expected = {f"expected_{index}": engine(array) for index, array in enumerate(inputs)}
    expected["expected_2"].flat[7] += change * np.abs(expected["expected_2"]).max()
    np.savez(path, **arrays, **expected)
    return path


def test_an_engine_agrees_with_itself_and_not_with_another_output(artifact, worker, tmp_path):
    same = archive_of(tmp_path / "same.npz", artifact)
    assert first_answer(worker, artifact, same, 1) == {"max_relative_error": 0.0}
    other = archive_of(tmp_path / "other.npz", artifact, change=0.5)
    found = first_answer(worker, artifact, other, 1)["max_relative_error"]
    assert found == pytest.approx(0.5, rel=0.5)


def test_a_refused_file_is_a_reason_and_the_next_one_still_runs(artifact, worker, tmp_path):
    broken = onnx.load(artifact)
    broken.ir_version = 99
    onnx.save(broken, tmp_path / "broken.onnx")
    archive = archive_of(tmp_path / "inputs.npz", artifact)
    found = first_answer(worker, tmp_path / "broken.onnx", archive, 1)
    assert found["refused_at"] == "load"
    assert "Unsupported model IR version: 99" in found["reason"]
    # The results are published: neither a folder of this machine nor a place in the engine's source.
    assert "/" not in found["reason"]
    assert first_answer(worker, artifact, archive, 1) == {"max_relative_error": 0.0}


def test_an_engine_that_dies_is_a_reason(artifact, tmp_path):
    program = tmp_path / "dies"
    program.write_text("#!/bin/sh\nread line\nexit 7\n")
    program.chmod(0o755)
    with Worker("dies", program, "onnxruntime") as worker:
        found = first_answer(worker, artifact, tmp_path / "none.npz", 1)
    assert found == {"refused_at": "load", "reason": "the process ended with code 7"}


def test_everything_about_one_artifact(artifact, worker):
    arguments = argparse.Namespace(batches=(1, 3), rounds=2, threads=1)
    result = measure(artifact, [worker], arguments)
    assert (result["form"], result["batches"]) == ("opset 20", [2, 1, 3])
    assert result["engines"][worker.name]["max_relative_error"] == 0
    assert result["engines"][worker.name]["milliseconds_a_pattern"] > 0
    results = {"small": result}
    assert agreement(results, [worker.name]).splitlines()[2].split() == [
        "|",
        *worker.name.split(),
        "|",
        "0",
        "|",
    ]
    assert times(results, [worker.name]).splitlines()[2].startswith("| small")


def test_what_is_no_number_is_no_small_error():
    ones = np.ones(3, dtype=np.float32)
    assert relative_error(ones, 2 * ones) == 0.5
    assert relative_error(ones * np.nan, ones) is None
    assert relative_error(ones, ones * np.inf) is None
    assert relative_error(ones, 0 * ones) is None
    assert relative_error(ones[:2], ones) is None


def test_inputs_keep_to_the_contract():
    contract = contract_of(
        "counts", input={"scale": 1, "scale_rule": "a guess", "domain": "counts", "dtype": "uint16"}, batch=4
    )
    inputs = inputs_of(contract, (1, 3))
    assert [array.shape for array in inputs] == [(4, 1, N, N)] * 2
    assert {array.dtype for array in inputs} == {np.dtype(np.uint16)}
    assert form_of(contract) == "opset 20, counts, batch 4"


def test_old_versions_get_the_numpy_they_were_compiled_for():
    assert requirements("1.18.1") == ["onnxruntime==1.18.1", "numpy<2"]
    assert requirements("1.19.2") == ["onnxruntime==1.19.2", "numpy>=2"]
