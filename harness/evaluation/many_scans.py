"""Evaluation of many scans, each with a report of its own, in the way that many scans are reconstructed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptychonnx.harness.campaign.engines import Engine
from ptychonnx.harness.campaign.many_scans import (
    ScanOutcome,
    misfit_values,
    network_sha256,
    process_scans,
    stored_settings,
    worker_network,
)
from ptychonnx.harness.campaign.worker_network import WorkerNetwork
from ptychonnx.harness.evaluation.evaluate import evaluate
from ptychonnx.harness.evaluation.results import ScanResult
from ptychonnx.runtime.errors import VerificationError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.inference import Predictor, Session
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.progress import SILENT, Progress

__all__ = ["evaluate_scans"]


@dataclass(frozen=True)
class _Evaluate:
    """Evaluates scans with networks of this process, or with those of the worker."""

    networks: tuple[Predictor | WorkerNetwork, ...]
    probe: Path | None
    reading: ReadOptions
    options: dict[str, Any]

    def __call__(self, scan: Path, out: Path, warn: Callable[[str], None]) -> dict[str, Any]:
        read = read_scan(scan, probe=self.probe, options=self.reading)
        networks = [
            network.open().for_scan(read) if isinstance(network, WorkerNetwork) else network
            for network in self.networks
        ]
        evaluation = evaluate(networks, read, out, **self.options)
        if evaluation.failures:
            raise VerificationError(
                "; ".join(f"{label}: {reason}" for label, reason in evaluation.failures.items())
            )
        (summary,) = evaluation.scans
        results = {row.label: row.results[summary.name] for row in evaluation.rows}
        misfits = [result.misfit for result in results.values() if result.misfit is not None]
        return {
            "patterns": summary.patterns,
            "shape": summary.region.shape,
            "ssim": {label: _ssim(result) for label, result in results.items() if result.comparison},
            **misfit_values(min(misfits, key=lambda misfit: misfit.value, default=None)),
        }


def evaluate_scans(
    artifacts: Sequence[Path | Predictor],
    scans: Sequence[Path],
    folder: Path,
    *,
    inference: InferenceOptions,
    probe: Path | None,
    reading: ReadOptions,
    options: dict[str, Any],
    commands: Sequence[str] = (),
    progress: Progress = SILENT,
    engine: Engine | None = None,
) -> list[ScanOutcome]:
    """Evaluate each scan into the folder ``<folder>/<name of the scan>``; see `process_scans`.

    The misfit of a record is that of the best row.

    Raises InputError if a network cannot be used, or two scans have the same name.

    * `artifacts`: artifacts, or networks on servers if there is no engine.
    * `inference`, `probe`, `reading`: where the networks run, and how the scans are read.
    * `options`: further arguments of `evaluate`, which JSON can hold.
    * `commands`: see `evaluate`.
    """
    settings = stored_settings(
        {
            "networks": [network_sha256(artifact) for artifact in artifacts],
            "evaluation": options,
            "options": {
                "inference": inference.model_dump(mode="json", exclude_defaults=True),
                "reading": reading.model_dump(mode="json", exclude_defaults=True),
            },
        },
        {"probe": probe, "companion": reading.companion},
    )
    work = _Evaluate(
        tuple(_network(artifact, inference, engine) for artifact in artifacts),
        probe and probe.absolute(),
        reading.model_copy(update={"companion": reading.companion and reading.companion.absolute()}),
        options | {"batch": inference.batch, "provider": inference.provider, "commands": commands},
    )
    return process_scans(work, settings, scans, folder, "", "Evaluating", progress, engine=engine)


def _network(
    artifact: Path | Predictor, inference: InferenceOptions, engine: Engine | None
) -> Predictor | WorkerNetwork:
    if engine is not None:
        return worker_network(artifact, inference, engine)
    return artifact if isinstance(artifact, Predictor) else Session(artifact, inference.provider)


def _ssim(result: ScanResult) -> tuple[float | None, float | None]:
    assert result.comparison is not None
    return result.comparison.amplitude.ssim, result.comparison.phase.ssim
