"""Reconstruction of many scans, each to its own file in one folder, with a manifest of what was done."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ptychonnx.harness.campaign.engines import Engine
from ptychonnx.harness.campaign.manifest import VERSION, FileState, Manifest, ScanRecord
from ptychonnx.harness.campaign.scan_run import Networks, RunOptions, reconstruct_scan
from ptychonnx.harness.campaign.worker_network import WorkerNetwork
from ptychonnx.runtime.errors import InputError, PtychonnxError
from ptychonnx.runtime.inference import Predictor, Session
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.paths import file_sha256
from ptychonnx.runtime.progress import SILENT, Progress

__all__ = ["ScanOutcome", "reconstruct_scans"]


@dataclass(frozen=True)
class ScanTask:
    """One scan to reconstruct."""

    scan: Path
    out: Path
    options: RunOptions
    settings: dict[str, Any]
    network: WorkerNetwork | None

    def __str__(self) -> str:
        return self.scan.name


@dataclass(frozen=True)
class ScanOutcome:
    """The record of a scan, and whether it is of an earlier command."""

    record: ScanRecord
    is_earlier: bool


def reconstruct_scans(
    networks: Networks,
    scans: Sequence[Path],
    folder: Path,
    options: RunOptions | None = None,
    progress: Progress = SILENT,
    *,
    engine: Engine | None = None,
) -> list[ScanOutcome]:
    """Reconstruct each scan to ``<folder>/<name of the scan>.h5``.

    A scan that fails does not stop the others: its record says why. A scan whose object was written by an earlier call,
    from the same content, network and options, is not reconstructed again; one that failed or changed is.

    Parameters
    ----------
    progress
        Receives the number of scans done.
    engine
        Where the scans are reconstructed, each by one worker; one after another in this process if None.

    Returns
    -------
    One outcome for each scan, in their order.

    Raises
    ------
    InputError
        If workers cannot use the network, since it is on a server; if two scans have the same name; or if
        the folder has the object of another scan under this name.
    """
    options = options or RunOptions()
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(folder)
    results = _results(scans, folder, manifest)
    settings = _settings(networks.model, options)
    network = None if engine is None else _worker_network(networks.model, options, engine)
    tasks = [
        ScanTask(scan.absolute(), out.absolute(), options.absolute(), settings, network)
        for scan, out in results.items()
        if not manifest.is_done(scan, out, settings)
    ]
    done = len(results) - len(tasks)
    progress.stage(f"Reconstructing {len(results)} scans", len(results), "scans")
    progress.update(done)
    for record in _records(networks, tasks, engine):
        manifest.append(record)
        done += 1
        progress.update(done)
    pending = {task.out.name for task in tasks}
    return [ScanOutcome(manifest.records[out.name], out.name not in pending) for out in results.values()]


def _records(networks: Networks, tasks: Sequence[ScanTask], engine: Engine | None) -> Iterator[ScanRecord]:
    if engine is None:
        for task in tasks:
            yield run_task(task, networks)
        return
    for task, outcome in engine.run(run_task, tasks):
        if isinstance(outcome, Exception):
            yield _record(task, error=engine.reason(outcome))
        else:
            yield outcome


def run_task(task: ScanTask, networks: Networks | None = None) -> ScanRecord:
    """Reconstruct one scan, with the network of the worker if None is given. Whatever goes wrong is in the record."""
    start = time.perf_counter()
    warnings: list[str] = []
    values: dict[str, Any] = {}
    state = None
    try:
        state = FileState.of(task.scan)
        scan = task.options.read(task.scan)
        if networks is None:
            assert task.network is not None
            networks = task.network.open()
        run = reconstruct_scan(networks, scan, task.options, task.out, warn=warnings.append)
        result = run.result
        values = {"patterns": result.patterns, "shape": result.stitched.shape}
        if result.misfit is not None:
            values |= {"misfit": round(result.misfit.value, 5), "verdict": result.misfit.verdict}
        warnings += [result.skipped_text] if result.skipped else []
        warnings += [] if run.positions is None else [str(run.positions)]
    except (PtychonnxError, MemoryError, OSError) as error:
        values["error"] = _message(error)
    except Exception as error:  # a fault in ptychonnx must not cost the other scans of a night
        values["error"] = f"internal error: {type(error).__name__}: {_message(error)}"
    seconds = round(time.perf_counter() - start, 3)
    return _record(task, state=state, seconds=seconds, warnings=tuple(warnings), **values)


def _record(task: ScanTask, **values: Any) -> ScanRecord:
    return ScanRecord(
        scan=str(task.scan),
        settings=task.settings,
        result=task.out.name,
        version=VERSION,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        host=platform.node(),
        **values,
    )


def _message(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _results(scans: Sequence[Path], folder: Path, manifest: Manifest) -> dict[Path, Path]:
    """The file for the object of each scan; a scan that is named twice counts once."""
    results: dict[Path, Path] = {}
    sources: dict[Path, Path] = {}
    for scan in scans:
        out = folder / f"{scan.stem}.h5"
        first = sources.setdefault(out, scan)
        if first.absolute() != scan.absolute():
            raise InputError(f"{first} and {scan}: both objects would be {out}, expected names that differ")
        record = manifest.records.get(out.name)
        if record is not None and record.scan != str(scan.absolute()) and Path(record.scan).exists():
            raise InputError(f"{out}: is the object of {record.scan}, expected another folder for {scan}")
        results[first] = out
    return results


def _worker_network(model: Predictor | Path | None, options: RunOptions, engine: Engine) -> WorkerNetwork:
    if isinstance(model, Session):
        model = model.path
    if isinstance(model, Predictor):
        raise InputError(f"{model.name}: runs on a server, expected an artifact with an executor")
    return WorkerNetwork.of(model, options.inference, engine.threads)


def _settings(model: Predictor | Path | None, options: RunOptions) -> dict[str, Any]:
    """What determines an object besides its scan."""
    if model is None:
        network = f"zoo of ptychonnx {VERSION}"
    elif isinstance(model, Path | Session):
        network = file_sha256(model.path if isinstance(model, Session) else artifact_path(model))
    else:
        network = hashlib.sha256(model.contract.to_json().encode()).hexdigest()
    settings = options.model_dump(mode="json", exclude_defaults=True)
    beside = {"probe": options.probe, "companion": options.reading.companion}
    files = {name: file_sha256(path) for name, path in beside.items() if path is not None}
    # As it is read back from the manifest.
    return json.loads(json.dumps({"network": network, "options": settings, "files": files}))
