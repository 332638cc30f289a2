"""Dask clusters: on this machine, by the address of a scheduler, and as jobs of Slurm. Needs the extra `cluster`."""

from __future__ import annotations

import logging
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dask.config
import distributed
from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.runtime.errors import InputError, ServerError, first_line
from ptychonnx.runtime.inference.providers import VISIBLE_DEVICES
from ptychonnx.runtime.validation import checked
from ptychonnx.runtime.yaml_files import read_yaml_mapping

__all__ = ["KilledWorker", "SlurmCluster", "connect", "local_cluster", "slurm_cluster"]

KilledWorker = distributed.KilledWorker

_CONNECT_SECONDS = 10.0
# The third death of a task's worker is the last.
_SCHEDULER = {"allowed_failures": 2}


class SlurmCluster(BaseModel):
    """Content of the YAML file; further keys are arguments of `dask_jobqueue.SLURMCluster`.

    * `jobs`: jobs that are submitted.
    * `cores`, `processes`: processors of each job, and workers that share them.
    * `log_directory`: folder for what the jobs print, created if it is missing. Default: that of Dask's configuration,
      or slurm-logs.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    jobs: int = Field(default=1, ge=1)
    cores: int = Field(default=1, ge=1)
    processes: int = Field(default=0, ge=0)
    memory: str | None = None
    log_directory: str | None = None
    worker_extra_args: tuple[str, ...] = ()

    @property
    def workers_per_job(self) -> int:
        """One for each core, unless `processes` is given."""
        return self.processes or self.cores

    @property
    def workers(self) -> int:
        """Workers of all jobs."""
        return self.jobs * self.workers_per_job

    @property
    def threads(self) -> int:
        """Threads of a worker's network."""
        return max(1, self.cores // self.workers_per_job)

    def arguments(self) -> dict[str, Any]:
        """Arguments of `dask_jobqueue.SLURMCluster`. A worker has one task at a time, whatever its number of cores."""
        own = {
            "processes": self.workers_per_job,
            "log_directory": self.log_directory
            or dask.config.get("jobqueue.slurm.log-directory", None)
            or "slurm-logs",
            "worker_extra_args": [*self.worker_extra_args, "--nthreads", "1"],
            "scheduler_options": _SCHEDULER | (self.model_extra or {}).get("scheduler_options", {}),
        }
        return self.model_dump(exclude={"jobs"}) | own


class _LocalCluster(distributed.LocalCluster):
    """Worker processes on this machine, each of which sees one of the devices, also when it is started again."""

    def __init__(self, devices: Sequence[str], **options: Any) -> None:
        self._devices = devices
        super().__init__(**options)

    def new_worker_spec(self) -> dict[Any, Any]:
        """Describe the next worker."""
        ((number, worker),) = super().new_worker_spec().items()
        if self._devices:
            environment = {VISIBLE_DEVICES: self._devices[number % len(self._devices)]}
            worker = worker | {"options": worker["options"] | {"env": environment}}
        return {number: worker}


@contextmanager
def local_cluster(workers: int, devices: Sequence[str] = ()) -> Iterator[distributed.LocalCluster]:
    """Workers on this machine for the length of a `with` block; if there are devices, they share them in turn."""
    # A worker that has died is started again. If that takes longer than this, Dask gives it up and starts no other: the
    # default of 15 s is too short for a busy machine.
    patience = dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"})
    cluster = _LocalCluster(
        devices,
        n_workers=0,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        memory_limit=1 / workers,  # of the machine
        silence_logs=logging.ERROR,
        scheduler_kwargs=_SCHEDULER,
    )
    with patience, cluster:
        _start(cluster, workers)
        yield cluster


def _start(cluster: Any, count: int) -> None:
    """Start workers or jobs. `scale` does so in the background, where an error would only be logged."""
    for _ in range(count):
        cluster.worker_spec.update(cluster.new_worker_spec())
    cluster.sync(cluster._correct_state)


def connect(address: Any) -> distributed.Client:
    """Connect to a cluster, or to the scheduler at an address.

    Raises ServerError if none answers.
    """
    try:
        return distributed.Client(address, timeout=_CONNECT_SECONDS)
    except (OSError, TimeoutError) as error:
        raise ServerError(
            f"{address}: no Dask scheduler answers {platform.node()} within {_CONNECT_SECONDS:g} s, no part was started"
        ) from error


@contextmanager
def slurm_cluster(path: Path) -> Iterator[tuple[Any, SlurmCluster]]:
    """Submit the jobs that a YAML file describes, whose workers connect to a scheduler in this process.

    Raises InputError if the file is invalid, dask-jobqueue is not installed, or this machine cannot submit jobs. Raises
    ServerError if Slurm refuses the job.

    Yields the cluster, and the content of the file.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise InputError(
            f"--executor {path}: dask-jobqueue is not installed, expected pip install ptychonnx[cluster]"
        ) from error
    values = read_yaml_mapping(path, "jobs, and options of dask_jobqueue.SLURMCluster")
    description = checked(SlurmCluster, values, lambda name: f"{path}: {name}")
    if shutil.which("sbatch") is None:
        raise InputError(f"--executor {path}: this machine has no sbatch, expected a login node of Slurm")
    try:
        cluster = SLURMCluster(**description.arguments())
    except (TypeError, ValueError, OSError) as error:
        raise InputError(f"{path}: dask_jobqueue.SLURMCluster refuses it ({first_line(error)})") from error
    try:
        _start(cluster, description.jobs)
    except RuntimeError as error:
        with suppress(AssertionError):  # by which Dask complains that the job never ran
            cluster.close()
        raise ServerError(f"{path}: sbatch failed: {' '.join(str(error).split())}") from error
    with cluster:
        yield cluster, description
