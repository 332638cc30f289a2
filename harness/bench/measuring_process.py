"""A process that holds variants of a network and runs them on request."""

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
from ptychonnx.runtime.errors import EnvironmentFailure, UnsupportedError

__all__ = ["LoadedVariants", "MeasuringProcess", "Variant"]

Variant = Callable[[], NDArray[np.float32] | None]


@dataclass(frozen=True)
class LoadedVariants:
    """Variants of a network in one process.

    Attributes
    ----------
    variants
        Functions without arguments, by name. Their outputs are compared.
    notes
        Further information for the parent process; it is pickled.
    """

    variants: Mapping[str, Variant]
    notes: Any = None


class MeasuringProcess:
    """A process that times one variant at a time on request.

    Thread pools of different frameworks are never in the same process. While other processes are measured, this one
    waits for a message and its threads sleep.

    Attributes
    ----------
    outputs
        First output of each variant by name; None for a variant without output.
    notes
        `LoadedVariants.notes`.
    """

    def __init__(self, load: Callable[[], LoadedVariants], threads: int) -> None:
        """Start the process and wait until each variant has run.

        Parameters
        ----------
        load
            Creates the variants inside the process; it is pickled.
        threads
            Number of threads of OpenMP and TensorFlow.

        Raises
        ------
        UnsupportedError
            If a variant cannot be created or run, with the first line of the reason.
        EnvironmentFailure
            If the process ended unexpectedly.
        """
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, load, threads), daemon=True)
        self._process.start()
        theirs.close()
        self.outputs: dict[str, NDArray[np.float32] | None]
        self.outputs, self.notes = self._receive()

    def time(self, variant: str) -> float:
        """Seconds of one call of a variant, after another call that wakes the threads."""
        self._connection.send(variant)
        return self._receive()

    def _receive(self) -> Any:
        try:
            kind, content = self._connection.recv()
        except EOFError as error:
            self._process.join()
            raise EnvironmentFailure(
                f"bench: a measuring process ended with code {self._process.exitcode}, possibly for lack of memory"
            ) from error
        if kind == "failed":
            raise UnsupportedError(f"bench: {content}")
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


def _serve(connection: Connection, load: Callable[[], LoadedVariants], threads: int) -> None:
    # Frameworks read these once, on import.
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Compilers warn about what they cannot compile, and torch overrides warning filters.
    warnings.showwarning = lambda *_, **__: None
    try:
        loaded = load()
        outputs = {}
        for name, variant in loaded.variants.items():
            for _ in range(3):
                outputs[name] = variant()
    except Exception as error:  # a framework may raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        connection.send(("failed", reason))
        return
    connection.send(("loaded", (outputs, loaded.notes)))
    while True:
        try:
            variant = loaded.variants[connection.recv()]
        except EOFError:
            return
        connection.send(("took", timed(variant)))
