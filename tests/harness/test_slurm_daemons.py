"""Slurm itself: its daemons run on this machine as three nodes, and take the scripts and the workers of `slurm.yaml`.

Each node is a `slurmd` with a host name of its own, in a UTS namespace: Debian's packages are not built with
`--enable-multiple-slurmd`, which would let nodes share one.

`make test-slurm` runs it, as root, with Debian's packages munge, slurmctld, slurmd and slurm-client.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.formats.readers.native import write_scan

from .conftest import make_contract, small_scan, write_oracle

pytestmark = pytest.mark.slurm

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=300
{nodes}
PartitionName=short Nodes=ALL Default=YES MaxTime=60 State=UP
"""
NODE = "NodeName={name} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=4000 State=UNKNOWN"
NODES = ("n1", "n2", "n3")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Daemons of a cluster of three nodes with one processor each, for as long as the tests of this module run."""
    if "PTYCHONNX_SLURM" not in os.environ:
        pytest.skip("needs Slurm's daemons, see `make test-slurm`")
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    (folder / "state").mkdir()
    for name in NODES:
        (folder / f"spool-{name}").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in ("controller", *NODES)]
        for listening in sockets:
            listening.bind(("127.0.0.1", 0))
        controller, *ports = (listening.getsockname()[1] for listening in sockets)
    nodes = "\n".join(NODE.format(name=name, port=port) for name, port in zip(NODES, ports, strict=True))
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(folder=folder, host=platform.node(), controller=controller, nodes=nodes)
    )
    files = {name: f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")}
    daemons = []
    with pytest.MonkeyPatch.context() as patch, (folder / "daemons.log").open("w") as log:
        patch.setenv("SLURM_CONF", str(configuration))
        patch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        try:
            for command in (
                ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files.values()],
                ["slurmctld", "-D", "-c"],
                *(
                    ["unshare", "--uts", "sh", "-c", f"hostname {name} && exec slurmd -D -N {name}"]
                    for name in NODES
                ),
            ):
                daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
            wait_until(lambda: slurm_says("sinfo", "-h", "-N", "-o", "%T").split() == ["idle"] * 3, log.name)
            yield folder
        finally:
            slurm_says("scancel", "--user=root")
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait()


def slurm_says(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def wait_until(condition, log, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, Path(log).read_text()[-3000:]
        time.sleep(0.5)


def object_of(path):
    with h5py.File(path) as file:
        return file["object"][()]


def host_of(part):
    with h5py.File(part) as file:
        return json.loads(file.attrs["part"])["host"]


@pytest.fixture
def files(tmp_path):
    """A network and a scan of three segments."""
    scan = small_scan(grid=46, step=1)
    write_scan(tmp_path / "scan.npz", scan)
    write_oracle(tmp_path / "m.onnx", scan, make_contract("pinn_cnn", scan))
    return [tmp_path / "m.onnx", tmp_path / "scan.npz"]


def test_the_merge_runs_after_the_parts_and_gives_the_object_of_one_process(slurm, run, files, tmp_path):
    out = tmp_path / "object.h5"
    requests = ["--shards", "3", "--partition", "short", "--time", "5", "--memory", "1G"]
    code, said, error = run("slurm", "reconstruct", *files, "--out", out, *requests, "--submit")
    assert code == 0, error
    assert "Submitted batch job" in said
    wait_until(lambda: not slurm_says("squeue", "-h"), slurm / "daemons.log")
    logs = "".join(path.read_text() for path in (tmp_path / "object.slurm").glob("*.log"))
    assert out.exists(), logs
    assert {host_of(tmp_path / "object.slurm" / "parts" / f"{number}.h5") for number in (1, 2, 3)} == set(
        NODES
    )
    assert run("reconstruct", *files, "--out", tmp_path / "one.h5")[0] == 0
    np.testing.assert_array_equal(object_of(out), object_of(tmp_path / "one.h5"))


def test_a_part_that_fails_cancels_the_merge_and_is_submitted_again(slurm, run, files, tmp_path):
    out, folder = tmp_path / "object.h5", tmp_path / "object.slurm"
    obstacle = folder / "parts" / "2.h5"
    (obstacle / "in_the_way").mkdir(parents=True)
    requests = ["--shards", "2", "--partition", "short", "--time", "5"]
    code, _, error = run("slurm", "reconstruct", *files, "--out", out, *requests, "--submit")
    assert code == 0, error
    wait_until(lambda: not slurm_says("squeue", "-h"), slurm / "daemons.log")
    assert (folder / "parts" / "1.h5").is_file()
    assert not out.exists()
    assert not list(folder.glob("merge_*.log"))
    shutil.rmtree(obstacle)
    subprocess.run(["sbatch", "--wait", "--array=2", folder / "parts.sh"], check=True, capture_output=True)
    subprocess.run(["sbatch", "--wait", folder / "merge.sh"], check=True, capture_output=True)
    assert run("reconstruct", *files, "--out", tmp_path / "one.h5")[0] == 0
    np.testing.assert_array_equal(object_of(out), object_of(tmp_path / "one.h5"))


def test_slurm_starts_the_workers_of_a_file(slurm, run, files, tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    monkeypatch.chdir(tmp_path)
    description = tmp_path / "slurm.yaml"
    description.write_text("jobs: 2\nmemory: 1GB\nqueue: short\nwalltime: '00:05:00'\n")
    out = tmp_path / "objects"
    code, _, error = run("reconstruct", *files, "--out", out, "--executor", description)
    assert code == 0, error
    wait_until(lambda: not slurm_says("squeue", "-h"), slurm / "daemons.log")
    assert run("reconstruct", *files, "--out", tmp_path / "one.h5")[0] == 0
    np.testing.assert_array_equal(object_of(out / "scan.h5"), object_of(tmp_path / "one.h5"))
    # What the jobs print is in one folder.
    assert list((tmp_path / "slurm-logs").glob("*.out"))
    assert not list(tmp_path.glob("*.out"))


def test_a_partition_that_slurm_does_not_have_is_its_one_line(slurm, run, files, tmp_path):
    requests = ["--shards", "2", "--partition", "absent", "--time", "5", "--submit"]
    code, _, error = run("slurm", "reconstruct", *files, "--out", tmp_path / "o.h5", *requests)
    assert code == 3
    assert "invalid partition specified: absent" in " ".join(error.split())
