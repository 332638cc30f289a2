"""Speed of artifacts against every other variant of their networks, interleaved.

Every variant runs once in each round, in an order that changes from round to round, so that a machine that becomes
slower for a while slows all of them. Ratios are medians of the ratios within one round. A large float32 matrix product
runs in each round too, as a measure of what the machine can do at that moment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.deploy.deployable import read_stamp
from ptychonnx.export.deploy.stamped import StampedModule
from ptychonnx.export.graph.inspection import multiply_adds
from ptychonnx.export.verification.denormals import DenormalCount, constant_denormals
from ptychonnx.harness.bench.interleaved import interleaved_times
from ptychonnx.harness.bench.measuring_process import LoadedVariants, MeasuringProcess
from ptychonnx.harness.bench.native_variants import GEMM_OPERATIONS, load_native, load_onnx
from ptychonnx.harness.bench.openvino_variants import (
    BFLOAT16,
    judge_eight_bit,
    load_openvino,
    openvino_precisions,
)
from ptychonnx.harness.bench.speed_report import ArtifactSpeed, SpeedReport, VariantSpeed
from ptychonnx.harness.evaluation.precision_gate import PrecisionGate
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.machine import available_cores, installed_versions, processor, vector_instructions
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import nearest_groups
from ptychonnx.train.run import hash_of, held_out_scan, read_run

__all__ = ["ALLOWED_ERROR", "match_runs", "measure_speed"]

# Relative to the largest output: the time of a variant with a larger error is not used.
ALLOWED_ERROR = 1e-3
_PATTERN_SEED = 0
_PACKAGES = ("ptychonnx", "numpy", "onnxruntime-gpu", "onnxruntime", "torch", "tensorflow")


@dataclass(frozen=True)
class _Settings:
    batch: int
    rounds: int
    threads: int
    reduced: bool
    judged_on: Scan | None


def measure_speed(
    artifacts: Sequence[Path],
    runs: Sequence[Path] = (),
    *,
    batch: int = 16,
    rounds: int = 30,
    threads: int | None = None,
    reduced: bool = True,
    judged_on: Scan | None = None,
    progress: Progress = SILENT,
) -> SpeedReport:
    """Measure artifacts on the CPU.

    Raises InputError if two artifacts have the same name, one cannot be measured, or a run belongs to none of them.
    Raises UnsupportedError or EnvironmentFailure if a variant cannot be run, or its process ended unexpectedly.

    * `artifacts`: float32 artifacts that take amplitudes in any batch, and files of `ptychonnx export-module`.
    * `runs`: run folders; each artifact is matched with its own by the hash of its weights.
    * `batch`: patterns in one call.
    * `rounds`: number of measurements of each variant.
    * `threads`: number of threads of every variant and of the matrix product; all available processors if None.
    * `reduced`: whether variants of lower precision are created, judged and measured too, for artifacts with a run.
    * `judged_on`: scan on which lower precisions are judged, by its reference if it has one; the held-out patterns of
      each run if None.
    * `progress`: receives a stage for each step, and the rounds.
    """
    if len({path.stem for path in artifacts}) < len(artifacts):
        raise InputError("bench: two artifacts have the same name, expected different names")
    if min(batch, rounds, threads or 1) < 1:
        raise InputError("bench: batch, rounds and threads must be numbers above 0")
    settings = _Settings(batch, rounds, threads or available_cores(), reduced, judged_on)
    stamps = {path: read_stamp(path) for path in artifacts}
    modules = {path: stamp for path, stamp in stamps.items() if isinstance(stamp, StampedModule)}
    sessions = [Session(path, "cpu", settings.threads) for path in artifacts if path not in modules]
    for session in sessions:
        if session.contract.batch is not None or session.contract.input.domain != "amplitude":
            raise InputError(
                f"{session.path}: has a fixed batch or takes counts, bench expects amplitudes in any batch"
            )
    run_of = match_runs(sessions, runs)
    speeds = {
        session.path.stem: _measure_artifact(session, run_of.get(session.path), settings, progress)
        for session in sessions
    }
    speeds |= {path.stem: _measure_module(path, stamp, settings, progress) for path, stamp in modules.items()}
    return SpeedReport(
        batch=batch,
        rounds=rounds,
        threads=settings.threads,
        judged_on=None if judged_on is None else judged_on.name,
        processor=processor(),
        vector_instructions=vector_instructions(),
        versions=installed_versions(*_PACKAGES),
        artifacts={path.stem: speeds[path.stem] for path in artifacts},
    )


def match_runs(sessions: Sequence[Session], runs: Sequence[Path]) -> dict[Path, Path]:
    """The run folder of each artifact that has one."""
    run_of = {}
    for run in runs:
        weights = hash_of(read_run(run).trained_tensors)
        owners = [
            session.path
            for session in sessions
            if session.contract.weights is not None and session.contract.weights.checkpoint_sha256 == weights
        ]
        if not owners:
            raise InputError(f"{run}: no artifact was exported from this run, expected one")
        run_of.update(dict.fromkeys(owners, run))
    return run_of


def _measure_artifact(
    session: Session, run: Path | None, settings: _Settings, progress: Progress
) -> ArtifactSpeed:
    """Create the variants of one artifact, judge lower precisions, and measure."""
    name, data, threads = session.name, session.path.read_bytes(), settings.threads
    scan = None if run is None else held_out_scan(run)
    inputs = _inputs(session, scan, settings.batch)
    graphs, judged, precisions = {"artifact": data}, {}, openvino_precisions()
    if scan is not None and settings.reduced:
        progress.stage(f"{name}: judging lower precisions")
        gate = PrecisionGate(settings.judged_on or scan)
        eight_bit, judged["int8"] = judge_eight_bit(session.path, scan, gate)
        graphs |= {} if eight_bit is None else {"int8": eight_bit}
        if "bf16" in precisions:
            judged[BFLOAT16] = gate.verdict(session.path, Session(session.path, "openvino:bfloat16", threads))
    if not judged.get(BFLOAT16, "").startswith("accepted"):
        precisions = [precision for precision in precisions if precision != "bf16"]
    framework = None
    if run is not None:
        framework = partial(load_native, run, inputs, threads, session.contract.conversion.final_steps)
    onnx_graphs = partial(load_onnx, inputs=inputs, threads=threads)
    openvino = partial(load_openvino, data, inputs, threads, precisions) if precisions else None
    return _measure(name, graphs, judged, framework, onnx_graphs, openvino, settings, progress)


def _measure_module(
    path: Path, stamp: StampedModule, settings: _Settings, progress: Progress
) -> ArtifactSpeed:
    """Measure a file of `export-module`, on its reference inputs repeated."""
    interface, data, threads = stamp.interface, path.read_bytes(), settings.threads
    has_batch = [interface.batched or tensor.shape[:1] == (-1,) for tensor in interface.inputs]
    size = interface.batch or (settings.batch if any(has_batch) else 1)
    inputs = tuple(
        values.take(range(size), axis=0, mode="wrap") if batched else values
        for values, batched in zip(stamp.reference, has_batch, strict=True)
    )
    onnx_graphs = partial(load_onnx, inputs=inputs, threads=threads, whole=True)
    # OpenVINO runs with fixed sizes, which need a batch in front of every tensor.
    has_openvino = interface.batched and "f32" in openvino_precisions()
    openvino = partial(load_openvino, data, inputs, threads, ["f32"]) if has_openvino else None
    settings = replace(settings, batch=size)
    return _measure(path.stem, {"artifact": data}, {}, None, onnx_graphs, openvino, settings, progress)


def _measure(
    name: str,
    graphs: dict[str, bytes],
    judged: dict[str, str],
    framework: Callable[[], LoadedVariants] | None,
    onnx_graphs: Callable[[Mapping[str, bytes]], LoadedVariants],
    openvino: Callable[[], LoadedVariants] | None,
    settings: _Settings,
    progress: Progress,
) -> ArtifactSpeed:
    """Run all variants in turn, each kind in a process of its own."""
    with ExitStack() as stack:
        process_of: dict[str, MeasuringProcess] = {}

        def start(load: Callable[[], LoadedVariants]) -> MeasuringProcess:
            process = stack.enter_context(MeasuringProcess(load, settings.threads))
            process_of.update(dict.fromkeys(process.outputs, process))
            return process

        native: Mapping[str, NDArray[np.float32] | None] = {}
        if framework is not None:
            progress.stage(f"{name}: loading and compiling the network in its framework")
            process = start(framework)
            native, graphs["as exported"] = process.outputs, process.notes
        computed: DenormalCount = start(partial(onnx_graphs, graphs)).notes
        if openvino is not None:
            start(openvino)
        outputs = {variant: process.outputs[variant] for variant, process in process_of.items()}
        progress.stage(f"{name}: measuring {len(process_of)} variants", settings.rounds, "rounds")
        times = interleaved_times(
            {variant: partial(process.time, variant) for variant, process in process_of.items()},
            settings.rounds,
            progress=progress,
        )
    speed = _artifact_speed(graphs, times, outputs, tuple(native), judged, settings.batch)
    return speed.model_copy(update={"denormal_intermediates": computed.share})


def _artifact_speed(
    graphs: Mapping[str, bytes],
    times: dict[str, NDArray[np.float64]],
    outputs: Mapping[str, NDArray[np.float32] | None],
    native: Sequence[str],
    judged: dict[str, str],
    batch: int,
) -> ArtifactSpeed:
    """Statistics of the times [rounds] of all variants.

    `graphs`: the artifact, and with a run the graph before any pass. `native`: names of the variants in the framework,
    ``eager`` among them; empty without a run.
    """
    model = onnx.load_from_string(graphs["artifact"])
    executed, trained = 2 * multiply_adds(model), None
    if "as exported" in graphs:
        trained = 2 * multiply_adds(onnx.load_from_string(graphs["as exported"]))
    rates = GEMM_OPERATIONS / times.pop("gemm")
    expected = outputs["eager" if native else "artifact"]
    errors = {variant: _relative_error(outputs[variant], expected) for variant in times}
    compiled = [variant for variant in native if variant != "eager" and errors[variant] <= ALLOWED_ERROR]

    def ratio(one: str, other: str) -> float:
        """Median of the ratios of two times within one round."""
        return float(np.median(times[one] / times[other]))

    def gemm_fraction(operations: int) -> float:
        return float(np.median(operations * batch / times["artifact"] / rates))

    best = min(compiled, key=lambda variant: ratio(variant, "artifact"), default=None)

    def statistics(variant: str) -> VariantSpeed:
        quartiles = [25, 50, 75]
        low, middle, high = np.percentile(1e3 * times[variant] / batch, quartiles).tolist()
        under, over_artifact, over = np.percentile(times[variant] / times["artifact"], quartiles).tolist()
        return VariantSpeed(
            milliseconds=middle,
            spread=(low, high),
            over_artifact=over_artifact,
            over_artifact_spread=(under, over),
            speedup_compiled=None if best is None else ratio(best, variant),
            relative_error=errors[variant],
            right=None if variant in judged else errors[variant] <= ALLOWED_ERROR,
        )

    variants = {variant: statistics(variant) for variant in times}
    return ArtifactSpeed(
        speedup_eager=variants["eager"].over_artifact if "eager" in variants else None,
        speedup_compiled=variants["artifact"].speedup_compiled,
        compiled_form=best,
        gemm_fraction=None if trained is None else gemm_fraction(trained),
        gemm_fraction_executed=gemm_fraction(executed),
        int8_speedup=ratio("artifact", "int8") if "int8" in times else None,
        judged=judged,
        gflop_trained=None if trained is None else trained / 1e9,
        gflop_executed=executed / 1e9,
        gemm_gflop_per_second=float(np.median(rates)) / 1e9,
        denormal_constants=constant_denormals(model).share,
        sha256=hashlib.sha256(graphs["artifact"]).hexdigest(),
        forms=variants,
    )


def _inputs(session: Session, scan: Scan | None, batch: int) -> tuple[NDArray, ...]:
    """A batch of measured patterns, or random ones without a scan; only the errors depend on the values."""
    contract = session.contract
    if scan is None:
        generator = np.random.default_rng(_PATTERN_SEED)
        return tuple(
            generator.gamma(1.0, 10.0, (batch, *tensor.shape)).astype(np.float32)
            for tensor in contract.inputs
        )
    groups = nearest_groups(scan.positions, contract.channels)
    return session.inputs(scan, groups.take(range(batch), axis=0, mode="wrap"))


def _relative_error(output: NDArray[np.float32] | None, expected: NDArray[np.float32] | None) -> float:
    assert output is not None
    assert expected is not None
    difference = np.abs(output.astype(np.float64) - expected)
    return float(difference.max(initial=0) / (np.abs(expected).max(initial=0) or 1))
