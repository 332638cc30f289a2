"""Measurements of one artifact on one provider: nodes, parity, rates, a whole reconstruction, kernels."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.artifact.graph_variants import fix_batch
from ptychonnx.export.artifact.publication import stamped_bytes
from ptychonnx.export.artifact.reduce_artifact import reduce_artifact
from ptychonnx.export.verification.verify import relative_difference
from ptychonnx.harness.bench.interleaved import interleaved_times, timed
from ptychonnx.harness.bench.measuring_process import MeasuringProcess
from ptychonnx.harness.bench.native_variants import load_native
from ptychonnx.harness.campaign.scan_run import Networks, RunOptions, reconstruct_scan
from ptychonnx.harness.evaluation.precision_gate import PrecisionGate
from ptychonnx.harness.gpu.device import memory_used
from ptychonnx.runtime.contract import Quality
from ptychonnx.runtime.contract.integrity import graph_sha256
from ptychonnx.runtime.errors import PtychonnxError
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.inference.onnxruntime_session import fallback_line, open_session
from ptychonnx.runtime.inference.providers import ProviderRequest
from ptychonnx.runtime.machine import available_cores
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import nearest_groups

__all__ = ["NetworkCheck"]

_ROUNDS = 5
_LARGEST_NODES = 10
# Patterns on which outputs are compared.
_COMPARED = 16


@dataclass
class NetworkCheck:
    """One artifact on one provider.

    * `path`, `provider`: the artifact, and where it runs.
    * `scan`: scan with a reference, for which it was made.
    * `batches`: batches to measure, in ascending order.
    * `run`: its run folder, for its own framework.
    """

    path: Path
    provider: str
    scan: Scan
    batches: Sequence[int]
    run: Path | None

    @cached_property
    def on_cuda(self) -> bool:
        """Whether a CUDA provider runs it."""
        return Session(self.path, self.provider).provider == "CUDAExecutionProvider"

    @cached_property
    def _on_cpu(self) -> Session:
        return Session(self.path, "cpu")

    def nodes(self) -> dict[str, Any]:
        """Nodes in the file, nodes after onnxruntime's fusions by provider, and what falls back to the CPU."""
        began = time.perf_counter()
        session = Session(self.path, self.provider)
        loaded = time.perf_counter() - began
        return {
            "provider": session.provider,
            "load_seconds": loaded,
            "nodes_in_file": len(onnx.load(self.path).graph.node),
            "nodes_by_provider": {name: kinds.total() for name, kinds in session.placement().items()},
            "on_the_cpu": fallback_line(self.path, session._session),
        }

    def parity(self) -> dict[str, Any]:
        """Largest difference from float32 on the CPU, over the largest output: float32, and TF32."""
        variants = {"fp32": (self.path, self.provider)}
        if self.on_cuda:
            variants["fp32, TF32"] = (self.path, "cuda:tf32")
        return self._compare(variants)

    def precision(self) -> dict[str, Any]:
        """The same for lower precision, also judged by a reconstruction, as `ptychonnx export --precision fp16` does.

        Converting and judging take longest of all steps, most of it on the CPU.
        """
        gate = PrecisionGate(self.scan)
        variants: dict[str, tuple[Path, str]] = {}
        failed: dict[str, Any] = {}
        if self.provider == "openvino":
            variants["bfloat16"] = (self.path, "openvino:bfloat16")
        with tempfile.TemporaryDirectory() as folder:
            half = Path(folder) / self.path.name
            try:
                reduce_artifact(self.path, half, "fp16", self.scan, self._unjudged)
                variants["fp16"] = (half, self.provider)
            except PtychonnxError as error:
                failed["fp16"] = {"error": str(error)}
            return self._compare(variants, gate) | failed

    def _compare(
        self, variants: Mapping[str, tuple[Path, str]], gate: PrecisionGate | None = None
    ) -> dict[str, Any]:
        """Differences of artifacts on providers from this one in float32 on the CPU, by name."""
        inputs = self._inputs(_COMPARED)
        expected = self._on_cpu.predict(*inputs)
        result: dict[str, Any] = {}
        for name, (path, provider) in variants.items():
            try:
                session = Session(path, provider)
                output = session.predict(*inputs)
                if not np.isfinite(output).all():
                    result[name] = {"error": "the output holds values that are not finite"}
                    continue
                result[name] = {"relative_error": relative_difference(output, expected)}
                if gate is not None:
                    result[name]["verdict"] = gate.verdict(self.path, session)
            except PtychonnxError as error:
                result[name] = {"error": str(error)}
        return result

    def _unjudged(self, parent: Path, candidate: Path) -> Quality:
        """Accept every layer: what half precision costs is judged where it runs."""
        digest = self._on_cpu.contract.graph_sha256 or graph_sha256(onnx.load(parent))
        return Quality(parent_sha256=digest, scan="not judged", parent={}, artifact={}, allowed_fall={})

    def rates(self, until: float) -> dict[str, Any]:
        """Patterns per second over batches: with copies to and from the device, without, and in a fixed batch.

        A fixed batch is replayed as a CUDA graph where there is CUDA. A batch that does not fit into the memory, or
        that would take beyond `until`, by `time.monotonic`, ends the series.
        """
        session = Session(self.path, self.provider, bound=None if self.on_cuda else self.provider == "cpu")
        rows: list[dict[str, Any]] = []
        ended = None
        slowest = 0.0
        for batch in self.batches:
            if rows:
                slowest = max(1 / rate for rate in rows[-1]["patterns_per_second"].values())
            if time.monotonic() + 2 * _ROUNDS * 4 * slowest * batch > until:
                ended = f"batch {batch} and larger: time"
                break
            row = self._rate(session, batch)
            rows.append(row)
            if session.largest_batch is not None:
                ended = f"batch {batch}: memory holds {session.largest_batch}"
                break
        return {"batches": rows, "ended": ended}

    def _rate(self, session: Session, batch: int) -> dict[str, Any]:
        inputs = self._inputs(batch)
        variants = {"with copies": partial(timed, partial(session.predict, *inputs))}
        session.predict(*inputs)
        if session.repeat(batch):
            variants["without copies"] = partial(timed, partial(session.repeat, batch))
        row: dict[str, Any] = {"batch": batch}
        with tempfile.TemporaryDirectory() as folder:
            try:
                fixed = self._fixed(Path(folder), batch)
                fixed.predict(*inputs)
                name = "CUDA graph" if self.on_cuda else "fixed batch"
                variants[f"{name}, with copies"] = partial(timed, partial(fixed.predict, *inputs))
                if fixed.repeat(batch):
                    variants[f"{name}, without copies"] = partial(timed, partial(fixed.repeat, batch))
            except PtychonnxError as error:
                row["fixed_batch_error"] = str(error)
            times = interleaved_times(variants, _ROUNDS, rest=0.0)
        row["patterns_per_second"] = {
            name: batch / float(np.median(seconds)) for name, seconds in times.items()
        }
        row["memory_mb"] = memory_used(self.on_cuda)
        return row

    def _fixed(self, folder: Path, batch: int) -> Session:
        """The artifact for one size of batch, which a CUDA graph needs."""
        contract = self._on_cpu.contract
        cleared = dict.fromkeys(("graph_sha256", "parity", "weights", "reference"))
        path = folder / self.path.name
        path.write_bytes(
            stamped_bytes(
                fix_batch(onnx.load(self.path), batch),
                contract.model_copy(update={"batch": batch, **cleared}),
            )
        )
        provider = "cuda-graph" if self.on_cuda else self.provider
        return Session(path, provider, bound=None if self.on_cuda else self.provider == "cpu")

    def end_to_end(self, batch: int) -> dict[str, Any]:
        """Seconds and patterns per second from a scan file to the file of the object, after one run that warms up."""
        options = RunOptions(inference=InferenceOptions(provider=self.provider, batch=batch))
        seconds = []
        with tempfile.TemporaryDirectory() as folder, Networks(self.path, options.inference) as networks:
            source, out = Path(folder) / "scan.npz", Path(folder) / "object.h5"
            write_scan(source, self.scan)
            for _ in range(3):
                began = time.perf_counter()
                run = reconstruct_scan(networks, options.read(source), options, out)
                seconds.append(time.perf_counter() - began)
        best = min(seconds[1:])
        return {
            "batch": batch,
            "patterns": run.result.patterns,
            "seconds": best,
            "patterns_per_second": run.result.patterns / best,
            "misfit": None if run.result.misfit is None else str(run.result.misfit),
        }

    def native(self, batch: int) -> dict[str, Any]:
        """Patterns per second of the network in its own framework, eager and compiled, next to the artifact's."""
        assert self.run is not None
        session = Session(self.path, self.provider)
        inputs = self._inputs(batch)
        device = "cuda" if self.on_cuda else "cpu"
        load = partial(
            load_native, self.run, inputs, available_cores(), session.contract.conversion.final_steps, device
        )
        with MeasuringProcess(load, available_cores()) as process:
            variants: dict[str, Callable[[], float]] = {
                name: partial(process.time, name) for name in process.outputs
            }
            variants["artifact"] = partial(timed, partial(session.predict, *inputs))
            times = interleaved_times(variants, _ROUNDS)
        rates = {name: batch / float(np.median(seconds)) for name, seconds in times.items()}
        return {"batch": batch, "device": device, "patterns_per_second": rates}

    def kernels(self, batch: int) -> dict[str, Any]:
        """Nodes that onnxruntime starts for a batch, and the ten that take longest (medians), by its own profiler."""
        with tempfile.TemporaryDirectory() as folder:
            request = ProviderRequest.parse(self.provider)
            session = open_session(self.path, request, profile=Path(folder) / "profile")
            inputs = self._inputs(batch)
            feed = dict(zip((value.name for value in session.get_inputs()), inputs, strict=True))
            for _ in range(_ROUNDS):
                session.run(None, feed)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        first = min(event["ts"] + event["dur"] for event in events if event.get("name") == "model_run")
        times: dict[tuple[str, str], list[float]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= first:
                name = event["name"].removesuffix("_kernel_time")
                times.setdefault((name, event["args"]["op_name"]), []).append(event["dur"] / 1e3)
        milliseconds = {node: float(np.median(spent)) for node, spent in times.items()}
        total = sum(milliseconds.values()) or 1.0
        largest = sorted(milliseconds, key=lambda node: -milliseconds[node])[:_LARGEST_NODES]
        return {
            "batch": batch,
            "launches": len(milliseconds),
            "milliseconds": total,
            "largest": [
                {"node": node[0], "operator": node[1], "share": milliseconds[node] / total}
                for node in largest
            ],
        }

    def _inputs(self, batch: int) -> tuple[NDArray, ...]:
        groups = nearest_groups(self.scan.positions, self._on_cpu.contract.channels)
        return self._on_cpu.inputs(self.scan, groups.take(range(batch), axis=0, mode="wrap"))
