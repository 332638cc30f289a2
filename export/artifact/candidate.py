"""From a converted graph to a published artifact: the stages that every artifact passes, in this order.

1. clean: graph passes remove what exporters leave behind, and a variant (counts, fixed batch) may follow;
2. check: the graph is valid, uses standard operators only, and runs on every required target;
3. verify: its outputs agree with those of the native network in every installed engine;
4. stamp: a contract (or the description of a module) with the hash of the graph and a reference pair;
5. publish: written to a temporary name, read back, run again, and renamed, with the report next to it.

A graph that fails verification leaves a refusal report and no artifact. Export of a run, export of a module and
adoption only build a `Candidate`; reduced precision publishes with `publication.publish` what its gate accepted.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic

import onnx

from ptychonnx.export.artifact.publication import Stamp, check_name, publish
from ptychonnx.export.graph.inspection import check_graph
from ptychonnx.export.portability import require
from ptychonnx.export.verification.engines import installed_engines
from ptychonnx.export.verification.first_difference import difference_locator
from ptychonnx.export.verification.inputs import VerificationInputs
from ptychonnx.export.verification.report_files import with_report, write_refusal
from ptychonnx.export.verification.verification_report import DECIDING_ENGINES, VerificationReport
from ptychonnx.export.verification.verify import BATCHES, TOLERANCE, Predict, verify
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.train.run import LayerOutput

__all__ = ["Candidate", "VerifiedGraph", "release", "verify_candidate"]


@dataclass(frozen=True)
class VerifiedGraph:
    """A graph that passed verification, and the passes that changed something, in order."""

    cleaned: onnx.ModelProto  # after the passes, before the variant
    model: onnx.ModelProto  # to be published
    passes: list[str]
    report: VerificationReport


@dataclass(frozen=True)
class Candidate(Generic[Stamp]):
    """A graph that becomes an artifact if it passes every stage, with everything that the stages need.

    * `label`: name in reports.
    * `model`: the graph as it was converted; left as it is.
    * `inputs`: names of the graph's inputs, in order.
    * `native`: the native network, by the name of the output that it computes; the names of the graph's outputs, in
      order.
    * `verification_inputs`: what both are run on; the first kind sets the scale.
    * `stamp`: describes a graph that passed verification; without hash and reference pair.
    * `layers`: outputs of the native network's layers, to name the first layer that differs.
    * `batch`: the only batch size that the graph takes; None if any.
    * `batches`: batch sizes that are compared if it takes any.
    * `tolerance`: largest relative error.
    * `passes`: whether the graph is cleaned.
    * `variant`: applied to the cleaned graph, such as `graph_variants.counts_input`.
    * `defaults`: names of further inputs, for which `variant` adds defaults.
    * `targets`: targets on which every node must run, see `ptychonnx.export.portability`.
    * `deciding_engines`: engines whose names start with this decide about publication.
    * `without_batch`: inputs and outputs whose first axis is not the batch.
    * `exact`: the network in float64, like `native`; empty if unknown. See
      `ptychonnx.export.verification.conditioning`.
    * `any_output`: whether NaN, infinity and zeros are no faults if the network returns them too.
    """

    label: str
    model: onnx.ModelProto
    inputs: Sequence[str]
    native: Mapping[str, Predict]
    verification_inputs: Sequence[VerificationInputs]
    stamp: Callable[[VerifiedGraph], Stamp]
    layers: Callable[..., Sequence[LayerOutput]] = lambda *inputs: []
    batch: int | None = None
    batches: Sequence[int] = BATCHES
    tolerance: float = TOLERANCE
    passes: bool = True
    variant: Callable[[onnx.ModelProto], onnx.ModelProto] = lambda model: model
    defaults: Sequence[str] = ()
    targets: Sequence[str] = ()
    deciding_engines: str = DECIDING_ENGINES
    without_batch: Collection[str] = ()
    exact: Mapping[str, Predict] = field(default_factory=dict)
    any_output: bool = False


def release(
    candidate: Candidate[Stamp], out: Path, progress: Progress = SILENT
) -> tuple[Stamp, VerificationReport]:
    """Take a candidate through all stages, and write `out`; the stamp in it, and everything that was compared.

    Raises InputError if the name of `out` does not end in ``.onnx``. Raises VerificationError if the candidate fails a
    stage; no artifact is written.

    `out`: file to write; it appears complete and verified, or not at all. ``<stem>.verification.json`` and ``.txt``
    appear next to it, or ``<stem>.refused.json`` and ``.txt`` if verification fails.
    """
    out = check_name(out)
    verified = verify_candidate(candidate, out, progress)
    with with_report(verified.report, out):
        stamp = publish(verified.model, candidate.stamp(verified), out)
    return stamp, verified.report


def verify_candidate(candidate: Candidate[Stamp], out: Path, progress: Progress = SILENT) -> VerifiedGraph:
    """The stages up to verification; a refusal report is written next to `out` if the candidate fails.

    Raises VerificationError if the candidate fails a stage.
    """
    progress.stage(f"Cleaning the graph of {candidate.label}")
    cleaned, passes = _clean(candidate)
    model = candidate.variant(cleaned)
    data = model.SerializeToString(deterministic=True)
    check_graph(
        data,
        inputs=candidate.inputs,
        outputs=list(candidate.native),
        batch=candidate.batch,
        without_batch=candidate.without_batch,
        defaults=candidate.defaults,
    )
    for target in candidate.targets:
        require(model, target)
    report = _verify(candidate, data, progress)
    if report.refusals:
        report.raise_on_refusal(f"; all figures are in {write_refusal(report, out)}")
    return VerifiedGraph(cleaned, model, passes, report)


def _clean(candidate: Candidate) -> tuple[onnx.ModelProto, list[str]]:
    if not candidate.passes:
        return candidate.model, []
    # The passes need onnxscript, which comes with the frameworks.
    cleaned = importlib.import_module("ptychonnx.export.passes").clean(candidate.model)
    return cleaned.model, cleaned.passes


def _verify(candidate: Candidate, data: bytes, progress: Progress) -> VerificationReport:
    """Compare every output separately, since outputs may differ in size."""
    progress.stage(f"Verifying {candidate.label}", len(candidate.native), "outputs")
    batches = candidate.batches if candidate.batch is None else (candidate.batch,)
    several = len(candidate.native) > 1
    reports = []
    for output, native in candidate.native.items():
        single = _with_single_output(data, output) if several else data
        report = verify(
            candidate.label,
            {engine: partial(load, single) for engine, load in installed_engines().items()},
            native,
            candidate.verification_inputs,
            tolerance=candidate.tolerance,
            batches=batches,
            locate=difference_locator(single, candidate.layers, candidate.tolerance),
            decide=candidate.deciding_engines,
            exact=candidate.exact.get(output),
            any_output=candidate.any_output,
        )
        if several:
            named = [case.model_copy(update={"output": output}) for case in report.cases]
            report = report.model_copy(update={"cases": named})
        reports.append(report)
        progress.update(len(reports))
    return reports[0].model_copy(
        update={
            "cases": [case for report in reports for case in report.cases],
            "first_difference": next(filter(None, (report.first_difference for report in reports)), None),
        }
    )


def _with_single_output(data: bytes, name: str) -> bytes:
    model = onnx.load_from_string(data)
    kept = [value for value in model.graph.output if value.name == name]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return model.SerializeToString(deterministic=True)
