"""A check of a device in a given time: the most important measurements first, and every result is kept at once.

A second call with the same folder goes on where the first one ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ptychonnx.harness.bench.speed import match_runs
from ptychonnx.harness.gpu.device import describe_device
from ptychonnx.harness.gpu.gpu_report import as_text, rates_figure
from ptychonnx.harness.gpu.network_check import NetworkCheck
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.atomic import atomic_path, write_text
from ptychonnx.runtime.errors import InputError, PtychonnxError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.providers import ProviderRequest
from ptychonnx.runtime.paths import file_sha256
from ptychonnx.runtime.progress import SILENT, Progress

__all__ = ["BATCHES", "check_device"]

BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
_JSON, _TEXT, _PICTURE = "gpu_check.json", "gpu_check.txt", "gpu_check.png"
Step = Callable[[], dict[str, Any]]


def check_device(
    artifacts: Sequence[Path],
    out: Path,
    provider: str = "auto",
    *,
    minutes: float = 5.0,
    batches: Sequence[int] = BATCHES,
    grid: int = 40,
    runs: Sequence[Path] = (),
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Measure artifacts on a device, and write `gpu_check.json`, `.txt` and `.png` after each step.

    Raises InputError if the folder holds results of something else, or an artifact cannot be used. Raises DeviceError
    if the provider is unavailable.

    * `out`: folder; results that it holds are kept, if they are of the same artifacts on the same device.
    * `minutes`: time after which no further step begins. A step in progress is finished.
    * `batches`: batches to measure.
    * `grid`: the simulated scan has grid x grid patterns.
    * `runs`: run folders, whose networks are measured in their own framework too.

    Returns the content of the JSON file: ``device``, ``settings``, ``results`` by ``NETWORK/STEP``, and ``not_run``.
    """
    if min(minutes, grid, *batches) <= 0:
        raise InputError("gpu-check: minutes, batches and grid must be numbers above 0")
    deadline = time.monotonic() + 60 * minutes
    ProviderRequest.parse(provider)
    # Those for small patterns first: what takes longest is left out when the time is over.
    sessions = sorted((Session(path, provider) for path in artifacts), key=lambda session: session.contract.n)
    run_of = match_runs(sessions, runs)
    settings = {
        "provider": provider,
        "batches": sorted(batches),
        "grid": grid,
        "artifacts": {session.path.stem: file_sha256(session.path) for session in sessions},
    }
    device = describe_device()
    record: dict[str, Any] = {"version": 1, "device": device, "settings": settings, "results": {}}
    results: dict[str, Any] = record["results"]
    results.update(_earlier(out / _JSON, record))
    checks = {}
    for session in sessions:
        scan = simulate_scan(LinesConfig(n=session.contract.n), grid, np.random.SeedSequence([0, 1]), "test")
        run = run_of.get(session.path)
        checks[session.path.stem] = NetworkCheck(session.path, provider, scan, sorted(batches), run)
    del sessions
    steps = dict(_steps(checks, results, deadline))
    progress.stage("Checking the device", len(steps), "steps")
    for number, (name, step) in enumerate(steps.items()):
        if name not in results and time.monotonic() < deadline:
            try:
                results[name] = step()
            except PtychonnxError as error:
                record.setdefault("failed", {})[name] = str(error)
            _write(out, record | {"not_run": _remaining(steps, record)})
        progress.update(number + 1)
    record["not_run"] = _remaining(steps, record)
    _write(out, record)
    return record


def _steps(
    checks: dict[str, NetworkCheck], results: dict[str, Any], deadline: float
) -> Iterator[tuple[str, Step]]:
    """All steps by name, those first without which the others mean nothing."""

    def at_best_batch(name: str, measure: Callable[[int], dict[str, Any]]) -> Step:
        """The step in the batch of the highest rate, which an earlier step has found."""

        def step() -> dict[str, Any]:
            rows = results.get(f"{name}/rates", {}).get("batches", [])
            rate = {row["batch"]: row["patterns_per_second"]["with copies"] for row in rows}
            return measure(max(rate, key=lambda batch: rate[batch], default=16))

        return step

    def in_its_share(check: NetworkCheck, left: int) -> dict[str, Any]:
        """The rates, in an equal share of the time for this and all later networks, and for the later steps."""
        now = time.monotonic()
        return check.rates(now + (deadline - now) / (left + 1))

    for name, check in checks.items():
        yield f"{name}/nodes", check.nodes
    for name, check in checks.items():
        yield f"{name}/parity", check.parity
    for number, (name, check) in enumerate(checks.items()):
        yield f"{name}/rates", partial(in_its_share, check, len(checks) - number)
    for name, check in checks.items():
        yield f"{name}/end to end", at_best_batch(name, check.end_to_end)
    for name, check in checks.items():
        if check.run is not None:
            yield f"{name}/native", at_best_batch(name, check.native)
    for name, check in checks.items():
        yield f"{name}/kernels", at_best_batch(name, check.kernels)
    for name, check in checks.items():
        yield f"{name}/lower precision", check.precision


def _remaining(steps: dict[str, Step], record: dict[str, Any]) -> list[str]:
    return [name for name in steps if name not in record["results"] and name not in record.get("failed", {})]


def _earlier(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Results of an interrupted check of the same artifacts on the same device."""
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not valid JSON ({error}), expected the result of gpu-check") from error
    for part in ("settings", "device"):
        if not isinstance(earlier, dict) or earlier.get(part) != json.loads(json.dumps(record[part])):
            raise InputError(f"{path}: holds results with other {part}, expected a new folder with --out")
    return earlier["results"]


def _write(out: Path, record: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / _JSON, json.dumps(record, indent=1, allow_nan=False) + "\n")
    write_text(out / _TEXT, "\n".join(as_text(record)) + "\n")
    if any(result.get("batches") for name, result in record["results"].items() if name.endswith("/rates")):
        with atomic_path(out / _PICTURE) as partial:
            partial.write_bytes(rates_figure(record))
