"""Artifacts in older and newer versions of onnxruntime, in OpenVINO, and in NumPy.

Each version of the CPU package `onnxruntime` has a virtual environment of its own, created with pip on the first run.
In each of them, a process runs every artifact on the reference input of its contract and on seeded noise at several
batch sizes, and compares with the onnxruntime that is installed with ptychonnx. Artifacts with a fixed batch only run
at that batch. OpenVINO and the reference evaluator of the ONNX project run in this environment if installed; the
evaluator, which is slow, takes the smallest batch and is not timed.

All processes stay alive and are timed interleaved: once in each round, in an order that changes from round to round.
Times are medians over the rounds, and ratios to the installed onnxruntime are medians of the ratios within one round.

    python -m benchmarks.engine_versions models/*.onnx --out benchmarks/results/engine_versions.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from ptychonnx.export.verification.engines import installed_engines, open_onnxruntime
from ptychonnx.export.verification.reference_pair import contract_reference
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.contract.integrity import check_model_file
from ptychonnx.runtime.errors import EnvironmentFailure, InputError, VerificationError
from ptychonnx.runtime.machine import vector_instructions

VERSIONS = (
    "1.17.3", "1.18.1", "1.19.2", "1.20.1", "1.21.1", "1.22.1", "1.23.2", "1.24.4", "1.25.1", "1.26.0", "1.27.0",
    "1.28.0", "1.29.0", "1.30.0", "1.31.1", "1.32.0",
)  # fmt: skip
BATCHES = (1, 3, 16)
_WORKER = Path(__file__).with_name("engine_worker.py")
# Source location in an error message: "/onnxruntime_src/onnxruntime/core/graph/model.cc:179 Model::Model(...) ".
_PLACE = re.compile(r"/\S+:\d+ .*\) (?=[A-Z])")


def cache_folder() -> Path:
    """Default folder of the environments."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ptychonnx" / "engines"


def requirements(number: str) -> list[str]:
    """Packages for one version of onnxruntime, with the NumPy that it was compiled for."""
    major, minor = map(int, number.split(".")[:2])
    return [f"onnxruntime=={number}", "numpy>=2" if (major, minor) >= (1, 19) else "numpy<2"]


def environment(folder: Path, number: str) -> Path:
    """Interpreter of the environment of one version, created if missing.

    Raises
    ------
    EnvironmentFailure
        If pip cannot install it.
    """
    place = folder / f"onnxruntime-{number}"
    interpreter = place / "bin" / "python"
    if (place / "complete").is_file():
        return interpreter
    print(f"onnxruntime {number}: creating {place}", file=sys.stderr)
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        subprocess.run([interpreter, "-m", "pip", "install", "--quiet", *requirements(number)], check=True)
    except subprocess.CalledProcessError as error:
        raise EnvironmentFailure(
            f"onnxruntime {number} cannot be installed, see pip's messages above"
        ) from error
    (place / "complete").touch()
    return interpreter


class Worker:
    """A process that runs artifacts in one engine; see `benchmarks.engine_worker`.

    Attributes
    ----------
    name
        Name of the engine with its version.
    timed
        Whether the engine is timed.
    """

    def __init__(self, name: str, interpreter: Path | str, engine: str) -> None:
        self.name = name
        self.timed = engine != "reference"
        self._command = [str(interpreter), str(_WORKER), engine]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer; it has an ``error`` if the engine raised an error or ended."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._stop()
        return {"error": f"the process ended with code {code}"}

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def seeded_inputs(contract: Contract, batch: int) -> NDArray:
    """Noise with the flux of the training patterns, [batch, C, N, N] in the type of the contract."""
    shape = (batch, contract.channels, contract.n, contract.n)
    noise = np.abs(np.random.RandomState(batch).standard_normal(shape))
    amplitude = noise * np.sqrt(contract.probe.flux) / contract.n
    if contract.input.dtype == "uint16":
        most = np.iinfo(np.uint16).max
        return np.minimum(np.rint(np.square(amplitude)), most).astype(np.uint16)
    return amplitude.astype(np.float32)


def inputs_of(contract: Contract, batches: Sequence[int]) -> list[NDArray]:
    """The reference input, then noise in each batch size, the largest last."""
    _, (reference,) = contract_reference(contract)
    sizes = sorted(batches) if contract.batch is None else [contract.batch]
    return [reference, *(seeded_inputs(contract, size) for size in sizes)]


def form_of(contract: Contract) -> str:
    """Opset, precision, input and batch, which distinguish artifacts of one network."""
    form = f"opset {contract.conversion.opset}"
    if contract.conversion.precision != "fp32":
        form += f", {contract.conversion.precision}"
    if contract.input.domain != "amplitude":
        form += f", {contract.input.domain}"
    return form if contract.batch is None else f"{form}, batch {contract.batch}"


def first_answer(worker: Worker, artifact: Path, archive: Path, threads: int) -> dict[str, Any]:
    """Error of an engine against the installed onnxruntime, or the reason why it has no output."""
    answer = worker.ask(load=str(artifact), threads=threads)
    stage = "load"
    if "error" not in answer:
        stage = "run"
        answer = worker.ask(compare=str(archive), smallest=not worker.timed)
    if "error" in answer:
        return {"refused_at": stage, "reason": _PLACE.sub("", answer["error"])}
    errors = answer["errors"]
    return {"max_relative_error": None if None in errors else max(errors)}


def measure(artifact: Path, workers: Sequence[Worker], arguments: argparse.Namespace) -> dict[str, Any]:
    """Errors and times of one artifact in all engines."""
    model = check_model_file(artifact)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if CONTRACT_KEY not in metadata:
        raise InputError(f"{artifact}: no {CONTRACT_KEY} in its metadata, expected an artifact")
    contract = Contract.from_json(metadata[CONTRACT_KEY], str(artifact))
    engine = open_onnxruntime(artifact.read_bytes())
    inputs = inputs_of(contract, arguments.batches)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        archive = Path(name) / "inputs.npz"
        arrays = {f"input_{index}": array for index, array in enumerate(inputs)}
        np.savez(
            archive, **arrays, **{f"expected_{index}": engine(array) for index, array in enumerate(inputs)}
        )
        for worker in workers:
            found[worker.name] = first_answer(worker, artifact, archive, arguments.threads)
    times: dict[str, list[float]] = {
        worker.name: [] for worker in workers if worker.timed and "reason" not in found[worker.name]
    }
    timed = [worker for worker in workers if worker.name in times]
    shuffled = random.Random(0)
    for _ in range(arguments.rounds):
        shuffled.shuffle(timed)
        for worker in timed:
            answer = worker.ask(time=len(inputs) - 1)
            if "error" in answer:
                raise VerificationError(
                    f"{artifact}: {worker.name} failed after its first run: {answer['error']}"
                )
            times[worker.name].append(answer["milliseconds"] / len(inputs[-1]))
    for name, values in times.items():
        if values:
            found[name]["milliseconds_a_pattern"] = statistics.median(values)
            if base := times.get(installed_name()):
                ratios = [own / other for own, other in zip(values, base, strict=True)]
                found[name]["time_over_installed"] = statistics.median(ratios)
    return {
        "network": contract.architecture,
        "form": form_of(contract),
        "opset": contract.conversion.opset,
        "ir_version": model.ir_version,
        "batches": [len(array) for array in inputs],
        "engines": found,
    }


def cell(results: Sequence[dict[str, Any]]) -> str:
    """The worst of several artifacts in one engine: the number that failed, or the largest error."""
    refused = [result for result in results if "reason" in result]
    if refused:
        return "no" if len(refused) == len(results) else f"no: {len(refused)} of {len(results)}"
    errors = [result["max_relative_error"] for result in results]
    if None in errors:
        return "not finite"
    return "0" if max(errors) == 0 else f"{max(errors):.0e}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown with aligned columns; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def agreement(results: dict[str, dict[str, Any]], engines: Sequence[str]) -> str:
    """Table of engines and forms: the largest error of all networks."""
    forms = sorted({result["form"] for result in results.values()})
    rows = [["engine", *forms]]
    for engine in engines:
        kinds = [[r["engines"][engine] for r in results.values() if r["form"] == form] for form in forms]
        rows.append([engine, *map(cell, kinds)])
    return table(rows)


def times(
    results: dict[str, dict[str, Any]], engines: Sequence[str], key: str = "milliseconds_a_pattern"
) -> str:
    """Table of artifacts and engines: milliseconds per pattern, or ``time_over_installed``."""
    rows = [["artifact", *(engine.removeprefix("onnxruntime ") for engine in engines)]]
    for stem, result in results.items():
        values = [result["engines"][engine].get(key) for engine in engines]
        rows.append([stem, *("" if value is None else f"{value:.2f}" for value in values)])
    return table(rows)


def installed_name() -> str:
    """Name of the onnxruntime that is installed with ptychonnx."""
    return f"installed onnxruntime {ort.__version__}"


def installed_workers() -> list[Worker]:
    """Workers in this environment: the onnxruntime to compare with, and other installed engines."""
    titles = {
        "onnxruntime": installed_name(),
        "reference": f"onnx {onnx.__version__} reference evaluator",
    }
    engines = installed_engines()
    if "openvino" in engines:
        titles["openvino"] = f"OpenVINO {version('openvino')}"
    return [Worker(titles[engine], sys.executable, engine) for engine in engines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--versions", nargs="*", default=VERSIONS, help="of the CPU package onnxruntime")
    parser.add_argument("--environments", type=Path, default=cache_folder(), help="folder to keep them in")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = {}
    with ExitStack() as stack:
        foreign = [
            Worker(f"onnxruntime {number}", environment(arguments.environments, number), "onnxruntime")
            for number in arguments.versions
        ]
        workers = [stack.enter_context(worker) for worker in [*foreign, *installed_workers()]]
        for artifact in arguments.artifacts:
            results[artifact.stem] = measure(artifact, workers, arguments)
            print(f"{artifact.stem}: {results[artifact.stem]['form']}", file=sys.stderr)
    engines = [worker.name for worker in workers]
    print(agreement(results, engines), end="\n\n")
    timed = [worker.name for worker in workers if worker.timed]
    print("milliseconds a pattern", times(results, timed), sep="\n\n", end="\n\n")
    print("ratio", times(results, timed, "time_over_installed"), sep="\n\n", end="\n\n")
    reasons: dict[str, list[str]] = {}
    for stem, result in results.items():
        for engine, answer in result["engines"].items():
            if "reason" in answer:
                text = f"{engine}, {answer['refused_at']}: {answer['reason']}"
                reasons.setdefault(text, []).append(stem)
    for text, stems in reasons.items():
        print(f"{text} ({', '.join(stems)})")
    if arguments.out:
        document = {
            "compared_with": f"onnxruntime {ort.__version__} CPUExecutionProvider",
            "error_rule": "largest difference over the largest output, over all batches; null if not finite",
            "time_rule": (
                "median over the rounds, engines in turn, of one run on the last batch; ratios within one round"
            ),
            "rounds": arguments.rounds,
            "threads": arguments.threads,
            "machine": platform.processor() or platform.machine(),
            "vector_instructions": vector_instructions(),
            "python": platform.python_version(),
            "artifacts": results,
        }
        write_text(arguments.out, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
