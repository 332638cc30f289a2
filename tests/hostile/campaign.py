"""Damaged and hostile inputs by the thousand, each in a process of its own under limits of memory and time.

`make hostile` runs the whole campaign and writes `benchmarks/results/hostile.json`; the tests run a sample. A server
process that has loaded everything forks for each input, so that an input takes a fraction of a second.

Outcomes, judged without a person:

refused
    One line that begins with ``Error:`` or ``Verification failed:``, and the exit code 1, 2 or 3.
same
    Exit code 0, and the result of the undamaged input.
told
    Exit code 0 and another result, with a line that the undamaged input does not get.
changed
    Exit code 0 and another result, where the damage is another valid input: other numbers in a file without checksums,
    another valid value of a setting.
fault
    A traceback, an internal error, a Python warning, a crash, no result, too much memory, or no end.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import io
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np

from ptychonnx.harness.cli.app import all_commands
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.machine import processor, software_versions
from ptychonnx.runtime.reconstruction.stitching import Stitcher
from tests.hostile.more_subjects import every_other_subject
from tests.hostile.mutations import ORDERS, damage
from tests.hostile.subjects import Subject, all_subjects
from tests.runtime.conftest import SIZE

__all__ = ["Case", "run_campaign"]

SEED = 20261129
SECONDS = 60.0
_MEMORY = 3 * 2**30
_PAGE = resource.getpagesize()
_LAZY = (
    "ptychonnx.harness.evaluation.evaluate",
    "ptychonnx.runtime.reconstruction.stitching.kernel",
    "ptychonnx.export.adoption.adopt",
    "ptychonnx.export.artifact.specialise",
    "ptychonnx.export.deploy.triton",
    "ptychonnx.harness.evaluation.write",
    "matplotlib.backends.backend_agg",
    "skimage.metrics",
    "hdf5plugin",
)
_FRAMEWORKS = ("torch", "lightning", "onnx_ir", "onnxscript", "neuralop")
_SERVERS: list[object] = []


@dataclass(frozen=True)
class Case:
    """One damaged input, and what became of it."""

    subject: str
    damage: str
    outcome: str
    message: str
    seconds: float


@dataclass(frozen=True)
class _Run:
    code: int
    lines: tuple[str, ...]
    result: object
    seconds: float


def run_campaign(
    count: int,
    seed: int = SEED,
    *,
    every: bool = False,
    minutes: float = math.inf,
    journal: Path | None = None,
) -> list[Case]:
    """Damage `count` inputs, the subjects in turn, and judge what each command makes of it.

    With a `journal`, to which each case is appended, a campaign that ended after some `minutes` goes on. It judges
    the faults of earlier turns again, since they may have been mended.
    """
    _load(every)
    cases = _earlier(journal, seed)
    faults = [number for number, case in cases.items() if case.outcome == "fault"]
    numbers = [*faults, *(number for number in range(count) if number not in cases)]
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as folder:
        root, work = Path(folder) / "whole", Path(folder) / "work"
        root.mkdir()
        subjects = all_subjects(root) + (every_other_subject(root) if every else [])
        expected = {subject.name: _run(subject, root, work, "") for subject in subjects}
        if failed := {name: run.lines for name, run in expected.items() if run.code}:
            raise RuntimeError(f"undamaged inputs are refused: {failed}")
        for number in numbers:
            if time.monotonic() > end:
                break
            subject = subjects[number % len(subjects)]
            chance = random.Random(f"{seed} {number}")
            case = _case(subject, root, work, chance, expected[subject.name])
            cases[number] = case
            if journal is not None:
                with journal.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"seed": seed, "number": number, **asdict(case)}) + "\n")
                if case.outcome in {"fault", "changed"}:
                    print(f"{number}: {case}", flush=True)
    return [cases[number] for number in sorted(cases)]


def _earlier(journal: Path | None, seed: int) -> dict[int, Case]:
    """The cases of earlier turns of the same campaign by number; the last one counts."""
    if journal is None or not journal.exists():
        return {}
    rows = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    if any(row.pop("seed") != seed for row in rows):
        raise RuntimeError(f"{journal}: of another seed, expected {seed}")
    return {row.pop("number"): Case(**row) for row in rows}


def _load(frameworks: bool = False) -> None:
    """Load and compile in this process what the commands need, without starting a thread."""
    for name in _LAZY + _FRAMEWORKS * frameworks:
        importlib.import_module(name)
    all_commands()
    for placement in ("bilinear", "fourier"):
        stitcher = Stitcher(np.zeros((1, 2)), np.ones((SIZE, SIZE)), placement)
        stitcher.add(np.ones((1, SIZE, SIZE), np.complex64), np.zeros((1, 2)))
        stitcher.result()


def _case(subject: Subject, root: Path, work: Path, chance: random.Random, expected: _Run) -> Case:
    shutil.rmtree(work, ignore_errors=True)
    folder = work / "damaged"
    shutil.copytree(root / subject.name.replace("/", "_"), folder)
    how = damage(subject, folder, chance)
    order = how.partition(": ")[2] if subject.served else ""
    run = _run(subject, root, work, order, prepared=folder)
    outcome, message = _judged(run, expected)
    if outcome == "changed" and how.startswith("answer"):
        outcome = "fault"
    left = [
        path.name
        for path in folder.rglob("*")
        if path.name.startswith(".") and path.name.endswith(".writing")
    ]
    if left:
        outcome, message = "fault", f"left {left}"
    return Case(subject.name, how[:200], outcome, message, round(run.seconds, 2))


def _judged(run: _Run, expected: _Run) -> tuple[str, str]:
    refusals = [line for line in run.lines if re.match(r"Error:|Verification failed:", line)]
    message = (refusals or run.lines or ("",))[-1][:300]
    text = "\n".join(run.lines)
    if run.code not in {0, 1, 2, 3} or "Traceback" in text or "RuntimeWarning" in text:
        return "fault", message or f"exit code {run.code}"
    if run.code:
        clean = len(refusals) == 1 and len(refusals[0]) < 2000 and "out of memory" not in refusals[0]
        return ("refused" if clean else "fault"), message
    if run.result is None and expected.result is not None:
        return "fault", "exit code 0 and no result"
    if _equal(run.result, expected.result):
        return "same", message
    told = {_word(line) for line in run.lines} - {_word(line) for line in expected.lines}
    return ("told", min(told)[:300]) if told else ("changed", message)


def _word(line: str) -> str:
    """A line without its numbers, which differ from run to run."""
    return re.sub(r"[-+0-9.e]*[0-9][-+0-9.e]*", "", line)


def _run(subject: Subject, root: Path, work: Path, order: str, prepared: Path | None = None) -> _Run:
    """Run the command of a subject in a forked process under limits."""
    folder = prepared
    if folder is None:
        folder = work / subject.name.replace("/", "_")
        shutil.copytree(root / folder.name, folder)
    log = work / "log.txt"
    start = time.monotonic()
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        _child(subject, folder, log, order)
    code = _waited(process, start + SECONDS)
    seconds = time.monotonic() - start
    lines = tuple(log.read_text(encoding="utf-8", errors="replace").splitlines()) if log.exists() else ()
    return _Run(code, lines, _result(folder, subject), seconds)


def _child(subject: Subject, folder: Path, log: Path, order: str) -> None:
    """The command, in a process of its own; never returns."""
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
        resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, size + _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        arguments = [*subject.arguments]
        if subject.served:
            arguments = [part.replace("{server}", _served(subject, order)) for part in arguments]
        sys.argv = ["ptychonnx", *arguments]
        from ptychonnx.harness.cli.app import main

        main()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException as error:
        os.write(2, f"Traceback: {error!r}\n".encode())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


def _served(subject: Subject, order: str) -> str:
    """A server in this process that answers the second inference as told; its address."""
    from tests.runtime.failing_server import FailingGrpcServer, FailingHttpServer
    from tests.runtime.test_session import contract

    kind = FailingHttpServer if subject.served == "http" else FailingGrpcServer
    server = kind(contract().to_json(), SIZE)
    if order and subject.name == "server/description":
        place, _, text = order.partition(" ")
        server.script.descriptions[place] = text
    elif order:
        server.script.orders.extend(["", order])
    _SERVERS.append(server)  # a gRPC server ends with its last reference
    return f"{server.scheme}://127.0.0.1:{server.port}/network"


def _waited(process: int, deadline: float) -> int:
    """The exit code; 128 + signal if it was killed, 124 if it did not end."""
    while time.monotonic() < deadline:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        time.sleep(0.01)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return 124


def _result(folder: Path, subject: Subject) -> object:
    """Content of what a command wrote, without times; None if there is nothing."""
    path = folder / subject.result
    if not subject.result or not path.is_file():
        return None
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(path.read_text()))
        timed = re.compile(r"ms|seconds|per_pattern|file|scan")
        return [{key: value for key, value in row.items() if not timed.search(key)} for row in rows]
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return {key: np.asarray(file[key]) for key in ("object", "weight")}
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files if archive[key].dtype.kind in "fciub"}


def _equal(first: object, second: object) -> bool:
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(
            first[key].shape == second[key].shape
            and np.allclose(first[key], second[key], rtol=1e-4, atol=1e-6, equal_nan=True)
            for key in first
        )
    return first == second


def main() -> None:
    """Run the campaign and write its counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1620)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--all", action="store_true", help="also kinds of input that take longer, with torch")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="end after these; the same command goes on"
    )
    arguments = parser.parse_args()
    journal = None if arguments.out is None else arguments.out.with_suffix(".unfinished.jsonl")
    cases = run_campaign(
        arguments.count, arguments.seed, every=arguments.all, minutes=arguments.minutes, journal=journal
    )
    counts = Counter(case.outcome for case in cases)
    seconds = sum(case.seconds for case in cases)
    print(f"{len(cases)} inputs in {seconds:.0f} s: {dict(counts)}")
    if arguments.out is not None and len(cases) == arguments.count:
        subjects = sorted({case.subject for case in cases})
        document = {
            "inputs": len(cases),
            "seed": arguments.seed,
            "minutes": round(seconds / 60, 1),
            "limits": {"memory_gib": _MEMORY / 2**30, "seconds": SECONDS},
            "processor": processor(),
            "software": software_versions(),
            "server_answers": len(ORDERS),
            "outcomes": dict(sorted(counts.items())),
            "subjects": {
                name: dict(sorted(Counter(case.outcome for case in cases if case.subject == name).items()))
                for name in subjects
            },
            "slowest_seconds": max(case.seconds for case in cases),
            "changed": [f"{case.subject}: {case.damage}" for case in cases if case.outcome == "changed"],
            "faults": [asdict(case) for case in cases if case.outcome == "fault"],
        }
        write_text(arguments.out, json.dumps(document, indent=1) + "\n")
        # With faults it stays, so that the next call judges these inputs alone.
        if not counts["fault"]:
            journal.unlink(missing_ok=True)
    sys.exit(1 if counts["fault"] else 0)


if __name__ == "__main__":
    main()
