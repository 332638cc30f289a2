"""Engines: workers that die or disagree cost at most their own task, and large scans give the object of one process."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from ptychonnx.harness.campaign import engines, large_scan, many_scans
from ptychonnx.harness.campaign.engines import Engine, LocalExecutor, open_engine
from ptychonnx.harness.campaign.large_scan import LargeScan, PartTask, run_part
from ptychonnx.harness.campaign.many_scans import reconstruct_scans
from ptychonnx.harness.campaign.scan_run import Networks, RunOptions, reconstruct_scan
from ptychonnx.harness.campaign.worker_network import WorkerNetwork
from ptychonnx.runtime.errors import EnvironmentFailure, InputError
from ptychonnx.runtime.formats.readers.native import write_scan
from ptychonnx.runtime.inference import providers
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.sharding import Shard

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


def test_a_killed_part_is_done_again_and_three_deaths_end_the_command(
    run, oracle, scan_of, tmp_path, monkeypatch
):
    scan = scan_of(grid=34, step=1)
    model = oracle(tmp_path / "m.onnx", scan, "pinn_cnn")
    for name in ("once", "always"):
        write_scan(tmp_path / f"{name}.npz", scan)
    assert run("reconstruct", model, tmp_path / "once.npz", "--out", tmp_path / "one.h5")[0] == 0
    monkeypatch.setattr(large_scan, "run_part", worker_tasks.mortal_part)
    out = tmp_path / "parts.h5"
    engine = ["--executor", "local:2"]
    code, _, error = run("reconstruct", model, tmp_path / "once.npz", "--out", out, *engine)
    assert code == 0, error
    assert "Warning: part 2 of 2 of once.npz: attempt 1 failed, once more: " in error
    np.testing.assert_array_equal(object_of(out), object_of(tmp_path / "one.h5"))
    code, _, error = run("reconstruct", model, tmp_path / "always.npz", "--out", tmp_path / "no.h5", *engine)
    assert code == 3
    assert "part 2 of 2 of always.npz: failed in 3 attempts, last with BrokenProcessPool" in error
    assert not (tmp_path / "no.h5").exists()


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
    dask_clusters = pytest.importorskip("ptychonnx.harness.campaign.dask_clusters")
    monkeypatch.setattr(dask_clusters, "_CONNECT_SECONDS", 0.5)
    write_scan(tmp_path / "one.npz", lines_scan)
    arguments = [four_artifacts[0], tmp_path / "one.npz", "--out", tmp_path / "objects"]
    code, _, error = run("reconstruct", *arguments, "--executor", "dask://127.0.0.1:9")
    assert code == 3
    line = f"127.0.0.1:9: no Dask scheduler answers {platform.node()} within 0.5 s, no part was started"
    assert line in " ".join(error.split())


@pytest.mark.parametrize(
    "text", ["", "locals", "local:0", "local:-1", "local:x", "dask://", "dask://host", "slurm"]
)
def test_an_engine_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="--executor"), open_engine(text):
        pass


def test_each_worker_sees_one_device_and_so_does_the_one_that_replaces_it(tmp_path):
    with LocalExecutor(2, ["5", "3"]) as executor:
        pairs = list(executor.map(worker_tasks.device_of_one_of_two, [tmp_path] * 2))
        assert sorted(device for device, _ in pairs) == ["3", "5"]
        for _, process in pairs:
            os.kill(process, signal.SIGKILL)
        # Both tasks may meet a dead process, one of them twice.
        outcomes = Engine(executor, 2).run(worker_tasks.device_of_one_of_two, [tmp_path / "again"] * 2)
        again = [outcome for _, outcome in outcomes]
    assert sorted(device for device, _ in again) == ["3", "5"]


@pytest.mark.parametrize(
    ("variable", "devices"),
    [
        (None, ["0", "1", "2"]),
        ("2,0", ["2", "0"]),
        ("GPU-1b, 1", ["GPU-1b", "1"]),
        ("1,-1,2", ["1"]),
        ("", []),
    ],
)
def test_devices_are_those_that_cuda_sees(monkeypatch, variable, devices):
    names = [*["CUDAExecutionProvider"] * 3, "CPUExecutionProvider"]
    monkeypatch.setattr(
        providers.ort, "get_ep_devices", lambda: [SimpleNamespace(ep_name=name) for name in names]
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert providers.visible_devices() == devices
    with open_engine("local") as engine:
        assert engine.workers == (len(devices) or engines.available_cores())
    with open_engine("local", "cpu") as engine:
        assert engine.workers == engines.available_cores()


def test_without_a_device_none_is_assigned(monkeypatch):
    monkeypatch.setattr(providers.ort, "get_ep_devices", list)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert providers.visible_devices() == []


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(engines, "available_cores", lambda: 12)
    for text, workers, threads in (
        ("local", 12, 1),
        ("local:3", 3, 4),
        ("local:5", 5, 2),
        ("local:24", 24, 1),
    ):
        with open_engine(text, "cpu") as engine:
            assert (engine.workers, engine.threads) == (workers, threads)


class Elsewhere(ThreadPoolExecutor):
    """Workers whose results do not arrive as they were written."""

    def __init__(self, harm):
        super().__init__(1)
        self._harm = harm

    def submit(self, function, /, task):
        def run(task):
            result = function(task)
            self._harm(task.out)
            return result

        return super().submit(run, task)


def test_what_workers_wrote_where_nobody_sees_it_is_named(run, oracle, scan_of, tmp_path):
    scan = scan_of(grid=34, step=1)
    write_scan(tmp_path / "scan.npz", scan)
    model = oracle(tmp_path / "m.onnx", scan, "pinn_cnn")
    options = RunOptions()
    for harm, message in (
        (Path.unlink, ": no such file, expected a part"),
        (
            lambda path: os.truncate(path, 3000),
            r" \(part 1/2, written on .*\): the part is damaged or cut short",
        ),
    ):
        with Elsewhere(harm) as executor, Networks(model) as networks:
            large = LargeScan(tmp_path / "scan.npz", options, Engine(executor), tmp_path, 2)
            with pytest.raises(InputError) as caught:
                reconstruct_scan(networks, scan, options, tmp_path / "o.h5", stitch=large)
        assert re.match(
            rf"part 1 of 2 of scan\.npz: {re.escape(platform.node())} wrote it, and here .*1\.h5{message}",
            str(caught.value),
        )
    with Elsewhere(Path.unlink) as executor, Networks(model) as networks:
        (outcome,) = reconstruct_scans(
            networks, [tmp_path / "scan.npz"], tmp_path / "objects", engine=Engine(executor)
        )
    host, objects = re.escape(platform.node()), re.escape(str(tmp_path / "objects"))
    line = rf"whole scan scan\.npz: {host} wrote {objects}/scan\.h5, which is not on {host}: do both see the same .*"
    assert re.fullmatch(line, outcome.record.error)
    assert records(tmp_path / "objects")["scan.h5"]["error"] == outcome.record.error


def test_a_worker_refuses_a_folder_that_it_does_not_see(four_artifacts, lines_scan, tmp_path):
    write_scan(tmp_path / "scan.npz", lines_scan)
    shard, options = Shard(1, 1), RunOptions()
    worker = WorkerNetwork.of(four_artifacts[0], InferenceOptions(), 1)
    task = PartTask(tmp_path / "scan.npz", shard, tmp_path / "none" / "1.h5", options, worker)
    with pytest.raises(InputError, match=r"does not see .*none, expected a folder that all workers share"):
        run_part(task)
    assert not (tmp_path / "none").exists()


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
