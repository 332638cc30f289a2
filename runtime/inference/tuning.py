"""Autotuning of batch size and thread count by short trials on this machine, with a cache of the results.

Each combination of artifact, machine and provider has one small JSON file in `cache_folder()`. Without write access
the result is not cached, and an unreadable file is replaced; both are reported.
"""

from __future__ import annotations

import hashlib
import json
import logging
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import InputError, PtychonnxError
from ptychonnx.runtime.inference.session import Session
from ptychonnx.runtime.machine import available_cores, processor
from ptychonnx.runtime.paths import cache_folder, file_sha256, read_text
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import group_neighbours

__all__ = ["Tuning", "tuned"]


_logger = logging.getLogger(__name__)

_BATCHES = (1, 4, 8, 16, 32, 64, 128)
# A larger batch must gain more than the spread between trials.
_GAIN = 0.03
# Idle thread pools spin for a while after their work and would slow down the next trial.
_REST_SECONDS = 0.02
_ROUNDS = 5


class Tuning(BaseModel):
    """A cached result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[2] = 2  # version 1 predates data-parallel runs
    key: dict[str, str] = Field(description="artifact, machine and provider that the result is valid for")
    batch: int = Field(gt=0)
    threads: int | None = Field(default=None, gt=0, description="None on a GPU")
    milliseconds: float = Field(gt=0, description="time per group of patterns in the trials")


def tuned(
    session: Session, scan: Scan, *, seconds: float = 5.0, log: Callable[[str], None] = _logger.info
) -> tuple[Session, int]:
    """Find the fastest thread count and batch size for a session.

    Raises InputError if the scan does not fit the artifact.

    * `session`: an artifact. A thread count that was requested, or a batch that is fixed, is kept.
    * `scan`: source of the patterns for the trials, which repeat them if there are few.
    * `seconds`: approximate time limit of the trials. If one round takes longer, only one is run.
    * `log`: receives one line with the result and its origin.

    Returns a session with the best thread count, and the best batch size.
    """
    session.check_scan(scan)
    key = _key(session)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = cache_folder() / "tuning" / f"{digest[:32]}.json"
    tuning = _cached(path, key, log)
    if tuning is None:
        tuning = _measure(session, scan, key, seconds)
        log(f"{session.name}: {_in_words(tuning)} was fastest, {tuning.milliseconds:.3g} ms per pattern")
        try:
            write_text(path, tuning.model_dump_json(indent=1) + "\n")
        except PtychonnxError as error:
            log(f"warning: the tuning is not cached: {error}")
    else:
        log(f"{session.name}: {_in_words(tuning)}, cached in {path}")
    if tuning.threads != session.threads:
        session = Session(session.path, session.requested_provider, tuning.threads)
    return session, tuning.batch


def _key(session: Session) -> dict[str, str]:
    """Everything that the result depends on."""
    return {
        "artifact": file_sha256(session.path),
        "processor": processor(),
        "cores": str(available_cores()),
        "onnxruntime": ort.__version__,
        "provider": session.requested_provider if session.requested_provider != "auto" else session.provider,
        "threads": "free" if session.threads is None else str(session.threads),
    }


def _cached(path: Path, key: dict[str, str], log: Callable[[str], None]) -> Tuning | None:
    """The cached result for this key, or None."""
    try:
        tuning = Tuning.model_validate_json(read_text(path))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        log(f"warning: {path}: not a cached tuning ({first['msg']}), tuning again")
        return None
    except (OSError, InputError) as error:
        log(f"warning: {path}: cannot be read ({error}), tuning again")
        return None
    if tuning.key != key:
        log(f"warning: {path}: is for another artifact or machine, tuning again")
        return None
    return tuning


def _measure(session: Session, scan: Scan, key: dict[str, str], seconds: float) -> Tuning:
    """Time all combinations of threads and batch, interleaved, and take the fastest."""
    groups = group_neighbours(scan.positions, session.contract.gridsize)
    batches = _BATCHES if session.contract.batch is None else (session.contract.batch,)
    index = np.resize(np.arange(len(groups)), max(batches))
    inputs = session.inputs(scan, groups[index])
    sessions = {
        count: Session(session.path, session.requested_provider, count) for count in _thread_counts(session)
    }
    times: dict[tuple[int | None, int], list[float]] = {}
    began = time.perf_counter()
    for repeat in range(_ROUNDS):
        for batch in batches:
            known = [statistics.median(values) for (_, size), values in times.items() if size <= batch]
            expected = 2 * batch * len(sessions) * min(known, default=0.0)
            # Batches grow; those too slow for the remaining time are skipped.
            if (repeat or batch != batches[0]) and time.perf_counter() - began + expected > seconds:
                break
            for count, trial in sessions.items():
                time.sleep(_REST_SECONDS)
                parts = [array[:batch] for array in inputs]
                trial.predict(*parts)  # wakes the threads, and allocates the first time
                start = time.perf_counter()
                trial.predict(*parts)
                times.setdefault((count, batch), []).append((time.perf_counter() - start) / batch)
    medians = {setting: statistics.median(values) for setting, values in times.items()}
    threads, batch = _fastest(medians)
    return Tuning(key=key, batch=batch, threads=threads, milliseconds=1e3 * medians[threads, batch])


def _fastest(medians: Mapping[tuple[int | None, int], float]) -> tuple[int | None, int]:
    """Threads and batch of the least time; among equals, the smallest batch, then the fewest threads."""
    least = min(medians.values())
    equals = [setting for setting, value in medians.items() if value <= least * (1 + _GAIN)]
    return min(equals, key=lambda setting: (setting[1], setting[0] or 0))


def _thread_counts(session: Session) -> list[int | None]:
    """Powers of two up to the number of cores, and that number; only the session's own if requested, or on a GPU."""
    if session.threads is not None or session.provider != "CPUExecutionProvider":
        return [session.threads]
    most = available_cores()
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})


def _in_words(tuning: Tuning) -> str:
    threads = "" if tuning.threads is None else f", {tuning.threads} thread{'s' * (tuning.threads > 1)}"
    return f"batch {tuning.batch}{threads}"
