"""Forms of a network in a process of their own, which run when they are told to."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.bench.interleaved import timed
from ptychonnx.runtime.errors import InputError

__all__ = ["Form", "Loaded", "Worker"]

Form = Callable[[], NDArray[np.float32] | None]


@dataclass(frozen=True)
class Loaded:
    """What a process holds.

    Attributes
    ----------
    forms
        Functions without arguments, by name; what they return is compared.
    notes
        Whatever else the process has to tell; it is pickled.
    """

    forms: Mapping[str, Form]
    notes: Any = None


class Worker:
    """A process that holds some forms and measures one at a time, on request.

    Thread pools of different frameworks are thus never in the same process. While others are measured a process
    waits for a message, and its threads sleep.

    Attributes
    ----------
    outputs
        What each form gave at first, by name; None if it gave nothing.
    notes
        What the process told of itself.
    """

    def __init__(self, load: Callable[[], Loaded], threads: int) -> None:
        """Start a process and wait until each of its forms ran once.

        Parameters
        ----------
        load
            Makes the forms, inside the process; it is pickled.
        threads
            What OpenMP and TensorFlow may use.

        Raises
        ------
        InputError
            If the forms cannot be made or do not run; with the first line of the reason.
        """
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, load, threads), daemon=True)
        self._process.start()
        theirs.close()
        self.outputs: dict[str, NDArray[np.float32] | None]
        self.outputs, self.notes = self._receive()

    def time(self, form: str) -> float:
        """Seconds of one call, after another that wakes the threads."""
        self._connection.send(form)
        return self._receive()

    def _receive(self) -> Any:
        try:
            kind, content = self._connection.recv()
        except EOFError as error:
            self._process.join()
            raise InputError(
                f"bench: a process that measures ended with code {self._process.exitcode}, perhaps for want of memory"
            ) from error
        if kind == "failed":
            raise InputError(f"bench: {content}")
        return content

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def _serve(connection: Connection, load: Callable[[], Loaded], threads: int) -> None:
    # Before a framework is imported, which reads them once.
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Of compilers, about what they cannot compile; torch overrides filters.
    warnings.showwarning = lambda *_, **__: None
    try:
        loaded = load()
        outputs = {}
        for name, form in loaded.forms.items():
            for _ in range(3):
                outputs[name] = form()
    except Exception as error:  # whatever a framework raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        connection.send(("failed", reason))
        return
    connection.send(("loaded", (outputs, loaded.notes)))
    while True:
        try:
            form = loaded.forms[connection.recv()]
        except EOFError:
            return
        connection.send(("took", timed(form)))
