"""Engines for scans and parts of scans: processes on this machine, a Dask cluster, or any executor of a program."""

from __future__ import annotations

import logging
import multiprocessing
import re
import signal
import threading
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
from typing import Any, TypeVar

from ptychonnx.runtime.errors import EnvironmentFailure, InputError, PtychonnxError, ServerError, first_line
from ptychonnx.runtime.inference.data_parallel import available_cores

__all__ = ["Engine", "LocalExecutor", "open_engine"]

Task = TypeVar("Task")
Result = TypeVar("Result")

_logger = logging.getLogger(__name__)

_ATTEMPTS = 3
_CONNECT_SECONDS = 10.0


class LocalExecutor(Executor):
    """Worker processes on this machine.

    Each worker is a pool of one process, which is replaced if it dies: its own task fails with `BrokenProcessPool`,
    and no other. A pool of several processes would fail all tasks, and not say which of them was to blame.
    """

    def __init__(self, workers: int) -> None:
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
            # A forked process would inherit the threads' locks of onnxruntime and HDF5, but not the threads.
            pool = ProcessPoolExecutor(
                1,
                multiprocessing.get_context("spawn"),
                initializer=signal.signal,
                initargs=(signal.SIGINT, signal.SIG_IGN),
            )
            self._own.pool = pool
            self._pools.add(pool)
        try:
            return pool.submit(_interruptible, function, args, kwargs).result()
        except BrokenProcessPool:
            self._own.pool = None
            self._pools.discard(pool)
            raise


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

    Attributes
    ----------
    executor
        Runs functions of modules with arguments that can be pickled.
    workers
        Tasks that run at the same time.
    threads
        Threads of a network on each worker; None for onnxruntime's choice.
    attempts
        How often a task is tried whose worker dies.
    """

    executor: Executor
    workers: int = 1
    threads: int | None = None
    attempts: int = _ATTEMPTS

    def run(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result | Exception]]:
        """Yield each task with its result, or with the error of its last attempt, as they complete.

        Errors that ptychonnx raises on purpose are final. After any other, such as the death of a worker, the task is
        done again, and a warning names it by its text.
        """
        waiting = {self._submit(function, task): (task, 1) for task in tasks}
        try:
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    task, attempt = waiting.pop(future)
                    error = CancelledError("cancelled") if future.cancelled() else future.exception()
                    if error is None:
                        yield task, future.result()
                    elif not isinstance(error, Exception):
                        raise error
                    elif attempt == self.attempts or isinstance(error, PtychonnxError):
                        yield task, error
                    else:
                        _logger.warning(
                            "%s: attempt %d failed, once more: %s", task, attempt, first_line(error)
                        )
                        waiting[self._submit(function, task)] = (task, attempt + 1)
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
def open_engine(text: str) -> Iterator[Engine]:
    """Open an engine by its name, and close it at the end.

    Parameters
    ----------
    text
        ``local`` or ``local:4`` for processes on this machine, ``dask`` or ``dask:4`` for a Dask cluster on this
        machine, ``dask://host:port`` for the scheduler of a cluster. Without a number, there is one worker per core.

    Raises
    ------
    InputError
        If the name is unknown, or Dask is not installed.
    ServerError
        If the scheduler does not answer or has no workers.
    """
    match = re.fullmatch(r"(local|dask)(?::(\d{1,4}))?", text)
    if match is None and not re.fullmatch(r"dask://[^/\s]+:\d+", text):
        raise InputError(f"--executor {text}: expected local[:WORKERS], dask[:WORKERS] or dask://HOST:PORT")
    if match is not None and match[2] is not None and int(match[2]) < 1:
        raise InputError(f"--executor {text}: has no workers, expected 1 at least")
    workers = available_cores() if match is None or match[2] is None else int(match[2])
    threads = max(1, available_cores() // workers)
    if match is None:
        with _dask_client(text.replace("dask", "tcp", 1)) as client:
            slots = sum(worker["nthreads"] for worker in client.scheduler_info(-1)["workers"].values())
            if not slots:
                raise ServerError(f"{text}: the scheduler has no workers")
            # A worker runs as many tasks at the same time as it has threads.
            yield Engine(client.get_executor(pure=False), slots, 1, 1)
    elif match[1] == "dask":
        with _dask_cluster(workers) as cluster, _dask_client(cluster) as client:
            yield Engine(client.get_executor(pure=False), workers, threads, 1)
    else:
        with LocalExecutor(workers) as executor:
            yield Engine(executor, workers, threads)


def _dask_cluster(workers: int) -> Any:
    return _distributed().LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        silence_logs=logging.ERROR,
    )


def _dask_client(address: Any) -> Any:
    try:
        return _distributed().Client(address, timeout=_CONNECT_SECONDS)
    except (OSError, TimeoutError) as error:
        raise ServerError(
            f"{address}: no Dask scheduler answers there within {_CONNECT_SECONDS:g} s"
        ) from error


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise InputError(
            "--executor dask: Dask is not installed, expected pip install ptychonnx[cluster]"
        ) from error
    return distributed
