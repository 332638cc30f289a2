"""Commands of `ptychonnx` in forks of a process that has loaded its libraries: most of a short command is imports.

`python tests/command_server.py FOLDER` puts a program `ptychonnx` into the folder, for the PATH of a test. The program
hands its arguments, folder, environment and standard streams to the server. A fork of the server runs the installed
script as `__main__` and ends as an interpreter does; the program ends with its exit code or signal, and a fork whose
program is gone is killed. Training frameworks are loaded by a second server, forked when a command first needs one.

For tests of what commands do. Tests of how commands start, what they import and how signals end them run the installed
script itself.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

__all__ = ["command_server"]

_SOURCE = Path(__file__).resolve().parents[1] / "src"
# What commands load when they need it.
_LIBRARIES = (
    *("matplotlib.backends.backend_agg", "matplotlib.figure", "hdf5plugin", "jinja2"),
    *("skimage.feature", "skimage.filters", "skimage.metrics", "skimage.registration"),
    "ptychonnx.harness.evaluation.evaluate",
    "ptychonnx.harness.evaluation.write",
    "ptychonnx.runtime.reconstruction.stitching.kernel",
)
_FRAMEWORKS = (
    *("torch.onnx", "torch._dynamo", "lightning", "neuralop", "onnxscript", "sympy"),
    *("onnx.reference.ops._op_list", "onnx_ir.passes.common"),
    "ptychonnx.export.lowering.torch.convert",
    "ptychonnx.train.torch.training",
)
_COMMANDS_WITH_FRAMEWORKS = ("train", "export", "export-module", "adopt")
_PROGRAM = """\
#!{python} -SE
import json, os, signal, socket, sys

link = socket.socket(socket.AF_UNIX)
link.connect({folder!r} + ("/frameworks" if sys.argv[1:2] and sys.argv[1] in {commands!r} else "/libraries"))
socket.send_fds(link, [b"."], [0, 1, 2])
link.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
link.shutdown(socket.SHUT_WR)
code = int(link.recv(16))
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def command_server() -> Iterator[Path]:
    """Folder with a program `ptychonnx` that a server answers."""
    # A socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="commands-") as folder:
        # With more threads, libraries start them when they are imported.
        environment = os.environ | {"PYTHONPATH": str(_SOURCE), "OMP_NUM_THREADS": "1"}
        server = subprocess.Popen(
            [sys.executable, __file__, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        with server:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield Path(folder)


def _load(names: tuple[str, ...]) -> None:
    """Import modules, none of which may start a thread: a fork would lose it."""
    for name in names:
        importlib.import_module(name)
    gc.collect()
    # Neither copied in a fork nor searched for garbage when it ends.
    gc.freeze()
    if len([*Path("/proc/self/task").iterdir()]) > 1:
        raise RuntimeError(f"one of {', '.join(names)} has started a thread")


def _serve(listeners: dict[str, socket.socket]) -> list[str]:
    """Fork for every command until standard input ends; returns in the forks only, with the command's arguments."""
    poll = select.poll()
    for descriptor in (0, *(listener.fileno() for listener in listeners.values())):
        poll.register(descriptor, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if 0 in ready:
            while _children():
                os.wait()
            sys.exit()
        for name, listener in [*listeners.items()]:
            if listener.fileno() not in ready:
                continue
            if name == "frameworks" and len(listeners) > 1:
                if os.fork() == 0:
                    listeners.pop("libraries").close()
                    _load(_FRAMEWORKS)
                    return _serve(listeners)
                poll.unregister(listener)
                listeners.pop(name).close()
                continue
            link, _ = listener.accept()
            if os.fork() == 0:
                for other in listeners.values():
                    other.close()
                return _command(link)
            link.close()


def _children() -> bool:
    """Reap the forks that have ended; whether others are left."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True


def _command(link: socket.socket) -> list[str]:
    """Fork once more, and wait for the command in this process; returns in the new one."""
    _, streams, _, _ = socket.recv_fds(link, 1, 3)
    with link.makefile("rb") as request:
        arguments, folder, environment = json.load(request)
    if (process := os.fork()) > 0:
        for stream in streams:
            os.close(stream)
        ended = os.pidfd_open(process)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        # Only POLLHUP: the program is gone.
        poll.register(link, 0)
        if ended not in {descriptor for descriptor, _ in poll.poll()}:
            os.kill(process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        with suppress(BrokenPipeError):
            link.sendall(str(code).encode())
        os._exit(0)
    link.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    np.random.seed()
    return arguments


def main() -> None:
    """Serve the commands; in a fork, run one."""
    folder = Path(sys.argv[1])
    listeners = {name: socket.socket(socket.AF_UNIX) for name in ("libraries", "frameworks")}
    for name, listener in listeners.items():
        listener.bind(str(folder / name))
        listener.listen()
    program = folder / "ptychonnx"
    program.write_text(
        _PROGRAM.format(python=sys.executable, folder=str(folder), commands=_COMMANDS_WITH_FRAMEWORKS)
    )
    program.chmod(0o755)
    script = Path(sys.executable).with_name("ptychonnx")
    # Not this folder, whose `triton` is none.
    sys.path[0] = str(script.parent)
    from ptychonnx.harness.cli.app import all_commands

    all_commands()
    _load(_LIBRARIES)
    print("ready", flush=True)
    sys.argv = [str(script), *_serve(listeners)]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
