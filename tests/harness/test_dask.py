"""Dask: workers that die are replaced, workers of other versions refuse, and Slurm starts workers from a YAML file.

No Slurm runs here: `sbatch` is a script that starts the script of the job on this machine, which dask-jobqueue wrote.
`test_slurm_daemons` lets Slurm itself start the workers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ptychonnx.harness.campaign import many_scans
from ptychonnx.harness.campaign.engines import open_engine
from ptychonnx.runtime.errors import InputError, ServerError
from ptychonnx.runtime.formats.readers.native import write_scan

from . import worker_tasks

dask_clusters = pytest.importorskip("ptychonnx.harness.campaign.dask_clusters")

SBATCH = """\
#!/bin/bash
cp "${@: -1}" FOLDER/job.sh
setsid bash FOLDER/job.sh > FOLDER/job.log 2>&1 &
echo $! > FOLDER/job.pid
echo "Submitted batch job 42"
"""
SCANCEL = """\
#!/bin/bash
echo "$@" > FOLDER/cancelled
kill -- -"$(cat FOLDER/job.pid)"
"""


def object_of(path):
    with h5py.File(path) as file:
        return file["object"][()]


def executable(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text.replace("FOLDER", str(path.parent.parent)))
    path.chmod(0o755)


def test_a_killed_worker_costs_nothing_and_three_deaths_one_scan(
    run, four_artifacts, lines_scan, tmp_path, monkeypatch
):
    for number, name in enumerate(("once", "always", "plain")):
        write_scan(tmp_path / f"{name}.npz", lines_scan.subset(slice(number, number + 40)))
    scans = sorted(tmp_path.glob("*.npz"))
    monkeypatch.setattr(many_scans, "run_task", worker_tasks.mortal_task)
    objects = tmp_path / "objects"
    code, _, error = run("reconstruct", four_artifacts[0], *scans, "--out", objects, "--executor", "dask:1")
    assert code == 1, error
    lines = map(json.loads, (objects / "manifest.jsonl").read_text().splitlines())
    errors = {record["result"]: record["error"] for record in lines}
    assert "KilledWorker" in errors.pop("always.h5")
    assert errors == {"once.h5": None, "plain.h5": None}
    assert len((objects / "always.attempts").read_text()) == 3
    monkeypatch.undo()
    single = tmp_path / "single"
    run("reconstruct", four_artifacts[0], *scans, "--out", single)
    for name in errors:
        np.testing.assert_array_equal(object_of(objects / name), object_of(single / name))


def test_workers_share_the_devices(tmp_path):
    with (
        dask_clusters.local_cluster(2, ["5", "3"]) as cluster,
        dask_clusters.connect(cluster) as client,
    ):
        futures = [
            client.submit(worker_tasks.device_of_one_of_two, tmp_path, workers=[worker], pure=False)
            for worker in client.scheduler_info(-1)["workers"]
        ]
        assert sorted(device for device, _ in client.gather(futures)) == ["3", "5"]


def test_a_worker_of_another_version_refuses(run, four_artifacts, lines_scan, tmp_path):
    """The worker finds metadata of another version first on its path."""
    metadata = tmp_path / "other" / "ptychonnx-0.0.1.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: ptychonnx\nVersion: 0.0.1\n")
    write_scan(tmp_path / "scan.npz", lines_scan)
    path = os.pathsep.join([str(metadata.parents[1]), *filter(None, sys.path)])
    with dask_clusters.distributed.LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        command = [
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            address,
            "--no-nanny",
            "--no-dashboard",
        ]
        worker = subprocess.Popen(
            [*command, "--nthreads", "1"],
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,
        )
        try:
            cluster.wait_for_workers(1, timeout=60)
            address = address.replace("tcp://", "dask://")
            files = [four_artifacts[0], tmp_path / "scan.npz", "--out"]
            code, _, error = run("reconstruct", *files, tmp_path / "o.h5", "--executor", address)
        finally:
            worker.terminate()
            worker.wait()
    assert code == 2
    assert "part 1 of 1 of scan.npz: " in error
    assert "has ptychonnx 0.0.1, expected " in error


def test_slurm_starts_the_workers_of_a_file(run, four_artifacts, lines_scan, tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    executable(tmp_path / "bin" / "sbatch", SBATCH)
    executable(tmp_path / "bin" / "scancel", SCANCEL)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slurm.yaml").write_text(
        "jobs: 1\ncores: 2\nprocesses: 1\nmemory: 2GB\nqueue: short\nwalltime: '00:10:00'\n"
        "job_extra_directives: ['--gpus=1']\n"
    )
    write_scan(tmp_path / "scan.npz", lines_scan)
    arguments = ["reconstruct", four_artifacts[0], tmp_path / "scan.npz", "--out"]
    code, _, error = run(*arguments, tmp_path / "objects", "--executor", tmp_path / "slurm.yaml")
    assert code == 0, error + (tmp_path / "job.log").read_text()
    script = (tmp_path / "job.sh").read_text()
    for line in ("#SBATCH -p short", "#SBATCH --cpus-per-task=2", "#SBATCH -t 00:10:00", "#SBATCH --gpus=1"):
        assert line in script
    # What the job prints goes to a folder of its own.
    assert re.search(r"#SBATCH -o slurm-logs/\S+\.out", script)
    assert (tmp_path / "slurm-logs").is_dir()
    assert (tmp_path / "cancelled").read_text().split() == ["42"]
    run(*arguments, tmp_path / "single.h5")
    np.testing.assert_array_equal(
        object_of(tmp_path / "objects" / "scan.h5"), object_of(tmp_path / "single.h5")
    )


def test_a_job_that_slurm_refuses_is_named(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    refusal = "#!/bin/bash\necho 'sbatch: error: invalid partition specified: short' >&2\nexit 1\n"
    executable(tmp_path / "bin" / "sbatch", refusal)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slurm.yaml").write_text("memory: 2GB\nqueue: short\n")
    with (
        pytest.raises(
            ServerError, match=r"slurm\.yaml: sbatch failed: .* invalid partition specified: short"
        ),
        open_engine(str(tmp_path / "slurm.yaml")),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jobs: 0\n", r"slurm\.yaml: jobs 0: expected a value greater than or equal to 1"),
        ("jobs: [\n", r"slurm\.yaml: line 2"),
        ("cores: 1\n", r"slurm\.yaml: dask_jobqueue.SLURMCluster refuses it .*memory"),
        (
            "memory: 1GB\npartition: short\n",
            r"slurm\.yaml: dask_jobqueue.SLURMCluster refuses it .*partition",
        ),
    ],
)
def test_a_file_that_describes_no_jobs_is_refused(tmp_path, monkeypatch, text, message):
    pytest.importorskip("dask_jobqueue")
    executable(tmp_path / "bin" / "sbatch", "#!/bin/bash\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slurm.yaml").write_text(text)
    with pytest.raises(InputError, match=message), open_engine(str(tmp_path / "slurm.yaml")):
        pass
    monkeypatch.setenv("PATH", "/nowhere")
    (tmp_path / "slurm.yaml").write_text("memory: 1GB\n")
    with (
        pytest.raises(InputError, match="this machine has no sbatch"),
        open_engine(str(tmp_path / "slurm.yaml")),
    ):
        pass
