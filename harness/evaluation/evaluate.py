"""Evaluate every artifact on every scan: one runtime, one stitcher, one region, one set of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ptychonnx.harness.evaluation.halves import agreement_of_halves, check_halves, halves_of
from ptychonnx.harness.evaluation.judge import (
    EvaluateOptions,
    confidence_of_rows,
    judge_reconstruction,
    summarise,
)
from ptychonnx.harness.evaluation.methods import IterativeMethod, Method
from ptychonnx.harness.evaluation.object_method import ObjectMethod
from ptychonnx.harness.evaluation.plan import EvaluationPlan, plan_evaluation
from ptychonnx.harness.evaluation.results import Evaluation, EvaluationRow, ScanResult, ScanSummary
from ptychonnx.harness.iterative.algorithm import Algorithm
from ptychonnx.harness.iterative.iterations import Epochs
from ptychonnx.harness.metrics.comparison import Comparison
from ptychonnx.harness.metrics.region import RegionRule
from ptychonnx.runtime.atomic import claimed_output, is_claimed
from ptychonnx.runtime.contract import Placement
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor
from ptychonnx.runtime.machine import processor, software_versions
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.reconstruction.trust import beam_warnings
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.validation import checked

__all__ = ["evaluate"]


def evaluate(
    artifacts: StrPath | Predictor | Sequence[StrPath | Predictor],
    scans: StrPath | Scan | Sequence[StrPath | Scan],
    out: StrPath | None = None,
    *,
    provider: str = "auto",
    weighting: str | None = None,
    placement: Placement | None = None,
    synchronise: bool | None = None,
    skip_invalid: bool = False,
    strict: bool = False,
    batch: int | Literal["auto"] | None = DEFAULT_BATCH,
    iterations: Epochs = 0,
    refine: Epochs | None = None,
    alpha: float | None = None,
    momentum: float | None = None,
    smoothing: float | None = None,
    references: Sequence[StrPath | None] | None = None,
    objects: Mapping[str, StrPath] | None = None,
    region: RegionRule | None = None,
    plane: bool = False,
    register: bool = False,
    ptychopinn: bool = False,
    halves: bool = False,
    commands: Sequence[str] = (),
    progress: Progress = SILENT,
) -> Evaluation:
    """Reconstruct every scan with every artifact, compare with the known object, and write one report.

    All input is checked before the first pattern is run, and nothing is written before the last one.

    Parameters
    ----------
    artifacts
        One or several networks: ONNX files with a contract, ``zoo:NAME`` for a network that comes with ptychonnx, or
        open networks, in this process or on a server.
    scans
        One or several scans, or files for `ptychonnx.runtime.formats.read_scan`. A scan without a reference is
        reconstructed but not compared.
    out
        Folder for `metrics.json`, figures and `report.html`, created if missing. Nothing is written or drawn if None.
    provider
        Execution provider of artifacts that are given as files, see `ptychonnx.runtime.inference.session.Session`.
    weighting, placement, synchronise
        How patches are stitched, see `ptychonnx.runtime.reconstruction.stitching.Stitcher`; the choice of each contract
        if None.
    skip_invalid
        Leave out patterns whose patches are not finite, instead of refusing; the report says how many.
    strict
        Refuse a scan that a network does not know, see `ptychonnx.runtime.reconstruction.trust`.
    batch
        Patterns in one run of a network. If ``auto`` or None, each artifact gets the batch that is fastest in trials on
        the first scan (`ptychonnx.runtime.inference.tuning.tuned`).
    iterations
        Epochs of an iterative reconstruction from vacuum, which has a row of its own; 0 for none, ``auto`` until the
        misfit hardly falls.
    refine
        The same from the object of each network, with a row for each; none if None.
    alpha, momentum, smoothing
        Regularisation, momentum and weight of the total variation of both, see
        `ptychonnx.harness.iterative.algorithm.Algorithm`.
    references
        For each scan, a file with the object to compare with, or None for the reference in the scan.
    objects
        Files with objects that other programs reconstructed from the one scan, by the label of their row, see
        `ptychonnx.harness.evaluation.object_method`.
    region
        Rule for the pixels that are compared; those with at least a tenth of the typical illumination by default.
    plane, register
        Also remove a phase ramp, or a sub-pixel shift, from each reconstruction before the comparison.
    ptychopinn
        Also report the metrics as PtychoPINN defines them, on the rectangle of the region.
    halves
        Also reconstruct the patterns of even and of odd numbers separately with each network and all iterations, and
        report the ring correlation of the two, which needs no reference.
    commands
        Commands that reproduce the evaluation, for the report.
    progress
        Receives a stage for each method and scan, in patterns or epochs.

    Returns
    -------
    Evaluation
        ``evaluation.as_json()`` is the content of `metrics.json`.

    Raises
    ------
    InputError
        If an artifact or a scan cannot be used, they do not fit each other, two of them cannot be told apart, or
        another process is writing `out`.
    VerificationError
        If the patches of every network are not finite; if others are left, `Evaluation.failures` names it instead.
    ServerError
        If a server fails.

    Examples
    --------
    >>> import ptychonnx
    >>> scan = ptychonnx.simulate_lines(grid=6)
    >>> evaluation = ptychonnx.evaluate(["zoo:baseline", "zoo:pinn_fno"], scan)
    >>> rows = evaluation.as_json()["rows"]
    >>> {label: round(row["phase"]["pearson"], 1) for label, row in rows.items()}
    {'baseline': 0.9, 'pinn_fno': 1.0}
    """
    artifacts, scans = _as_list(artifacts), _as_list(scans)
    batch = None if batch == "auto" else batch
    choices = {"weighting": weighting, "placement": placement, "synchronise": synchronise}
    stitching = checked(ReconstructOptions, {**choices, "skip_invalid": skip_invalid})
    if out is not None:
        # Imported here, since drawing is not needed without a folder.
        from ptychonnx.harness.evaluation.write import check_folder, write_evaluation

        check_folder(Path(out))
    with nullcontext() if out is None or is_claimed(out) else claimed_output(out):
        plan = plan_evaluation(
            artifacts,
            scans,
            references,
            provider=provider,
            batch=batch,
            stitching=stitching,
            iterations=iterations,
            refine=refine,
            algorithm=Algorithm(alpha, momentum, smoothing=smoothing),
            objects=objects,
        )
        if strict:
            _refuse_unknown(plan)
        if halves:
            _check_halves(plan)
        options = EvaluateOptions(plane, register, ptychopinn, halves)
        failures: dict[str, str] = {}
        summaries, rows = _reconstruct_and_judge(plan, region, options, failures, progress)
        evaluation = Evaluation(
            scans=summaries,
            rows=rows,
            batch=batch,
            commands=tuple(commands),
            confidence={summary.name: confidence_of_rows(summary, rows) for summary in summaries},
            software=software_versions(),
            processor=processor(),
            failures=failures,
        )
        if out is not None:
            write_evaluation(evaluation, Path(out))
    return evaluation


def _reconstruct_and_judge(
    plan: EvaluationPlan,
    region: RegionRule | None,
    options: EvaluateOptions,
    failures: dict[str, str],
    progress: Progress,
) -> tuple[tuple[ScanSummary, ...], tuple[EvaluationRow, ...]]:
    """A summary of each scan, and a row for each method. The reconstructions of one scan are in memory at a time."""
    summaries = []
    results: dict[str, dict[str, ScanResult]] = {method.label: {} for method in plan.methods}
    for scan in plan.scans:
        reconstructions = _reconstructions(plan.methods, scan, failures, progress)
        summary = summarise(scan, list(reconstructions.values()), region)
        summaries.append(summary)
        agreement = _agreement(plan.methods, scan, summary, failures, progress) if options.halves else {}
        for method in plan.methods:
            if method.label in reconstructions:
                result = judge_reconstruction(
                    reconstructions[method.label], scan, summary, method.contract, options
                )
                results[method.label][scan.name] = replace(result, halves=agreement.get(method.label))
    rows = (method.row(results[method.label]) for method in plan.methods if method.label not in failures)
    return tuple(summaries), tuple(rows)


def _reconstructions(
    methods: Sequence[Method], scan: Scan, failures: dict[str, str], progress: Progress
) -> dict[str, Reconstruction]:
    """The reconstruction of each method by label; a method whose result is refused goes to `failures` instead.

    Raises VerificationError if no method is left.
    """
    reconstructions: dict[str, Reconstruction] = {}
    last = None
    for method in methods:
        start = method.start if isinstance(method, IterativeMethod) else None
        if method.label in failures:
            continue
        if start is not None and start.label in failures:
            failures[method.label] = f"{start.label}, which it starts from, failed"
            continue
        try:
            reconstructions[method.label] = method.reconstruct(scan, reconstructions, progress)
        except VerificationError as error:
            failures[method.label], last = str(error), error
    if not reconstructions:
        raise last or VerificationError(f"{scan.name}: every method failed on an earlier scan")
    return reconstructions


def _agreement(
    methods: Sequence[Method],
    scan: Scan,
    summary: ScanSummary,
    failures: Mapping[str, str],
    progress: Progress,
) -> dict[str, Comparison]:
    """Agreement of the two halves of a scan by label, of the methods that can reconstruct them."""
    able = [
        method for method in methods if not isinstance(method, ObjectMethod) and method.label not in failures
    ]
    if not able:
        return {}
    # A method that fails on a half has no agreement, but keeps its row.
    pairs = [_reconstructions(able, half, {}, progress) for half in halves_of(scan)]
    return agreement_of_halves(scan, summary, pairs)


def _refuse_unknown(plan: EvaluationPlan) -> None:
    for method in plan.methods:
        for scan in plan.scans:
            if method.contract is not None and (lines := beam_warnings(scan, method.contract)):
                raise InputError(f"--strict: {method.label} does not know {scan.name}: {lines[0]}")


def _check_halves(plan: EvaluationPlan) -> None:
    if all(isinstance(method, ObjectMethod) for method in plan.methods):
        raise InputError("--halves: got finished objects alone, expected a network or --iterations")
    contracts = [method.contract for method in plan.methods]
    for scan in plan.scans:
        check_halves(scan, max(1 if contract is None else contract.channels for contract in contracts))


def _as_list(items: Any) -> list[Any]:
    return list(items) if isinstance(items, Sequence) and not isinstance(items, str) else [items]
