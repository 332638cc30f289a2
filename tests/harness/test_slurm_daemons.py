"""Slurm itself: its daemons run on this machine as one node, and take the scripts and the workers of `slurm.yaml`.

`make test-slurm` runs it, as root, with Debian's packages munge, slurmctld, slurmd and slurm-client.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import time
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
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=short Nodes=ALL Default=YES MaxTime=60 State=UP
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Daemons of a cluster of one node, for as long as the tests of this module run."""
    if "PTYCHONNX_SLURM" not in os.environ:
        pytest.skip("needs Slurm's daemons, see `make test-slurm`")
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = {"controller": one.getsockname()[1], "node": other.getsockname()[1]}
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, host=platform.node(), **ports))
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
                ["slurmd", "-D", "-N", platform.node()],
            ):
                daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
            wait_until(lambda: slurm_says("sinfo", "-h", "-o", "%T") == "idle", log.name)
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


@pytest.fixture
def files(tmp_path):
    """A network and a scan of two segments."""
    scan = small_scan(grid=34, step=1)
    write_scan(tmp_path / "scan.npz", scan)
    write_oracle(tmp_path / "m.onnx", scan, make_contract("pinn_cnn", scan))
    return [tmp_path / "m.onnx", tmp_path / "scan.npz"]


def test_the_merge_runs_after_the_parts_and_gives_the_object_of_one_process(slurm, run, files, tmp_path):
    out = tmp_path / "object.h5"
    requests = ["--shards", "2", "--partition", "short", "--time", "5", "--memory", "1G"]
    code, said, error = run("slurm", "reconstruct", *files, "--out", out, *requests, "--submit")
    assert code == 0, error
    assert "Submitted batch job" in said
    wait_until(lambda: not slurm_says("squeue", "-h"), slurm / "daemons.log")
    logs = "".join(path.read_text() for path in (tmp_path / "object.slurm").glob("*.log"))
    assert out.exists(), logs
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


def test_slurm_starts_the_workers_of_a_file(slurm, run, files, tmp_path):
    pytest.importorskip("dask_jobqueue")
    description = tmp_path / "slurm.yaml"
    job = f"memory: 1GB\nqueue: short\nwalltime: '00:05:00'\nlog_directory: {tmp_path}\n"
    description.write_text(f"jobs: 2\n{job}")
    out = tmp_path / "objects"
    code, _, error = run("reconstruct", *files, "--out", out, "--executor", description)
    assert code == 0, error
    wait_until(lambda: not slurm_says("squeue", "-h"), slurm / "daemons.log")
    assert run("reconstruct", *files, "--out", tmp_path / "one.h5")[0] == 0
    np.testing.assert_array_equal(object_of(out / "scan.h5"), object_of(tmp_path / "one.h5"))


def test_a_partition_that_slurm_does_not_have_is_its_one_line(slurm, run, files, tmp_path):
    requests = ["--shards", "2", "--partition", "absent", "--time", "5", "--submit"]
    code, _, error = run("slurm", "reconstruct", *files, "--out", tmp_path / "o.h5", *requests)
    assert code == 3
    assert "invalid partition specified: absent" in " ".join(error.split())
