"""Engines for scans and parts of scans: processes on this machine, Dask, Slurm, or any executor of a program."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ptychonnx.runtime.errors import EnvironmentFailure, InputError, PtychonnxError, ServerError, first_line
from ptychonnx.runtime.inference.providers import VISIBLE_DEVICES, ProviderRequest, visible_devices
from ptychonnx.runtime.machine import available_cores

__all__ = ["Engine", "LocalExecutor", "open_engine"]

Task = TypeVar("Task")
Result = TypeVar("Result")

_logger = logging.getLogger(__name__)

_ATTEMPTS = 3


class LocalExecutor(Executor):
    """Worker processes on this machine.

    Each worker is a pool of one process, which is replaced if it dies: its own task fails with `BrokenProcessPool`,
    and no other. A pool of several processes would fail all tasks, and not say which of them was to blame.

    If there are devices, the workers share them in turn: each sees one of them alone.
    """

    def __init__(self, workers: int, devices: Sequence[str] = ()) -> None:
        self._devices: Iterator[str | None] = itertools.cycle(devices or [None])
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="worker")
        self._own = threading.local()
        self._pools: set[ProcessPoolExecutor] = set()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Run a function of a module in one of the processes."""
        return self._threads.submit(self._run, function, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        for pool in self._pools:
            pool.shutdown(wait, cancel_futures=True)

    def _run(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        pool = getattr(self._own, "pool", None)
        if pool is None:
            if not hasattr(self._own, "device"):
                self._own.device = next(self._devices)
            # A forked process would inherit the threads' locks of onnxruntime and HDF5, but not the threads.
            pool = ProcessPoolExecutor(
                1,
                multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(self._own.device,),
            )
            self._own.pool = pool
            self._pools.add(pool)
        try:
            return pool.submit(_interruptible, function, args, kwargs).result()
        except BrokenProcessPool:
            self._own.pool = None
            self._pools.discard(pool)
            raise


def _start_worker(device: str | None) -> None:
    """Ignore Ctrl-C between tasks, and see one device alone; CUDA reads its variable when a network is opened."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if device is not None:
        os.environ[VISIBLE_DEVICES] = device


def _interruptible(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run a task that Ctrl-C ends; a worker without a task would print a traceback."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return function(*args, **kwargs)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class Engine:
    """Where tasks run.

    * `executor`: runs functions of modules with arguments that can be pickled.
    * `workers`: tasks that run at the same time.
    * `threads`: threads of a network on each worker; None for onnxruntime's choice.
    * `attempts`: how often a task is tried whose worker dies.
    * `final`: errors after which a task is not tried again.
    * `at_once`: tasks that the executor has at the same time; all if None. Dask blames the death of a worker on each
      task that waits there, so it gets no more than it has workers.
    """

    executor: Executor
    workers: int = 1
    threads: int | None = None
    attempts: int = _ATTEMPTS
    final: tuple[type[Exception], ...] = (PtychonnxError,)
    at_once: int | None = None

    def run(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result | Exception]]:
        """Yield each task with its result, or with the error of its last attempt, as they complete.

        Errors that ptychonnx raises on purpose are final. After any other, such as the death of a worker, the task is
        done again, and a warning names it by its text.
        """
        waiting: dict[Future, tuple[Task, int]] = {}
        queue = deque((task, 1) for task in tasks)
        try:
            while queue or waiting:
                while queue and len(waiting) < (self.at_once or len(tasks)):
                    task, attempt = queue.popleft()
                    waiting[self._submit(function, task)] = task, attempt
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    task, attempt = waiting.pop(future)
                    error = CancelledError("cancelled") if future.cancelled() else future.exception()
                    if error is None:
                        yield task, future.result()
                    elif not isinstance(error, Exception):
                        raise error
                    elif attempt == self.attempts or isinstance(error, self.final):
                        yield task, error
                    else:
                        _logger.warning(
                            "%s: attempt %d failed, once more: %s", task, attempt, first_line(error)
                        )
                        queue.appendleft((task, attempt + 1))
        finally:
            for future in waiting:
                future.cancel()

    def reason(self, error: Exception) -> str:
        """One line about a task that failed for good."""
        line = f"{type(error).__name__}: {first_line(error)}"
        return line if self.attempts == 1 else f"failed in {self.attempts} attempts, last with {line}"

    def _submit(self, function: Callable[[Task], Result], task: Task) -> Future:
        try:
            return self.executor.submit(function, task)
        except (BrokenExecutor, RuntimeError) as error:
            raise EnvironmentFailure(
                f"the executor takes no more tasks ({first_line(error)}), expected one that replaces dead workers"
            ) from error


@contextmanager
def open_engine(text: str, provider: str = "auto") -> Iterator[Engine]:
    """Open an engine by its name, and close it at the end.

    Raises InputError if the name is unknown, or Dask is not installed. Raises ServerError if the scheduler does not
    answer or has no workers, or Slurm refuses the jobs.

    * `text`: ``local`` or ``local:4`` for processes on this machine, ``dask`` or ``dask:4`` for a Dask cluster on this
      machine, ``dask://host:port`` for the scheduler of a cluster, or a YAML file for workers that Slurm starts.
      Without a number, there is one worker per GPU, or per core.
    * `provider`: of the networks. If it may run on a GPU and names none, workers on this machine share its GPUs in
      turn.
    """
    match = re.fullmatch(r"(local|dask)(?::(\d{1,4}))?", text)
    if text.endswith((".yaml", ".yml")):
        dask = _dask(text)
        with dask.slurm_cluster(Path(text)) as (cluster, jobs), dask.connect(cluster) as client:
            yield _dask_engine(dask, client, jobs.workers, jobs.threads, jobs.workers)
    elif re.fullmatch(r"dask://[^/\s]+:\d+", text):
        dask = _dask(text)
        with dask.connect(text.replace("dask", "tcp", 1)) as client:
            slots = sum(worker["nthreads"] for worker in client.scheduler_info(-1)["workers"].values())
            if not slots:
                raise ServerError(f"{text}: the scheduler has no workers")
            # A worker runs as many tasks at the same time as it has threads.
            yield _dask_engine(dask, client, slots, 1)
    elif match is None:
        raise InputError(
            f"--executor {text}: expected local[:WORKERS], dask[:WORKERS], dask://HOST:PORT or a file .yaml for Slurm"
        )
    elif match[2] is not None and int(match[2]) < 1:
        raise InputError(f"--executor {text}: has no workers, expected 1 at least")
    else:
        request = ProviderRequest.parse(provider)
        on_gpu = request.kind in {"auto", "cuda", "cuda-graph", "tensorrt"} and request.devices == (0,)
        devices = visible_devices() if on_gpu else []
        workers = int(match[2] or len(devices) or available_cores())
        threads = max(1, available_cores() // workers)
        if match[1] == "local":
            with LocalExecutor(workers, devices) as executor:
                yield Engine(executor, workers, threads)
        else:
            dask = _dask(text)
            with dask.local_cluster(workers, devices) as cluster, dask.connect(cluster) as client:
                yield _dask_engine(dask, client, workers, threads, workers)


def _dask_engine(dask: Any, client: Any, workers: int, threads: int, at_once: int | None = None) -> Engine:
    """Dask itself repeats the tasks of workers that die, and counts their deaths."""
    final = (PtychonnxError, dask.KilledWorker)
    return Engine(client.get_executor(pure=False), workers, threads, final=final, at_once=at_once)


def _dask(text: str) -> Any:
    try:
        from ptychonnx.harness.campaign import dask_clusters
    except ImportError as error:
        raise InputError(
            f"--executor {text}: Dask is not installed, expected pip install ptychonnx[cluster]"
        ) from error
    return dask_clusters
