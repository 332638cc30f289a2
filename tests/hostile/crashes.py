"""Every rename of every command that writes is killed or failed in turn, and every command meets a full disk.

Afterwards an output is the old one or the new one, and the next run removes what was left behind.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile import campaign
from tests.hostile.subjects import Subject, all_subjects

__all__ = ["check_crashes"]

# Sizes beyond which a write fails like one on a full disk.
_LIMITS = (0, 4000)


def commands(root: Path) -> dict[str, tuple[Subject, tuple[str, ...], str]]:
    """Subject whose folder is used, command line, and output that changes as one."""
    subjects = {subject.name: subject for subject in all_subjects(root)}
    scan = subjects["artifact/reconstruct"]
    evaluate = ("evaluate", "m.onnx", "--scan", "s.npz", "--provider", "cpu", "--out", "out")
    lines = ("simulate", "lines", "--n", "16", "--train-grid", "3", "--test-grid", "2", "--out", "out")
    outputs = {
        f"reconstruct {ending}": (
            scan,
            ("reconstruct", "m.onnx", "s.npz", "--provider", "cpu", "--out", f"out.{ending}"),
        )
        for ending in ("npz", "h5", "cxi")
    }
    table = {name: (subject, line, line[-1]) for name, (subject, line) in outputs.items()}
    return table | {
        "evaluate": (scan, evaluate, "out"),
        "deploy": (scan, ("deploy", "triton", "m.onnx", "--repository", "out"), "out"),
        "simulate": (subjects["config/simulate"], lines, "out"),
    }


def run(folder: Path, arguments: tuple[str, ...], before: Callable[[], object]) -> int:
    """Exit code of a command in a forked process, which calls `before` first."""
    # Not a file, which would meet the full disk too; a pipe holds 64 kB.
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        code = 70
        try:
            os.setsid()
            os.chdir(folder)
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            sys.argv = ["ptychonnx", *arguments]
            from ptychonnx.harness.cli.app import main

            before()
            main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        finally:
            os._exit(code)
    code = campaign._waited(process, campaign.time.monotonic() + 60)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        (folder.parent / "log.txt").write_bytes(pipe.read())
    return code


def sabotage(number: int, action: str) -> None:
    """Kill this process before or after its rename of that number, or fail the rename."""
    from ptychonnx.runtime import atomic

    count = 0

    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def rename(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count != number:
                return original(*arguments, **options)
            if action == "fail":
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(arguments[0]))
            if action == "after":
                original(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        return rename

    os.rename, os.replace = wrapped(os.rename), wrapped(os.replace)
    atomic._exchange = wrapped(atomic._exchange)


def fill(limit: int) -> None:
    """No file may grow beyond the limit."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def content(path: Path) -> dict[str, bytes]:
    """Every file of an output, by name."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def check_crashes() -> dict[str, Any]:
    """Number of interruptions of each command, exit codes on a full disk, and faults."""
    campaign._load()
    report: dict[str, Any] = {"interruptions": {}, "full_disk": {}, "faults": []}
    with tempfile.TemporaryDirectory() as temporary:
        root, work = Path(temporary) / "whole", Path(temporary) / "work"
        root.mkdir()
        for name, (subject, arguments, output) in commands(root).items():
            whole = root / subject.name.replace("/", "_")
            folder = work / "case"

            def fresh(whole: Path = whole, folder: Path = folder) -> None:
                shutil.rmtree(work, ignore_errors=True)
                shutil.copytree(whole, folder)

            fresh()
            if run(folder, arguments, lambda: None):
                report["faults"].append(f"{name}: {(work / 'log.txt').read_text()[-300:]}")
                continue
            interruptions = 0
            for action in ("before", "after", "fail"):
                for number in range(1, 12):
                    fresh()
                    # An earlier output of the same kind, where a command replaces it.
                    old = {} if name == "deploy" else _earlier(folder, output, name)
                    code = run(folder, arguments, lambda n=number, a=action: sabotage(n, a))
                    if code == 0:
                        break
                    interruptions += 1
                    _judge(
                        report["faults"], f"{name} {action} {number}", name, folder, output, old, code, action
                    )
            report["interruptions"][name] = interruptions
            codes = []
            for limit in _LIMITS:
                fresh()
                old = {} if name == "deploy" else _earlier(folder, output, name)
                codes.append(run(folder, arguments, lambda limit=limit: fill(limit)))
                if codes[-1]:
                    text = (work / "log.txt").read_text()
                    if codes[-1] not in {2, 3} or "Traceback" in text or content(folder / output) != old:
                        report["faults"].append(f"{name} limit {limit}: {codes[-1]} {text[-200:]}")
            report["full_disk"][name] = codes
            print(f"{name}: {interruptions}, {codes}", file=sys.stderr, flush=True)
    return report


def _earlier(folder: Path, output: str, name: str) -> dict[str, bytes]:
    path = folder / output
    if name == "simulate":
        return {}
    if name == "evaluate":
        path.mkdir()
        for file in ("metrics.json", "report.html", "notes.txt"):
            (path / file).write_text("old")
    else:
        path.write_text("old")
    return content(path)


def _judge(
    faults: list[str],
    case: str,
    name: str,
    folder: Path,
    output: str,
    old: dict[str, bytes],
    code: int,
    action: str,
) -> None:
    """An output is the old one or a whole new one; several files of a data set or a server change one by one."""
    if action == "fail" and code not in {2, 3}:
        faults.append(f"{case}: exit code {code}: {(folder.parent / 'log.txt').read_text()[-200:]}")
    now = content(folder / output)
    if name not in {"deploy", "simulate"} and now != old:
        kept = [file for file in old if file != "notes.txt" and now.get(file) == old[file]]
        if not now or kept:
            faults.append(f"{case}: {sorted(now)}, of which {kept} are old")
    if action == "fail" and list(folder.rglob("*.writing")):
        faults.append(f"{case}: left {list(folder.rglob('*.writing'))}")


if __name__ == "__main__":
    print(json.dumps(check_crashes()))
