"""A Triton server as a process of its own, and the model repositories it serves."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path

from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.inference import Session

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class TritonServer:
    """`tritonserver` of a folder that `make test-triton` made, on three free ports of 127.0.0.1."""

    def __init__(self, home: Path, repository: Path, log: Path, options: Sequence[str] = ()) -> None:
        self._home, self._repository, self._log, self._options = home, repository, log, list(options)
        self.http, self.grpc, self.metrics_port = _free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None
        self._shared_memory = f"ptychonnx_{uuid.uuid4().hex[:8]}_"

    def start(self, wait: bool = True) -> None:
        """Start, and wait until the server is live; its models may have failed to load."""
        prefix = f"--backend-config=python,shm-region-prefix-name={self._shared_memory}"
        ports = (self.http, self.grpc, self.metrics_port)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command(self._home, self._repository, ports, [prefix, *self._options]),
                env=environment(self._home),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        if wait:
            self.wait(lambda: self._get(self.http, "v2/health/live"), 60, "live")

    def stop(self) -> None:
        """End the server, its Python processes and their shared memory; nothing happens without a server."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        self.kill()

    def kill(self) -> None:
        """End the server at once, as when the machine fails."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        self._process = None
        for left in Path("/dev/shm").glob(f"{self._shared_memory}*"):
            left.unlink(missing_ok=True)

    def ready(self, model: str, version: str) -> bool:
        """Whether a version of a model answers."""
        return self._get(self.http, f"v2/models/{model}/versions/{version}/ready") is not None

    def wait(self, condition, seconds: float, what: str) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            if self._process is None or self._process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"Triton is not {what} after {seconds} s:\n{self.log()[-4000:]}")
            time.sleep(0.05)

    def metric(self, name: str, model: str) -> float:
        """Sum of a counter over the versions of a model."""
        text = self._get(self.metrics_port, "metrics") or ""
        lines = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if f'model="{model}"' in line)

    def url(self, scheme: str, model: str) -> str:
        """The URL by which ptychonnx names a model."""
        port = self.grpc if scheme.startswith("grpc") else self.http
        return f"{scheme}://127.0.0.1:{port}/{model}"

    def log(self) -> str:
        """What the server wrote."""
        return self._log.read_text(errors="replace")

    def _get(self, port: int, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
                return answer.read().decode() or "yes"
        except OSError:
            return None


def command(
    home: Path, repository: Path, ports: tuple[int, int, int], options: Sequence[str] = ()
) -> list[str]:
    """The command line of a server on ports (HTTP, gRPC, metrics) of 127.0.0.1."""
    server = home / "tritonserver"
    http, grpc, metrics = ports
    return [
        str(server / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={server / 'backends'}",
        "--exit-on-error=false",
        "--exit-timeout-secs=5",
        "--allow-metrics=true",
        "--http-address=127.0.0.1",
        f"--http-port={http}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc}",
        "--metrics-address=127.0.0.1",
        f"--metrics-port={metrics}",
        *options,
    ]


def environment(home: Path) -> dict[str, str]:
    """Variables that a server needs."""
    variables = os.environ | {
        "PATH": f"{home / 'venv' / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(home / "libraries"),
        "OMP_NUM_THREADS": "1",
    }
    variables.pop("PYTHONPATH", None)
    return variables


def add_model(
    repository: Path,
    name: str,
    artifact: Path,
    *,
    published: bool = True,
    max_batch: int = 64,
    delay_us: int = 2000,
    policy: str = "latest { num_versions: 1 }",
) -> Path:
    """A model with one version, put into the repository in one piece."""
    contract = Session(artifact, "cpu").contract
    made = repository.parent / f"{name}.new"
    (made / "1").mkdir(parents=True)
    shutil.copyfile(artifact, made / "1" / "model.onnx")
    (made / "config.pbtxt").write_text(_config(name, contract, published, max_batch, delay_us, policy))
    return made.rename(repository / name)


def add_version(repository: Path, name: str, version: int, content: bytes) -> None:
    """One more version of a model, in one piece."""
    made = repository.parent / f"{name}.{version}.new"
    made.mkdir()
    (made / "model.onnx").write_bytes(content)
    made.rename(repository / name / str(version))


def _config(
    name: str, contract: Contract, published: bool, max_batch: int, delay_us: int, policy: str
) -> str:
    side, channels = contract.n, contract.channels
    kind = {"float32": "TYPE_FP32", "uint16": "TYPE_UINT16"}[contract.input.dtype]
    # A JSON string is also a string of protobuf's text format.
    text = json.dumps(contract.to_json())
    parameter = f'parameters {{ key: "{CONTRACT_KEY}" value {{ string_value: {text} }} }}\n'
    return f"""name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [{{ name: "{contract.input.name}" data_type: {kind} dims: [{channels}, {side}, {side}] }}]
output [{{ name: "{contract.output.name}" data_type: TYPE_FP32 dims: [{side}, {side}, {channels}, 2] }}]
dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}
instance_group [{{ count: 1 kind: KIND_CPU }}]
version_policy {{ {policy} }}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
{parameter if published else ""}"""


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _die_with_parent() -> None:
    """The tests may be killed: no server outlives them."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
