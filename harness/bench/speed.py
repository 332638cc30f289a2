"""Times of an artifact and of every other form of its network, in turns.

Every form runs once in each round, in an order that changes from round to round, so that a machine that gets slower
for a while slows all of them. Ratios are medians of the ratios within one round. A large float32 matrix product runs
in each round too: it tells what the machine could do at that moment.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.graph.operation_count import multiply_adds
from ptychonnx.export.precision import reduce_artifact
from ptychonnx.harness.bench.interleaved import in_turns
from ptychonnx.harness.bench.measuring_process import Loaded, Worker
from ptychonnx.harness.bench.native_variants import GEMM_OPERATIONS, load_native, load_onnx
from ptychonnx.harness.bench.openvino_variants import (
    BFLOAT16,
    OpenVinoSession,
    load_openvino,
    openvino_precisions,
)
from ptychonnx.harness.bench.speed_report import ArtifactSpeed, FormSpeed, SpeedReport
from ptychonnx.harness.evaluation.precision_gate import Gate
from ptychonnx.harness.machine import processor, vector_instructions
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.inference.model import network_inputs
from ptychonnx.runtime.inference.session import Session
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import nearest_groups
from ptychonnx.train.run import hash_of, held_out_scan, installed_versions, read_run

__all__ = ["ALLOWED_ERROR", "measure_speed"]

# Of the largest output: a fast form that is wrong is no form to compare with.
ALLOWED_ERROR = 1e-3
_PATTERN_SEED = 0


def measure_speed(
    artifacts: Sequence[Path],
    runs: Sequence[Path] = (),
    *,
    batch: int = 16,
    rounds: int = 30,
    threads: int | None = None,
    reduced: bool = True,
    judged_on: Scan | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> SpeedReport:
    """Measure artifacts on the CPU.

    Parameters
    ----------
    artifacts
        Float32 artifacts that take amplitudes in any batch.
    runs
        Run folders; each artifact finds its own by the hash of its weights.
    batch
        Patterns in one call.
    threads
        Of every form and of the matrix product; all processors that this process may use if None.
    reduced
        Whether to make, judge and measure forms of lower precision too, of artifacts with a run.
    judged_on
        The scan whose reconstruction says whether a lower precision is accepted, by its own object if it has one; the
        held-out patterns of each run if None.
    progress
        Called with what is done next, in words.

    Raises
    ------
    InputError
        If two artifacts have the same name, one cannot be measured, or a run belongs to none of them.
    """
    if len({path.stem for path in artifacts}) < len(artifacts):
        raise InputError("bench: two artifacts have the same name, expected different ones")
    if min(batch, rounds, threads or 1) < 1:
        raise InputError("bench: batch, rounds and threads are numbers above 0")
    threads = threads or len(os.sched_getaffinity(0))
    sessions = [Session(path, "cpu", threads) for path in artifacts]
    for session in sessions:
        _check(session)
    found = _match(sessions, runs)
    measured = {}
    for session in sessions:
        measured[session.path.stem] = _measure(
            session, found.get(session.path), batch, rounds, threads, reduced, judged_on, progress
        )
    return SpeedReport(
        batch=batch,
        rounds=rounds,
        threads=threads,
        judged_on=None if judged_on is None else judged_on.name,
        processor=processor(),
        vector_instructions=vector_instructions(),
        versions=installed_versions("onnxruntime-gpu", "onnxruntime", "torch", "tensorflow"),
        artifacts=measured,
    )


def _check(session: Session) -> None:
    contract = session.contract
    if contract.batch is not None or contract.input.domain != "amplitude":
        raise InputError(
            f"{session.path}: has a fixed batch or takes counts, bench expects amplitudes in any batch"
        )


def _match(sessions: Sequence[Session], runs: Sequence[Path]) -> dict[Path, Path]:
    """The run folder of each artifact that has one."""
    found = {}
    for run in runs:
        weights = hash_of(read_run(run).trained_tensors)
        owners = [
            session.path
            for session in sessions
            if session.contract.weights is not None and session.contract.weights.checkpoint_sha256 == weights
        ]
        if not owners:
            raise InputError(f"{run}: no artifact was exported from this run, expected one")
        found.update(dict.fromkeys(owners, run))
    return found


def _measure(
    session: Session,
    run: Path | None,
    batch: int,
    rounds: int,
    threads: int,
    reduced: bool,
    judged_on: Scan | None,
    progress: Callable[[str], None],
) -> ArtifactSpeed:
    name, data = session.name, session.path.read_bytes()
    scan = None if run is None else held_out_scan(run)
    inputs = _inputs(session, scan, batch)
    graphs, judged, precisions = {"artifact": data}, {}, openvino_precisions()
    if scan is not None and reduced:
        progress(f"{name}: making and judging forms of lower precision")
        gate = Gate(judged_on or scan)
        eight_bit, judged["int8"] = _eight_bit(session.path, scan, gate)
        graphs |= {} if eight_bit is None else {"int8": eight_bit}
        if "bf16" in precisions:
            judged[BFLOAT16] = _bfloat16(session.path, gate, threads)
    if not judged.get(BFLOAT16, "").startswith("accepted"):
        precisions = [precision for precision in precisions if precision != "bf16"]
    trained, expected, native = None, None, {}
    with ExitStack() as stack:
        owner: dict[str, Worker] = {}

        def start(load: Callable[[], Loaded]) -> Worker:
            worker = stack.enter_context(Worker(load, threads))
            owner.update(dict.fromkeys(worker.outputs, worker))
            return worker

        if run is not None:
            progress(f"{name}: loading and compiling the network in its framework")
            steps = session.contract.conversion.final_steps
            framework = start(partial(load_native, run, inputs, threads, steps))
            native = framework.outputs
            expected = native["eager"]
            graphs["as exported"] = framework.notes
            trained = 2 * multiply_adds(onnx.load_from_string(framework.notes))
        start(partial(load_onnx, graphs, inputs, threads))
        if precisions:
            start(partial(load_openvino, data, inputs, threads, precisions))
        outputs = {form: worker.outputs[form] for form, worker in owner.items()}
        progress(f"{name}: {len(owner)} forms, {rounds} rounds")
        times = in_turns({form: partial(worker.time, form) for form, worker in owner.items()}, rounds)
    executed = 2 * multiply_adds(onnx.load_from_string(data))
    rates = GEMM_OPERATIONS / times.pop("gemm")
    errors = {
        form: _error(outputs[form], outputs["artifact"] if expected is None else expected) for form in times
    }
    compiled = [form for form in native if form != "eager" and errors[form] <= ALLOWED_ERROR]
    best = min(compiled, key=lambda form: float(np.median(times[form] / times["artifact"])), default=None)
    forms = {
        form: _form(
            seconds / batch,
            times["artifact"] / batch,
            None if best is None else times[best] / batch,
            errors[form],
            None if form in judged else errors[form] <= ALLOWED_ERROR,
        )
        for form, seconds in times.items()
    }

    def fraction(operations: int) -> float:
        return float(np.median(operations * batch / times["artifact"] / rates))

    return ArtifactSpeed(
        speedup_eager=forms["eager"].over_artifact if "eager" in forms else None,
        speedup_compiled=forms["artifact"].speedup_compiled,
        compiled_form=best,
        gemm_fraction=None if trained is None else fraction(trained),
        gemm_fraction_executed=fraction(executed),
        int8_speedup=float(np.median(times["artifact"] / times["int8"])) if "int8" in times else None,
        judged=judged,
        gflop_trained=None if trained is None else trained / 1e9,
        gflop_executed=executed / 1e9,
        gemm_gflop_per_second=float(np.median(rates)) / 1e9,
        sha256=hashlib.sha256(data).hexdigest(),
        forms=forms,
    )


def _inputs(session: Session, scan: Scan | None, batch: int) -> tuple[NDArray, ...]:
    """A batch: measured if there is a scan; speed does not depend on the values, agreement does."""
    contract = session.contract
    if scan is None:
        random = np.random.default_rng(_PATTERN_SEED)
        return tuple(
            random.gamma(1.0, 10.0, (batch, *each.shape)).astype(np.float32) for each in contract.inputs
        )
    groups = nearest_groups(scan.positions, contract.channels)
    return network_inputs(contract, session.name, scan, groups.take(range(batch), axis=0, mode="wrap"))


def _eight_bit(path: Path, scan: Scan, gate: Gate) -> tuple[bytes | None, str]:
    """The 8-bit artifact, calibrated on a scan, that the gate accepts, and what was reduced."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / path.name
        try:
            made = reduce_artifact(path, out, "int8", scan, gate)
        except VerificationError as error:
            return None, f"refused: {error}"
        kept = len(made.contract.conversion.float_layers)
        return out.read_bytes(), f"accepted, {len(made.layers) - kept} of {len(made.layers)} layers reduced"


def _bfloat16(path: Path, gate: Gate, threads: int) -> str:
    """What the gate says of the artifact in OpenVINO, in bfloat16."""
    try:
        gate.weigh(path, OpenVinoSession(path, "bf16", threads))
    except VerificationError as error:
        return f"refused: {error}"
    return "accepted"


def _error(output: NDArray[np.float32] | None, expected: NDArray[np.float32] | None) -> float:
    assert output is not None
    assert expected is not None
    return float(np.abs(output - expected).max() / np.abs(expected).max())


def _form(
    seconds: NDArray[np.float64],
    artifact: NDArray[np.float64],
    compiled: NDArray[np.float64] | None,
    error: float,
    right: bool | None,
) -> FormSpeed:
    """Seconds a pattern in each round: of the form, of the artifact, of the best compiled form."""
    low, middle, high = (float(value) for value in np.percentile(1e3 * seconds, [25, 50, 75]))
    under, ratio, over = (float(value) for value in np.percentile(seconds / artifact, [25, 50, 75]))
    return FormSpeed(
        milliseconds=middle,
        spread=(low, high),
        over_artifact=ratio,
        over_artifact_spread=(under, over),
        speedup_compiled=None if compiled is None else float(np.median(compiled / seconds)),
        relative_error=error,
        right=right,
    )
