"""Engines: workers that die or disagree cost at most their own task, and large scans give the object of one process."""

from __future__ import annotations

import json
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ptychonnx.harness.campaign import engines, many_scans
from ptychonnx.harness.campaign.engines import Engine, open_engine
from ptychonnx.harness.campaign.many_scans import reconstruct_scans
from ptychonnx.harness.campaign.scan_run import Networks
from ptychonnx.harness.campaign.worker_network import WorkerNetwork
from ptychonnx.runtime.errors import EnvironmentFailure, InputError
from ptychonnx.runtime.formats.readers.native import write_scan
from ptychonnx.runtime.inference.inference_options import InferenceOptions

from . import worker_tasks


def object_of(path):
    with h5py.File(path) as file:
        return file["object"][()]


def records(folder):
    lines = map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
    return {record["result"]: record for record in lines}


def test_a_killed_worker_costs_nothing_and_three_deaths_one_scan(
    run, four_artifacts, lines_scan, tmp_path, monkeypatch
):
    for number, name in enumerate(("once", "always", "plain", "corrupt")):
        write_scan(tmp_path / f"{name}.npz", lines_scan.subset(slice(number, number + 40)))
    (tmp_path / "corrupt.npz").write_bytes((tmp_path / "plain.npz").read_bytes()[:9000])
    scans = sorted(tmp_path.glob("*.npz"))
    monkeypatch.setattr(many_scans, "run_task", worker_tasks.mortal_task)
    objects = tmp_path / "objects"
    code, _, error = run("reconstruct", four_artifacts[0], *scans, "--out", objects, "--executor", "local:2")
    assert code == 1
    assert "2 of 4 scans failed" in error
    assert "Warning: once.npz: attempt 1 failed, once more: " in error
    attempts = {path.stem: len(path.read_text()) for path in objects.glob("*.attempts")}
    assert attempts == {"once": 2, "always": 3, "plain": 1, "corrupt": 1}
    written = records(objects)
    assert "failed in 3 attempts, last with BrokenProcessPool" in written["always.h5"]["error"]
    assert "truncated or no NPZ archive" in written["corrupt.h5"]["error"]
    monkeypatch.undo()
    single = tmp_path / "single"
    run("reconstruct", four_artifacts[0], *scans, "--out", single)
    for name in ("once.h5", "plain.h5"):
        assert written[name]["error"] is None
        np.testing.assert_array_equal(object_of(objects / name), object_of(single / name))
    assert not (objects / "always.h5").exists()


def test_parts_of_a_large_scan_give_the_object_of_one_process(run, oracle, scan_of, tmp_path):
    scan = scan_of(grid=34, step=1)  # more than the 1,024 patterns of a segment
    write_scan(tmp_path / "scan.npz", scan)
    model = oracle(tmp_path / "m.onnx", scan, "pinn_cnn")
    arguments = ["reconstruct", model, tmp_path / "scan.npz", "--out"]
    assert run(*arguments, tmp_path / "one.h5")[0] == 0
    code, out, error = run(*arguments, tmp_path / "parts.h5", "--executor", "local:2")
    assert code == 0, error
    assert "from 1156 patterns" in out
    assert "forward misfit" in out + error
    np.testing.assert_array_equal(object_of(tmp_path / "parts.h5"), object_of(tmp_path / "one.h5"))
    code, _, error = run(*arguments, tmp_path / "no.h5", "--executor", "local:1", "--shards", "3")
    assert code == 2
    assert "part 1 of 3 of scan.npz: " in error
    assert "has 2 segments, expected at most 2 shards (on " in error
    assert {path.name for path in tmp_path.iterdir()} == {"scan.npz", "m.onnx", "one.h5", "parts.h5"}


def test_a_dask_cluster_reconstructs_scans(run, four_artifacts, lines_scan, tmp_path):
    pytest.importorskip("distributed")
    for name in ("one", "two"):
        write_scan(tmp_path / f"{name}.npz", lines_scan)
    (tmp_path / "two.npz").write_bytes(b"neither NPZ nor HDF5")
    scans = [tmp_path / "one.npz", tmp_path / "two.npz"]
    with open_engine("dask:1") as engine:
        address = engine.executor._client.scheduler.address.replace("tcp://", "dask://")
        code, _, error = run(
            "reconstruct", four_artifacts[0], *scans, "--out", tmp_path / "objects", "--executor", address
        )
    assert code == 1
    assert "1 of 2 scans failed" in error
    assert run("reconstruct", four_artifacts[0], scans[0], "--out", tmp_path / "one.h5")[0] == 0
    np.testing.assert_array_equal(object_of(tmp_path / "objects" / "one.h5"), object_of(tmp_path / "one.h5"))


def test_a_scheduler_that_is_not_there_is_named(run, four_artifacts, lines_scan, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(engines, "_CONNECT_SECONDS", 0.5)
    write_scan(tmp_path / "one.npz", lines_scan)
    arguments = [four_artifacts[0], tmp_path / "one.npz", "--out", tmp_path / "objects"]
    code, _, error = run("reconstruct", *arguments, "--executor", "dask://127.0.0.1:9")
    assert code == 3
    assert "127.0.0.1:9: no Dask scheduler answers there" in error


@pytest.mark.parametrize(
    "text", ["", "locals", "local:0", "local:-1", "local:x", "dask://", "dask://host", "slurm"]
)
def test_an_engine_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="--executor"), open_engine(text):
        pass


def test_errors_on_purpose_are_final_and_others_are_tried_again():
    attempts = []

    def task(error):
        attempts.append(error)
        raise error

    errors = [InputError("wrong"), OSError("lost")]
    with ThreadPoolExecutor(1) as executor:
        outcomes = dict(Engine(executor).run(task, errors))
    assert outcomes == {error: error for error in errors}
    assert [attempts.count(error) for error in errors] == [1, 3]


def test_tasks_that_a_scheduler_cancels_have_failed():
    class Cancelling(ThreadPoolExecutor):
        def submit(self, function, /, *args):
            future = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    with Cancelling(1) as executor:
        ((task, outcome),) = Engine(executor).run(str, ["task"])
    assert task == "task"
    assert isinstance(outcome, CancelledError)


def test_an_executor_of_a_program_that_broke_is_named(four_artifacts, lines_scan, tmp_path, monkeypatch):
    write_scan(tmp_path / "always.npz", lines_scan)
    monkeypatch.setattr(many_scans, "run_task", worker_tasks.mortal_task)
    networks = Networks(four_artifacts[0])
    with (
        ProcessPoolExecutor(1) as executor,
        pytest.raises(EnvironmentFailure, match=r"takes no more tasks .*, expected one that replaces dead"),
    ):
        reconstruct_scans(networks, [tmp_path / "always.npz"], tmp_path / "o", engine=Engine(executor))


def test_a_worker_with_another_network_or_version_refuses(four_artifacts):
    worker = WorkerNetwork.of(four_artifacts[0], InferenceOptions(), 1)
    assert worker.open().for_scan(None).path == four_artifacts[0]
    for change, message in (
        ({"sha256": "0" * 64}, "differs from the network of the command"),
        ({"version": "0.0.1"}, r"has ptychonnx .*, expected 0\.0\.1"),
        ({"path": four_artifacts[0].with_name("none.onnx")}, "does not see .*none.onnx"),
    ):
        with pytest.raises(InputError, match=message):
            replace(worker, **change).open()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--executor", "local", "--shard", "1/2", "--out", "o.h5"], "--shard: a command with --executor"),
        (
            ["--executor", "local", "--shards", "2", "--out", "objects"],
            "--shards: is for one scan with --executor",
        ),
        (["--shards", "2", "--out", "o.h5"], "--shards: is for one scan with --executor"),
    ],
)
def test_options_that_contradict_are_refused(
    run, four_artifacts, lines_scan, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    write_scan(tmp_path / "scan.npz", lines_scan)
    code, _, error = run("reconstruct", four_artifacts[0], "scan.npz", *options)
    assert code == 2
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npz"]
