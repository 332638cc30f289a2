"""Many scans, each to its own result in one folder, with a manifest of what was done."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from ptychonnx.harness.campaign.engines import Engine
from ptychonnx.harness.campaign.manifest import VERSION, FileState, Manifest, ScanRecord
from ptychonnx.harness.campaign.scan_run import Networks, RunOptions, reconstruct_scan
from ptychonnx.harness.campaign.worker_network import WorkerNetwork, check_shared_folder
from ptychonnx.runtime.errors import InputError, PtychonnxError, first_line
from ptychonnx.runtime.formats.writers.reconstruction_file import is_reconstruction
from ptychonnx.runtime.inference import Predictor, Session
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.paths import file_sha256, readable
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.reconstruction.misfit import Misfit

__all__ = [
    "ScanOutcome",
    "ScanWork",
    "misfit_values",
    "network_sha256",
    "process_scans",
    "reconstruct_scans",
    "stored_settings",
    "worker_network",
]


class ScanWork(Protocol):
    """What is done with each of many scans. Workers receive a pickled copy."""

    def __call__(self, scan: Path, out: Path, warn: Callable[[str], None]) -> dict[str, Any]:
        """Process a scan, write its result to `out`, and return values of its record."""


@dataclass(frozen=True)
class ScanTask:
    """One scan to process."""

    scan: Path
    out: Path
    settings: dict[str, Any]
    work: ScanWork

    def __str__(self) -> str:
        return self.scan.name


@dataclass(frozen=True)
class ScanOutcome:
    """The record of a scan, and whether it is of an earlier command."""

    record: ScanRecord
    is_earlier: bool


@dataclass(frozen=True)
class _Reconstruct:
    """Reconstructs scans with a network of this process, or with that of the worker."""

    options: RunOptions
    network: Networks | WorkerNetwork

    def __call__(self, scan: Path, out: Path, warn: Callable[[str], None]) -> dict[str, Any]:
        read = self.options.read(scan)
        networks = self.network.open() if isinstance(self.network, WorkerNetwork) else self.network
        run = reconstruct_scan(networks, read, self.options, out, warn=warn)
        result = run.result
        if result.skipped:
            warn(result.skipped_text)
        if run.positions is not None:
            warn(str(run.positions))
        if result.position_doubt:
            warn(result.position_doubt)
        values = {"patterns": result.patterns, "shape": result.stitched.shape}
        return values | misfit_values(result.misfit)


def reconstruct_scans(
    networks: Networks,
    scans: Sequence[Path],
    folder: Path,
    options: RunOptions | None = None,
    progress: Progress = SILENT,
    *,
    engine: Engine | None = None,
) -> list[ScanOutcome]:
    """Reconstruct each scan to ``<folder>/<name of the scan>.h5``; see `process_scans`.

    Also raises InputError if workers cannot use the network, since it is on a server.
    """
    options = options or RunOptions()
    settings = stored_settings(
        {
            "network": "none" if options.iterations.iterations else network_sha256(networks.model),
            "options": options.model_dump(mode="json", exclude_defaults=True),
        },
        {"probe": options.probe, "companion": options.reading.companion},
    )
    network = networks if engine is None else worker_network(networks.model, options.inference, engine)
    work = _Reconstruct(options.absolute(), network)
    return process_scans(work, settings, scans, folder, ".h5", "Reconstructing", progress, engine=engine)


def process_scans(
    work: ScanWork,
    settings: dict[str, Any],
    scans: Sequence[Path],
    folder: Path,
    ending: str,
    stage: str,
    progress: Progress = SILENT,
    *,
    engine: Engine | None = None,
) -> list[ScanOutcome]:
    """Process each scan to ``<folder>/<name of the scan><ending>``.

    A scan that fails does not stop the others: its record says why. A scan whose result was written by an earlier call,
    from the same content and settings, is not processed again; one that failed or changed is.

    Raises InputError if two scans have the same name, or the folder has the result of another scan or a file of another
    kind under this name.

    * `settings`: what determines a result besides its scan, from `stored_settings`.
    * `stage`: what is done, for the progress.
    * `progress`: receives the number of scans done.
    * `engine`: where the scans are processed, each by one worker; one after another in this process if None.

    Returns one outcome for each scan, in their order.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected a folder to write to")
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(folder)
    results = _results(scans, folder, ending, manifest)
    tasks = [
        ScanTask(scan.absolute(), out.absolute(), settings, work)
        for scan, out in results.items()
        if not manifest.is_done(scan, out, settings)
    ]
    done = len(results) - len(tasks)
    progress.stage(f"{stage} {len(results)} scans", len(results), "scans")
    progress.update(done)
    for record in _records(tasks, engine):
        manifest.append(record)
        done += 1
        progress.update(done)
    pending = {task.out.name for task in tasks}
    return [ScanOutcome(manifest.records[out.name], out.name not in pending) for out in results.values()]


def _records(tasks: Sequence[ScanTask], engine: Engine | None) -> Iterator[ScanRecord]:
    if engine is None:
        yield from map(run_task, tasks)
        return
    for task, outcome in engine.run(run_task, tasks):
        if isinstance(outcome, Exception):
            yield _record(task, error=engine.reason(outcome))
        # Listing the folder makes a network file system look again.
        elif outcome.error is None and task.out not in task.out.parent.iterdir():
            message = (
                f"whole scan {task}: {outcome.host} wrote {task.out}, which is not on {platform.node()}: do both see "
                "the same folder?"
            )
            yield outcome.model_copy(update={"error": message})
        else:
            yield outcome


def run_task(task: ScanTask) -> ScanRecord:
    """Process one scan. Whatever goes wrong is in the record."""
    start = time.perf_counter()
    warnings: list[str] = []
    values: dict[str, Any] = {}
    state = None
    try:
        check_shared_folder(task.out.parent)
        state = FileState.of(task.scan)
        values = task.work(task.scan, task.out, warnings.append)
    except (PtychonnxError, MemoryError, OSError) as error:
        values["error"] = _message(error)
    except Exception as error:  # a fault in ptychonnx must not cost the other scans of a night
        values["error"] = f"internal error: {type(error).__name__}: {_message(error)}"
    seconds = round(time.perf_counter() - start, 3)
    return _record(task, state=state, seconds=seconds, warnings=tuple(warnings), **values)


def _record(task: ScanTask, **values: Any) -> ScanRecord:
    return ScanRecord(
        scan=readable(str(task.scan)),
        settings=task.settings,
        result=task.out.name,
        version=VERSION,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        host=platform.node(),
        **values,
    )


def _message(error: BaseException) -> str:
    if isinstance(error, OSError):
        return first_line(error)
    return " ".join(str(error).split()) or type(error).__name__


def _results(scans: Sequence[Path], folder: Path, ending: str, manifest: Manifest) -> dict[Path, Path]:
    """Where the result of each scan goes; a scan that is named twice counts once."""
    results: dict[Path, Path] = {}
    sources: dict[Path, Path] = {}
    for scan in scans:
        out = folder / f"{readable(scan.stem)}{ending}"
        first = sources.setdefault(out, scan)
        if first.absolute() != scan.absolute():
            raise InputError(f"{first} and {scan}: both results would be {out}, expected names that differ")
        record = manifest.records.get(out.name)
        if record is not None and record.scan != str(scan.absolute()) and Path(record.scan).exists():
            raise InputError(f"{out}: is the result of {record.scan}, expected another folder for {scan}")
        if record is None and out.is_file() and not is_reconstruction(out):
            raise InputError(
                f"{out}: is a file of yours that the object of {scan} would replace, expected another folder"
            )
        results[first] = out
    return results


def worker_network(
    model: Predictor | Path | None, inference: InferenceOptions, engine: Engine
) -> WorkerNetwork:
    """The description of a network by which workers open it.

    Raises InputError if it is on a server.
    """
    if isinstance(model, Session):
        model = model.path
    if isinstance(model, Predictor):
        raise InputError(f"{model.name}: runs on a server, expected an artifact with an executor")
    return WorkerNetwork.of(model, inference, engine.threads)


def network_sha256(model: Predictor | Path | None) -> str:
    """Hash by which a network is recognised; the version of the zoo if it is chosen for each scan."""
    if model is None:
        return f"zoo of ptychonnx {VERSION}"
    if isinstance(model, Path | Session):
        return file_sha256(model.path if isinstance(model, Session) else artifact_path(model))
    return hashlib.sha256(model.contract.to_json().encode()).hexdigest()


def misfit_values(misfit: Misfit | None) -> dict[str, Any]:
    """The values of a record about a misfit."""
    if misfit is None:
        return {}
    return {
        "misfit": round(misfit.value, 5),
        "scattered": round(misfit.scattered, 5),
        "verdict": misfit.verdict,
    }


def stored_settings(values: Mapping[str, Any], files: Mapping[str, Path | None]) -> dict[str, Any]:
    """Settings as they are read back from a manifest, with the hashes of files that they name."""
    hashes = {name: file_sha256(path) for name, path in files.items() if path is not None}
    return json.loads(json.dumps({**values, "files": hashes}))
