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
from ptychonnx.export.artifact.graph_variants import (
    TRACED_MODES,
    any_modes,
    counts_input,
    fix_batch,
    with_defaults,
)
from ptychonnx.export.artifact.publication import check_name, publish
from ptychonnx.export.artifact.reduce_artifact import QualityGate, ReducedArtifact, reduce_artifact
from ptychonnx.export.artifact.run_source import RunSource, WithDefaults, check_size, resized
from ptychonnx.export.artifact.trained_beams import trained_beams
from ptychonnx.export.graph.inspection import operators
from ptychonnx.export.graph.opset import opset_of, to_opset
from ptychonnx.export.graph.tensor_names import INPUT_NAME, OFFSETS_NAME, OUTPUT_NAME
from ptychonnx.export.lowering.converted_graph import Converted
from ptychonnx.export.verification.beam_inputs import with_beams
from ptychonnx.export.verification.engines import open_onnxruntime
from ptychonnx.export.verification.inputs import (
    VerificationInputs,
    amplitude_inputs,
    count_inputs,
    with_offsets,
)
from ptychonnx.export.verification.report_files import with_report
from ptychonnx.export.verification.trained_weights import prove_weights
from ptychonnx.export.verification.verdict import verdict
from ptychonnx.export.verification.verification_report import VerificationReport
from ptychonnx.export.verification.verify import BATCHES, relative_difference
from ptychonnx.runtime.contract import (
    BeamInputs,
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
from ptychonnx.runtime.scan.probe_distance import thumbnail
from ptychonnx.train.dataset import SCALE_RULE
from ptychonnx.train.run import RunRecord, held_out_scans, read_family, read_run
from ptychonnx.train.trained_network import initial_network, load_network

__all__ = ["ExportResult", "export_run"]

# The cost of a pattern grows with the cube of N: patterns of more pixels are not compared in the largest batch.
_LARGE = 128


def export_run(
    run: Path,
    out: Path,
    options: ExportOptions | None = None,
    *,
    gate: QualityGate | None = None,
    calibration: Scan | None = None,
    final_steps: int | None = None,
    n: int | None = None,
    progress: Progress = SILENT,
) -> ExportResult:
    """Convert the trained network of a run folder, verify it, and write `out`; see `ptychonnx.export_run`.

    * `gate`, `calibration`: for a lower precision: the gate that accepts or refuses its reconstructions, and the scan
      whose patterns set the ranges of values (the held-out patterns of the run if None), see `reduce_artifact`.
    * `n`: side of the patterns; other than that of training only for a general artifact of an architecture whose
      weights fit any size.
    """
    out, options = check_name(out), options or ExportOptions()
    _check_options(options, gate)
    source = _source(run, options, final_steps, n)
    progress.stage(f"Converting {source.record.label}")
    candidate = _candidate(source, options)
    if options.precision == "fp32":
        return ExportResult(out, *release(candidate, out, progress))
    assert gate is not None
    verified = verify_candidate(candidate, out, progress)
    with tempfile.TemporaryDirectory() as folder, with_report(verified.report, out):
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
    return ExportResult(out, reduced.contract, verified.report, reduced)


def _check_options(options: ExportOptions, gate: QualityGate | None) -> None:
    if options.modes is not None and not options.general:
        raise InputError(f"--modes {options.modes}: expected --general with it")
    if options.general and options.precision != "fp32":
        raise InputError(
            f"--precision {options.precision}: expected fp32 with --general, since the beam is computed in the graph"
        )
    if options.precision != "fp32" and gate is None:
        raise InputError(f"precision {options.precision} needs a gate that judges reconstructions")


def _source(run: Path, options: ExportOptions, final_steps: int | None, n: int | None) -> RunSource:
    record = read_run(run)
    trained_n = record.network.n
    if n is not None and n != trained_n:
        check_size(record, n, options)
        record = record.with_size(n)
    if final_steps is not None:
        record = record.with_final_steps(final_steps)
    held_out = held_out_scans(run)
    scan = held_out[0]
    if scan.size != record.network.n:
        scan = resized(scan, record)
        record = record.model_copy(update={"scale": record.network.n / np.sqrt(record.flux)})
    network, initial = load_network(run, record), initial_network(run, record)
    return RunSource(record, network, initial, scan, trained_n, held_out, read_family(run))


def _candidate(source: RunSource, options: ExportOptions) -> Candidate[Contract]:
    record, example = source.record, source.example()
    beam = {}
    if options.general:
        beam = source.beam(options)
        source = source.general(beam)
    network = source.network.network if isinstance(source.network, WithDefaults) else source.network
    # Imported here, and the framework with it.
    converter = importlib.import_module(f"ptychonnx.export.lowering.{record.framework}.convert")
    settings = {"beam": tuple(_traced(beam, options).values())} if beam else {}
    converted: Converted = converter.convert_network(network, *example, opset=options.opset, **settings)
    return Candidate(
        label=record.label,
        model=to_opset(converted.model, options.opset),
        inputs=(INPUT_NAME, OFFSETS_NAME)[: len(example)],
        native={OUTPUT_NAME: source.predict},
        verification_inputs=_verification_inputs(source, example, options),
        stamp=partial(_contract, source, converted, example, options),
        layers=source.layers,
        batch=options.batch,
        batches=BATCHES if record.network.n <= _LARGE else BATCHES[:-1],
        tolerance=options.tolerance,
        variant=partial(_variant, options=options, mask=source.scan.mask, beam=beam),
        defaults=tuple(beam),
        targets=options.require if options.precision == "fp32" else (),
    )


def _variant(
    model: onnx.ModelProto,
    options: ExportOptions,
    mask: NDArray[np.bool_] | None,
    beam: dict[str, NDArray[np.float32]],
) -> onnx.ModelProto:
    model = _with_beam(model, beam, options)
    if options.input == "counts":
        model = counts_input(model, mask)
    return model if options.batch is None else fix_batch(model, options.batch)


def _traced(beam: dict[str, NDArray[np.float32]], options: ExportOptions) -> dict[str, NDArray[np.float32]]:
    """The beam with which a network is converted."""
    if not options.any_modes:
        return beam
    return beam | {"probe": np.resize(beam["probe"], (TRACED_MODES, *beam["probe"].shape[1:]))}


def _with_beam(
    model: onnx.ModelProto, beam: dict[str, NDArray[np.float32]], options: ExportOptions
) -> onnx.ModelProto:
    if not beam:
        return model
    if options.any_modes:
        model = any_modes(model, "probe")
    # Needs onnxscript, which comes with the frameworks.
    compression = importlib.import_module("ptychonnx.export.passes.constant_compression")
    return with_defaults(compression.compress_constants(model), beam)


def _verification_inputs(
    source: RunSource, example: tuple[NDArray[np.float32], ...], options: ExportOptions
) -> list[VerificationInputs]:
    diffraction, *offsets = example
    origin = f"{len(diffraction)} patterns of {source.record.scan} that training did not see"
    inputs = (count_inputs if options.input == "counts" else amplitude_inputs)(diffraction, origin)
    inputs = with_offsets(inputs, *offsets) if offsets else inputs
    if not options.general:
        return inputs
    modes = len(source.beam(options)["probe"]) + options.any_modes
    return with_beams(inputs, source.record.flux, modes)


def _contract(
    source: RunSource,
    converted: Converted,
    example: tuple[NDArray[np.float32], ...],
    options: ExportOptions,
    verified: VerifiedGraph,
) -> Contract:
    """The contract; the weights are proved on the graph before counts and a fixed batch go into it."""
    record, scan = source.record, source.scan
    beam = source.network.beam if isinstance(source.network, WithDefaults) else {}
    cleaned = _with_beam(verified.cleaned, beam, options)
    engine = open_onnxruntime(cleaned.SerializeToString(deterministic=True))
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
            thumbnail=None if scan.probe is None else thumbnail(scan.probe),
        ),
        beam=BeamInputs(modes=None if options.any_modes else len(beam["probe"])) if beam else None,
        trained_for=trained_beams(record, source.trained_n, source.held_out, source.family),
        provenance=_provenance(record),
        conversion=Conversion(
            exporter=converted.exporter,
            opset=opset_of(verified.model),
            ir_version=verified.model.ir_version,
            lowering=converted.lowering_text(),
            final_steps=record.final_steps,
            passes=[*verified.passes, *(["ConstantCompression"] if beam else [])],
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


@dataclass(frozen=True)
class ExportResult:
    """A published artifact.

    * `path`: the file.
    * `contract`: the contract in the file.
    * `report`: everything that was compared, as in the report next to the file. For a lower precision it is about the
      float32 graph.
    * `reduced`: for a lower precision: which layers stayed in float32, and the quality that was lost.
    """

    path: Path
    contract: Contract
    report: VerificationReport
    reduced: ReducedArtifact | None = None

    def verdict(self) -> list[str]:
        """What was compared, on which inputs, and how well it agreed, as lines of text."""
        lines = verdict(self.contract, self.report)
        return lines if self.reduced is None else lines + self.reduced.lines()
