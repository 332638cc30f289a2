"""Export: from a run folder to one verified ONNX file that carries its contract."""

from __future__ import annotations

import importlib
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.artifact.candidate import Candidate, VerifiedGraph, release, verify_candidate
from ptychonnx.export.artifact.export_options import ExportOptions
from ptychonnx.export.artifact.export_result import ExportResult
from ptychonnx.export.artifact.graph_variants import counts_input, fix_batch
from ptychonnx.export.artifact.publication import check_name, publish
from ptychonnx.export.artifact.reduce_artifact import QualityGate, reduce_artifact
from ptychonnx.export.graph.inspection import operators
from ptychonnx.export.graph.opset import opset_of, to_opset
from ptychonnx.export.graph.tensor_names import INPUT_NAME, OFFSETS_NAME, OUTPUT_NAME
from ptychonnx.export.lowering.converted_graph import Converted
from ptychonnx.export.verification.engines import open_onnxruntime
from ptychonnx.export.verification.inputs import (
    VerificationInputs,
    amplitude_inputs,
    count_inputs,
    with_offsets,
)
from ptychonnx.export.verification.report_files import write_report
from ptychonnx.export.verification.trained_weights import prove_weights
from ptychonnx.export.verification.verify import relative_difference
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
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import group_offsets, nearest_groups
from ptychonnx.train.dataset import SCALE_RULE
from ptychonnx.train.registry import get_architecture
from ptychonnx.train.run import LayerOutput, NativeNetwork, RunRecord, held_out_scan, read_run
from ptychonnx.train.trained_network import initial_network, load_network

__all__ = ["export_run"]

_COMPARED_PATTERNS = 20


def export_run(
    run: Path,
    out: Path,
    options: ExportOptions | None = None,
    *,
    gate: QualityGate | None = None,
    calibration: Scan | None = None,
    final_steps: int | None = None,
    progress: Progress = SILENT,
) -> ExportResult:
    """Convert the trained network of a run folder, verify it, and write `out`.

    Parameters
    ----------
    run
        Folder written by training.
    out
        File to write; it appears complete and verified, or not at all. ``<stem>.verification.json`` and
        ``.txt`` appear next to it, or ``<stem>.refused.json`` and ``.txt`` if verification fails.
    options
        Kind of artifact; by default it is in float32, takes amplitudes, and batches of any size.
    gate, calibration
        For a lower precision: the gate that accepts or refuses the quality of its reconstructions, and the scan whose
        patterns set the ranges of values (the held-out patterns of the run by default). See
        `ptychonnx.export.artifact.reduce_artifact`.
    final_steps
        Steps of phase retrieval after the network, in the artifact and in the native network that it is compared
        with; as trained by default.
    progress
        Receives the stages.

    Raises
    ------
    InputError
        If the folder is not a finished run, or its network has no final steps to choose.
    UnsupportedError
        If the network cannot be converted.
    VerificationError
        If the artifact fails a check; nothing is written.
    """
    out, options = check_name(out), options or ExportOptions()
    record = read_run(run)
    if final_steps is not None:
        record = record.with_final_steps(final_steps)
    if options.precision != "fp32" and gate is None:
        raise InputError(f"precision {options.precision} needs a gate that judges reconstructions")
    source = _Source(record, load_network(run, record), initial_network(run, record), held_out_scan(run))
    progress.stage(f"Converting {record.label}")
    candidate = _candidate(source, options)
    if options.precision == "fp32":
        published = release(candidate, out, progress)
        return ExportResult(out, published.stamp, published.report)
    assert gate is not None
    verified = verify_candidate(candidate, out, progress)
    with tempfile.TemporaryDirectory() as folder:
        parent = Path(folder) / out.name
        publish(verified.model, candidate.stamp(verified), parent)
        reduced = reduce_artifact(
            parent,
            out,
            options.precision,
            calibration or source.scan,
            gate,
            require=options.require,
            progress=progress,
        )
    write_report(verified.report, out)
    return ExportResult(out, reduced.contract, verified.report, reduced)


@dataclass(frozen=True)
class _Source:
    """A finished run: its network with trained and with initial weights, and patterns that training did not see."""

    record: RunRecord
    network: NativeNetwork
    initial: NativeNetwork
    scan: Scan

    @property
    def takes_offsets(self) -> bool:
        return get_architecture(self.record.architecture).takes_offsets(self.record.network)

    def example(self) -> tuple[NDArray[np.float32], ...]:
        """Every input of the network, for some held-out groups."""
        groups = nearest_groups(self.scan.positions, self.record.network.channels)[:_COMPARED_PATTERNS]
        diffraction = self.scan.diffraction[groups]
        if not self.takes_offsets:
            return (diffraction,)
        return diffraction, group_offsets(self.scan.positions, groups)

    def amplitude(self, patterns: NDArray) -> NDArray[np.float32]:
        """What the native network takes, from amplitudes or counts."""
        if patterns.dtype != np.uint16:
            return patterns
        counts = patterns if self.scan.mask is None else patterns * self.scan.mask
        return np.sqrt(counts.astype(np.float32))

    def predict(self, patterns: NDArray, *offsets: NDArray) -> NDArray:
        return self.network.predict(self.amplitude(patterns), *offsets)

    def layers(self, patterns: NDArray, *offsets: NDArray) -> list[LayerOutput]:
        return self.network.layers(self.amplitude(patterns), *offsets)


def _candidate(source: _Source, options: ExportOptions) -> Candidate[Contract]:
    record, example = source.record, source.example()
    # Imported here, and the framework with it.
    converter = importlib.import_module(f"ptychonnx.export.lowering.{record.framework}.convert")
    converted: Converted = converter.convert_network(source.network, *example, opset=options.opset)
    return Candidate(
        label=record.label,
        model=to_opset(converted.model, options.opset),
        inputs=(INPUT_NAME, OFFSETS_NAME)[: len(example)],
        native={OUTPUT_NAME: source.predict},
        verification_inputs=_verification_inputs(source, example, options),
        stamp=partial(_contract, source, converted, example, options),
        layers=source.layers,
        batch=options.batch,
        tolerance=options.tolerance,
        variant=partial(_variant, options=options, mask=source.scan.mask),
        targets=options.require if options.precision == "fp32" else (),
    )


def _variant(
    model: onnx.ModelProto, options: ExportOptions, mask: NDArray[np.bool_] | None
) -> onnx.ModelProto:
    if options.input == "counts":
        model = counts_input(model, mask)
    return model if options.batch is None else fix_batch(model, options.batch)


def _verification_inputs(
    source: _Source, example: tuple[NDArray[np.float32], ...], options: ExportOptions
) -> list[VerificationInputs]:
    diffraction, *offsets = example
    origin = f"{len(diffraction)} patterns of {source.record.scan} that training did not see"
    inputs = (count_inputs if options.input == "counts" else amplitude_inputs)(diffraction, origin)
    return with_offsets(inputs, *offsets) if offsets else inputs


def _contract(
    source: _Source,
    converted: Converted,
    example: tuple[NDArray[np.float32], ...],
    options: ExportOptions,
    verified: VerifiedGraph,
) -> Contract:
    """The contract; the weights are proved on the graph before counts and a fixed batch go into it."""
    record, scan = source.record, source.scan
    engine = open_onnxruntime(verified.cleaned.SerializeToString(deterministic=True))
    distance = relative_difference(source.initial.predict(*example), engine(*example))
    return Contract(
        label=record.label,
        architecture=record.architecture,
        n=record.network.n,
        gridsize=record.network.gridsize,
        batch=options.batch,
        input=NetworkInput(
            domain=options.input,
            dtype="uint16" if options.input == "counts" else "float32",
            scale=record.scale,
            scale_rule=SCALE_RULE,
        ),
        offsets=OffsetsInput(name=OFFSETS_NAME) if source.takes_offsets else None,
        # One object explains all patterns of a group, up to a phase that they do not determine.
        stitching=Stitching(synchronise=source.takes_offsets),
        probe=TrainingProbe(
            sha256=record.probe_sha256,
            modes=0 if scan.probe is None else len(scan.probe),
            flux=record.flux,
        ),
        provenance=_provenance(record),
        conversion=Conversion(
            exporter=converted.exporter,
            opset=opset_of(verified.model),
            ir_version=verified.model.ir_version,
            lowering=converted.lowering_text(),
            final_steps=record.final_steps,
            passes=verified.passes,
            operators_before=dict(sorted(operators(converted.model).items())),
        ),
        parity=verified.report.parity(),
        weights=prove_weights(
            record, source.network.tensors(), verified.cleaned, distance, options.tolerance
        ),
    )


def _provenance(record: RunRecord) -> Provenance:
    return Provenance(
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
    )
