"""From a run folder to one verified, self-describing ONNX file."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.artifact.export_options import ExportOptions
from ptychonnx.export.artifact.publication import publish
from ptychonnx.export.artifact.variants import counts_input, fix_batch
from ptychonnx.export.graph.inspection import check_graph, operators
from ptychonnx.export.graph.opset import opset_of, to_opset
from ptychonnx.export.lowering.converted_graph import INPUT_NAME, OFFSETS_NAME, Converted
from ptychonnx.export.portability import require
from ptychonnx.export.precision import Judge, ReducedArtifact, reduce_artifact
from ptychonnx.export.verification.engines import installed_engines, open_onnxruntime
from ptychonnx.export.verification.first_difference import locate
from ptychonnx.export.verification.inputs import amplitude_trials, count_trials, with_offsets
from ptychonnx.export.verification.trained_weights import prove_weights
from ptychonnx.export.verification.verdict import verdict
from ptychonnx.export.verification.verification_report import write_refusal, write_report
from ptychonnx.export.verification.verify import (
    BATCHES,
    Predict,
    VerificationReport,
    parity_of,
    relative_difference,
    verify,
)
from ptychonnx.runtime.contract import (
    Contract,
    Conversion,
    NetworkInput,
    OffsetsInput,
    Provenance,
    Stitching,
    TrainingProbe,
)
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import group_offsets, nearest_groups
from ptychonnx.train.dataset import SCALE_RULE
from ptychonnx.train.registry import get_architecture
from ptychonnx.train.run import NativeNetwork, RunRecord, held_out_scan, read_run
from ptychonnx.train.trained_network import initial_network, load_network

__all__ = ["ExportResult", "export_network", "export_run"]

_COMPARED = 20


@dataclass(frozen=True)
class ExportResult:
    """A published artifact.

    Attributes
    ----------
    path
        The file.
    contract
        What was stamped into it.
    report
        Everything that was compared; it stands beside the file too. Of the float32 graph if the precision is
        a lower one.
    reduced
        What a lower precision left in float32, and what it cost.
    """

    path: Path
    contract: Contract
    report: VerificationReport
    reduced: ReducedArtifact | None = None

    def verdict(self) -> list[str]:
        """What was compared, on which inputs, and how well it agreed, as lines of text."""
        lines = verdict(self.contract, self.report)
        return lines if self.reduced is None else lines + self.reduced.lines()


def export_run(
    run: Path,
    out: Path,
    options: ExportOptions | None = None,
    *,
    judge: Judge | None = None,
    calibration: Scan | None = None,
    final_steps: int | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> ExportResult:
    """Convert the trained network of a run folder, verify it, and write `out`.

    Parameters
    ----------
    run
        Folder written by training.
    out
        File to write; it appears complete and verified, or not at all. ``<stem>.verification.json`` and
        ``.txt`` appear beside it, or ``<stem>.refused.json`` and ``.txt`` if verification fails.
    options
        What to make; a dynamic float32 artifact that takes amplitudes if None.
    judge, calibration
        For a lower precision: who decides whether it is good enough, and the scan whose patterns set the
        ranges; the held-out patterns of the run if None. See `ptychonnx.export.precision.reduce_artifact`.
    final_steps
        Last steps of phase retrieval of the artifact, and of the native network that it is compared with; as many as
        the run says if None.
    progress
        Called with what is done next, in words.

    Raises
    ------
    InputError
        If the folder is no finished run, or its network cannot be converted or has no last steps to choose.
    VerificationError
        If the artifact fails a check; nothing is written.
    """
    record = read_run(run)
    if final_steps is not None:
        record = record.with_final_steps(final_steps)
    scan = held_out_scan(run)
    initial = initial_network(run, record)
    return export_network(
        record,
        load_network(run, record),
        initial,
        scan,
        out,
        options,
        judge=judge,
        calibration=calibration,
        progress=progress,
    )


def export_network(
    record: RunRecord,
    network: NativeNetwork,
    initial: NativeNetwork,
    scan: Scan,
    out: Path,
    options: ExportOptions | None = None,
    *,
    judge: Judge | None = None,
    calibration: Scan | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> ExportResult:
    """Like `export_run`, with everything loaded.

    Parameters
    ----------
    network, initial
        With the trained and with the initial weights.
    scan
        Patterns that training did not see, with the probe.
    """
    out, options = Path(out), options or ExportOptions()
    if out.suffix != ".onnx":
        raise InputError(f"{out}: expected a name that ends in .onnx")
    if options.precision != "fp32" and judge is None:
        raise InputError(f"precision {options.precision} needs a judge of reconstructions")
    groups = nearest_groups(scan.positions, record.network.channels)[:_COMPARED]
    diffraction = scan.diffraction[groups]
    takes_offsets = get_architecture(record.architecture).takes_offsets(record.network)
    offsets = group_offsets(scan.positions, groups)
    example = (diffraction, offsets) if takes_offsets else (diffraction,)
    origin = f"{len(diffraction)} patterns of {record.scan} that training did not see"

    # Imported here, and with it the framework.
    converter = importlib.import_module(f"ptychonnx.export.lowering.{record.framework}.convert")
    converted: Converted = converter.convert_network(network, *example, opset=options.opset)
    # Needs onnx-ir, which comes with the frameworks.
    cleaned = importlib.import_module("ptychonnx.export.passes").clean(
        to_opset(converted.model, options.opset)
    )
    model: onnx.ModelProto = cleaned.model

    published = vary(model, options, scan)
    data = published.SerializeToString(deterministic=True)
    check_graph(data, inputs=(INPUT_NAME, OFFSETS_NAME)[: len(example)], batch=options.batch)
    native = _native(network, options, scan)
    trials = (count_trials if options.input == "counts" else amplitude_trials)(diffraction, origin)
    if takes_offsets:
        trials = with_offsets(trials, offsets)
    report = verify(
        record.label,
        {name: partial(load, data) for name, load in installed_engines().items()},
        native,
        trials,
        tolerance=options.tolerance,
        batches=BATCHES if options.batch is None else (options.batch,),
        locate=locate(
            data, lambda given, *rest: network.layers(_amplitude(given, scan), *rest), options.tolerance
        ),
    )
    if report.refusals:
        report.raise_on_refusal(f"; all figures are in {write_refusal(report, out)}")
    engine = open_onnxruntime(model.SerializeToString(deterministic=True))
    distance = relative_difference(initial.predict(*example), engine(*example))
    contract = _contract(
        record, scan, converted, published, cleaned.passes, options, takes_offsets=takes_offsets
    ).model_copy(
        update={
            "parity": parity_of(report),
            "weights": prove_weights(record, network.tensors(), model, distance, options.tolerance),
        }
    )
    if options.precision == "fp32":
        for target in options.require:
            require(published, target)
        contract = publish(published, contract, out)
        write_report(report, out)
        return ExportResult(out, contract, report)
    assert judge is not None
    with tempfile.TemporaryDirectory() as folder:
        parent = Path(folder) / out.name
        publish(published, contract, parent)
        reduced = reduce_artifact(
            parent,
            out,
            options.precision,
            calibration or scan,
            judge,
            require=options.require,
            progress=progress,
        )
    write_report(report, out)
    return ExportResult(out, reduced.contract, report, reduced)


def vary(model: onnx.ModelProto, options: ExportOptions, scan: Scan) -> onnx.ModelProto:
    """The variant of a dynamic graph of amplitudes that was asked for."""
    if options.input == "counts":
        model = counts_input(model, scan.mask)
    return model if options.batch is None else fix_batch(model, options.batch)


def _amplitude(inputs: NDArray, scan: Scan) -> NDArray[np.float32]:
    if inputs.dtype != np.uint16:
        return inputs
    counts = inputs if scan.mask is None else inputs * scan.mask
    return np.sqrt(counts.astype(np.float32))


def _native(network: NativeNetwork, options: ExportOptions, scan: Scan) -> Predict:
    if options.input == "amplitude":
        return network.predict
    return lambda given, *rest: network.predict(_amplitude(given, scan), *rest)


def _contract(
    record: RunRecord,
    scan: Scan,
    converted: Converted,
    model: onnx.ModelProto,
    passes: list[str],
    options: ExportOptions,
    *,
    takes_offsets: bool,
) -> Contract:
    counts = options.input == "counts"
    return Contract(
        label=record.label,
        architecture=record.architecture,
        n=record.network.n,
        gridsize=record.network.gridsize,
        batch=options.batch,
        input=NetworkInput(
            domain=options.input,
            dtype="uint16" if counts else "float32",
            scale=record.scale,
            scale_rule=SCALE_RULE,
        ),
        offsets=OffsetsInput(name=OFFSETS_NAME) if takes_offsets else None,
        # One object explains the patterns of a group, up to a phase that nothing in them fixes.
        stitching=Stitching(synchronise=takes_offsets),
        probe=TrainingProbe(
            sha256=record.probe_sha256,
            modes=0 if scan.probe is None else len(scan.probe),
            flux=record.flux,
        ),
        provenance=Provenance(
            framework=record.framework,
            versions=record.versions,
            git_commit=record.git_commit,
            spectral_operator=record.spectral_operator,
            parameters=record.parameters,
            training_data_sha256=record.data_sha256,
            seed=record.training.seed,
            epochs=record.epochs_done,
            loss=record.loss_name,
            final_loss=record.final_loss,
        ),
        conversion=Conversion(
            exporter=converted.exporter,
            opset=opset_of(model),
            ir_version=model.ir_version,
            lowering=converted.lowering_text(),
            final_steps=record.final_steps,
            passes=passes,
            operators_before=dict(sorted(operators(converted.model).items())),
        ),
    )
