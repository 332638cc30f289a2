"""The batch and the threads that run an artifact fastest on this machine, found by short trials and remembered.

A choice is kept in one small JSON file for each artifact, machine and provider, in the folder that `cache_folder`
names. Without write access nothing is remembered, and a file that is not understood is replaced; both are said.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.batch_sharing import cores
from ptychonnx.runtime.inference.model import network_inputs
from ptychonnx.runtime.inference.session import Session
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import group_neighbours

__all__ = ["CACHE_VARIABLE", "Tuning", "cache_folder", "tuned"]

CACHE_VARIABLE = "PTYCHONNX_CACHE"

_BATCHES = (1, 4, 8, 16, 32, 64, 128)
# A larger batch must gain more than what one trial differs from the next.
_GAIN = 0.03
# Pools of threads spin for a while after their work, at the cost of whoever comes next.
_REST_SECONDS = 0.02
_ROUNDS = 5


class Tuning(BaseModel):
    """A remembered choice."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[2] = 2  # 1 was tried before threads shared a batch
    key: dict[str, str] = Field(description="artifact, machine and provider that it holds for")
    batch: int = Field(gt=0)
    threads: int | None = Field(default=None, gt=0, description="None where a GPU computes")
    milliseconds: float = Field(gt=0, description="a group of patterns, in the trials")


def tuned(
    session: Session,
    scan: Scan,
    *,
    seconds: float = 5.0,
    log: Callable[[str], None] = lambda line: None,
) -> tuple[Session, int]:
    """The fastest form of a session, and its batch.

    Parameters
    ----------
    session
        An artifact; number of threads and batch are kept where they are given or fixed already.
    scan
        Whose patterns the trials run, over and over if it has few.
    seconds
        That the trials may take, about; a network so slow that a round takes longer gets one round.
    log
        Told what was chosen and why.

    Raises
    ------
    InputError
        If the scan does not fit the artifact.
    """
    session.check_scan(scan)
    key = _key(session)
    path = cache_folder() / "tuning" / f"{_digest(json.dumps(key, sort_keys=True).encode())}.json"
    found = _remembered(path, key, log)
    if found is None:
        found = _try(session, scan, key, seconds)
        log(f"{session.name}: {_in_words(found)} tried best, {found.milliseconds:.3g} ms a pattern")
        try:
            write_text(path, found.model_dump_json(indent=1) + "\n")
        except (InputError, OSError) as error:
            log(f"warning: the choice is not remembered: {error}")
    else:
        log(f"{session.name}: {_in_words(found)}, remembered in {path}")
    if found.threads != session.threads:
        session = Session(session.path, session.wanted_provider, found.threads)
    return session, found.batch


def cache_folder() -> Path:
    """Folder for what can be found again: $PTYCHONNX_CACHE, or `ptychonnx` in the user's cache.

    That is $XDG_CACHE_HOME where it is an absolute path (as the XDG specification has it), %LOCALAPPDATA% on
    Windows, ~/.cache otherwise.
    """
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own)
    shared = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    folder = Path(shared) if Path(shared).is_absolute() else Path("~/.cache").expanduser()
    return folder / "ptychonnx"


def _key(session: Session) -> dict[str, str]:
    """What a choice depends on."""
    with session.path.open("rb") as file:
        artifact = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "artifact": artifact,
        "processor": _processor(),
        "cores": str(cores()),
        "onnxruntime": ort.__version__,
        "provider": session.wanted_provider if session.wanted_provider != "auto" else session.provider,
        "threads": "free" if session.threads is None else str(session.threads),
    }


def _remembered(path: Path, key: dict[str, str], log: Callable[[str], None]) -> Tuning | None:
    """The choice in a file; None if there is none for this key."""
    try:
        found = Tuning.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        log(f"warning: {path}: not a remembered choice ({first['msg']}), tuning again")
        return None
    except (OSError, UnicodeDecodeError) as error:
        log(f"warning: {path}: cannot be read ({error}), tuning again")
        return None
    if found.key != key:
        log(f"warning: {path}: holds a choice for something else, tuning again")
        return None
    return found


def _try(session: Session, scan: Scan, key: dict[str, str], seconds: float) -> Tuning:
    """The best of the trials, taken in turns."""
    groups = group_neighbours(scan.positions, session.contract.gridsize)
    batches = _BATCHES if session.contract.batch is None else (session.contract.batch,)
    index = np.resize(np.arange(len(groups)), max(batches))
    inputs = network_inputs(session.contract, session.name, scan, groups[index])
    sessions = {
        count: Session(session.path, session.wanted_provider, count) for count in _thread_counts(session)
    }
    times: dict[tuple[int | None, int], list[float]] = {}
    began = time.perf_counter()
    for number in range(_ROUNDS):
        for batch in batches:
            known = [statistics.median(values) for (_, size), values in times.items() if size <= batch]
            expected = 2 * batch * len(sessions) * min(known, default=0.0)
            # Batches are tried in growing order, and what is too slow for the time left is not.
            if (number or batch != batches[0]) and time.perf_counter() - began + expected > seconds:
                break
            for count, one in sessions.items():
                time.sleep(_REST_SECONDS)
                some = [each[:batch] for each in inputs]
                one.predict(*some)  # wakes its threads, and allocates the first time
                start = time.perf_counter()
                one.predict(*some)
                times.setdefault((count, batch), []).append((time.perf_counter() - start) / batch)
    medians = {form: statistics.median(values) for form, values in times.items()}
    threads, batch = _fastest(medians)
    return Tuning(key=key, batch=batch, threads=threads, milliseconds=1e3 * medians[threads, batch])


def _fastest(medians: Mapping[tuple[int | None, int], float]) -> tuple[int | None, int]:
    """Threads and batch of the least time; of those as good as that, the smallest batch, then the fewest threads."""
    least = min(medians.values())
    good = [form for form, value in medians.items() if value <= least * (1 + _GAIN)]
    return min(good, key=lambda form: (form[1], form[0] or 0))


def _thread_counts(session: Session) -> list[int | None]:
    """Powers of two up to the cores, and the cores; what was given, or a GPU's own, alone."""
    if session.threads is not None or session.provider != "CPUExecutionProvider":
        return [session.threads]
    most = cores()
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})


def _processor() -> str:
    """Model of the processor, as the system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, UnicodeDecodeError):
        pass
    return platform.processor() or platform.machine()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _in_words(tuning: Tuning) -> str:
    threads = "" if tuning.threads is None else f", {tuning.threads} thread{'s' * (tuning.threads > 1)}"
    return f"batch {tuning.batch}{threads}"
