"""A process that holds variants of a network and runs them on request."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.bench.interleaved import timed
from ptychonnx.runtime.errors import EnvironmentFailure, UnsupportedError, first_line

__all__ = ["LoadedVariants", "MeasuringProcess", "Variant"]

Variant = Callable[[], NDArray[np.float32] | None]
# The variants of this process, if it is a measuring process.
_variants: Mapping[str, Variant] = {}


@dataclass(frozen=True)
class LoadedVariants:
    """Variants of a network in one process.

    * `variants`: functions without arguments, by name. Their outputs are compared.
    * `notes`: further information for the parent process; it is pickled.
    """

    variants: Mapping[str, Variant]
    notes: Any = None


class MeasuringProcess:
    """A process that times one variant at a time on request.

    Thread pools of different frameworks are never in the same process. While other processes are measured, this one
    waits, and its threads sleep.

    * `outputs`: first output of each variant by name; None for a variant without output.
    * `notes`: `LoadedVariants.notes`.
    """

    def __init__(self, load: Callable[[], LoadedVariants], threads: int) -> None:
        """Start the process and wait until each variant has run.

        Raises UnsupportedError if a variant cannot be created or run, with the first line of the reason. Raises
        EnvironmentFailure if the process ended unexpectedly.

        * `load`: creates the variants inside the process; it is pickled.
        * `threads`: number of threads of OpenMP and TensorFlow.
        """
        # Ctrl-C reaches this process too, which then ends without a word; the command says it.
        self._process = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_DFL)
        )
        self.outputs: dict[str, NDArray[np.float32] | None]
        try:
            self.outputs, self.notes = self._call(_load, load, threads)
        except BaseException:
            self._process.shutdown()
            raise

    def time(self, variant: str) -> float:
        """Seconds of one call of a variant, after another call that wakes the threads."""
        return self._call(_time, variant)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return self._process.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise EnvironmentFailure(
                "bench: a measuring process ended unexpectedly, possibly for lack of memory"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.shutdown()


def _load(load: Callable[[], LoadedVariants], threads: int) -> tuple[dict[str, Any], Any]:
    """Create the variants in this process and run each a few times."""
    global _variants
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
    except Exception as error:  # a framework may raise anything, some of it not picklable
        raise UnsupportedError(f"bench: {first_line(error)}") from None
    _variants = loaded.variants
    return outputs, loaded.notes


def _time(variant: str) -> float:
    return timed(_variants[variant])
