"""Every rename of every command that writes is killed or failed in turn; every command meets a full disk, and another
process that writes the same output.

Afterwards an output is the old one or the new one, and the next run removes what was left behind. The tests run the
commands that need no training framework; `make hostile` runs all.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ptychonnx.runtime.atomic import working_folder
from tests.hostile import campaign
from tests.hostile.writers import Writer, framework_writers, more_writers, prepare, quick_writers

__all__ = ["check_crashes"]

# An export takes a minute on a loaded machine.
_SECONDS = 300.0
# Renames of one run that are disturbed at most, and outputs that are written by another process.
_MOST, _MOST_OCCUPIED = 20, 3
# Libraries that commands load when they need them: loaded once, not in every forked process. OpenVINO starts
# a thread, which a fork loses.
_LIBRARIES = (
    "absl.logging",
    "matplotlib.figure",
    "model_signing.signing",
    "onnx.reference.ops._op_list",
    "onnx_ir.passes.common",
    "scipy.signal",
    "scipy.stats",
    "skimage.feature",
    "skimage.measure",
    "skimage.registration",
    "skimage.transform",
    "sympy",
)


def run(folder: Path, line: str, before: Callable[[], object] = lambda: None) -> tuple[int, str]:
    """Exit code and messages of a command in a forked process, which calls `before` first."""
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
            sys.argv = ["ptychonnx", *line.split()]
            from ptychonnx.harness.cli.app import main

            before()
            main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        finally:
            os._exit(code)
    code = campaign._waited(process, campaign.time.monotonic() + _SECONDS)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        return code, pipe.read().decode(errors="replace")


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
    """No file may grow beyond the limit: a write fails like one on a full disk."""
    # Python leaves compiled modules that are cut short, which nobody can load.
    sys.dont_write_bytecode = True
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def content(folder: Path, writer: Writer) -> dict[str, bytes]:
    """The outputs of a command, by name."""
    files = {file for pattern in writer.outputs for file in folder.glob(pattern) if file.is_file()}
    # Locks of processes that write.
    files = {file for file in files if not file.parent.name.endswith(".writing")}
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(files)}


def check_crashes(
    writers: dict[str, Writer], frameworks: bool = False, out: Path | None = None
) -> dict[str, Any]:
    """Number of interruptions of each command, exit codes on a full disk and while another process writes the same
    output, and faults.

    The report is kept in `out` after each command, and the commands that it holds are not tried again.
    """
    report: dict[str, Any] = {"interruptions": {}, "full_disk": {}, "occupied": {}, "faults": []}
    if out is not None and out.exists():
        report = json.loads(out.read_text())
    writers = {name: writer for name, writer in writers.items() if name not in report["occupied"]}
    campaign._load(frameworks)
    for library in _LIBRARIES:
        importlib.import_module(library)
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "whole"
        for line in prepare(whole, frameworks):
            code, text = run(whole, line)
            if code:
                raise RuntimeError(f"{line}: {text[-1000:]}")
        for name, writer in writers.items():
            trial = _Trial(whole, Path(temporary) / "work", writer, name)
            report["interruptions"][name] = trial.interrupt()
            report["full_disk"][name] = trial.fill_disk()
            report["occupied"][name] = trial.occupy()
            report["faults"] += trial.faults
            if out is not None:
                out.write_text(json.dumps(report, indent=1) + "\n")
            row = ", ".join(
                str(report[column][name]) for column in ("interruptions", "full_disk", "occupied")
            )
            print(f"{name}: {row}", file=sys.stderr)
    return report


class _Trial:
    """One command, in a fresh folder each time."""

    def __init__(self, whole: Path, folder: Path, writer: Writer, name: str) -> None:
        self.whole, self.folder, self.writer, self.name = whole, folder, writer, name
        self.faults: list[str] = []
        code, text, old, now = self.once(lambda: None)
        self.new = {file: written for file, written in now.items() if old.get(file) != written}
        self._refusals = {1, 2, 3} if writer.journal else {2, 3}
        if code or not self.new:
            raise RuntimeError(f"{name}: {text[-1000:]}")

    def once(
        self, before: Callable[[], object], here: Callable[[], object] = lambda: None
    ) -> tuple[int, str, dict[str, bytes], dict[str, bytes]]:
        """Exit code, messages, and the outputs before and after; `here` is called in this process before."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.whole, self.folder)
        for file in self.writer.earlier:
            (self.folder / file).parent.mkdir(exist_ok=True)
            (self.folder / file).write_text("old")
        old = content(self.folder, self.writer)
        here()
        code, text = run(self.folder, self.writer.line, before)
        if journal := self.writer.journal:
            self._check_journal(self.folder / journal)
        return code, text, old, content(self.folder, self.writer)

    def _check_journal(self, path: Path) -> None:
        """Every line of a journal is whole, except a last one that was cut short."""
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        try:
            for line in lines[: -1 if lines and not lines[-1].endswith("\n") else None]:
                json.loads(line)
        except ValueError:
            self.faults.append(f"{self.name}: {path.name} has the line {line[:100]}")

    def interrupt(self) -> int:
        """Disturb each rename in each way; the number of disturbances."""
        count = 0
        for action in ("before", "after", "fail"):
            for number in range(1, _MOST + 1):
                code, text, old, now = self.once(lambda n=number, a=action: sabotage(n, a))
                if code == 0:
                    break
                count += 1
                case = f"{self.name} {action} {number}"
                if action == "fail" and (code not in self._refusals or "Traceback" in text):
                    self.faults.append(f"{case}: exit code {code}: {text[-200:]}")
                if now != old and not self._is_whole(now, old):
                    self.faults.append(f"{case}: {sorted(now)}, neither the old ones nor the new ones")
                if action == "fail" and (left := list(self.folder.rglob("*.writing"))):
                    self.faults.append(f"{case}: left {left}")
        return count

    def fill_disk(self) -> list[int]:
        """Let writes fail at the first byte, after some, and in the middle of the largest file; the exit codes."""
        codes = []
        for limit in (0, 4000, max(map(len, self.new.values())) // 2):
            code, text, old, now = self.once(lambda limit=limit: fill(limit))
            codes.append(code)
            if code and (code not in self._refusals or "Traceback" in text or now != old):
                self.faults.append(f"{self.name} limit {limit}: {code} {text[-200:]}")
        return codes

    def occupy(self) -> list[int]:
        """Let another process write each output in turn; the exit codes."""
        codes = []
        # A folder that is written as one has one lock.
        whole = self.writer.as_one or any("**" in pattern for pattern in self.writer.outputs)
        places = {name.partition("/")[0] if whole else name for name in self.new}
        for place in sorted(places)[:_MOST_OCCUPIED]:
            with ExitStack() as stack:
                # The lock of this process, which the forked one does not have.
                code, text, old, now = self.once(
                    lambda: None, lambda place=place: stack.enter_context(working_folder(self.folder / place))
                )
            codes.append(code)
            # The table of many scans breaks lines.
            told = "another process is writing it" in " ".join(text.split())
            kept = now == old or self._is_whole(now, old)
            if code not in self._refusals or not told or "Traceback" in text or not kept:
                self.faults.append(f"{self.name} while {place} is written: {code} {text[-200:]}")
        return codes

    def _is_whole(self, now: dict[str, bytes], old: dict[str, bytes]) -> bool:
        """Each output is old or has the size of the new one; if they change together, all are new."""
        kept = {name for name in self.new if name in old and now.get(name) == old[name]}
        fresh = set(now) - kept - (set(old) - set(self.new))
        alike = all(
            name in self.new and abs(len(now[name]) - len(self.new[name])) <= 200 + 0.2 * len(self.new[name])
            for name in fresh
        )
        return alike and (not self.writer.as_one or fresh == set(self.new))


def main() -> None:
    """Print the table as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--more", action="store_true", help="other commands that need no training framework")
    parser.add_argument("--frameworks", action="store_true", help="the commands that need torch")
    parser.add_argument("--out", type=Path, help="JSON file, to which a later call adds the other commands")
    parser.add_argument("commands", nargs="*", help="some of the commands by name, instead of all")
    arguments = parser.parse_args()
    writers = more_writers() if arguments.more else {}
    writers |= framework_writers() if arguments.frameworks else {}
    writers = writers or quick_writers()
    report = check_crashes(
        {name: writers[name] for name in arguments.commands or writers}, arguments.frameworks, arguments.out
    )
    print(json.dumps(report))
    sys.exit(1 if report["faults"] else 0)


if __name__ == "__main__":
    main()
