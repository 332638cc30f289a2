"""From a run folder to one verified, self-describing ONNX file."""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from export.conversion import Converted
from export.verdict import verdict
from export.verify import (
    TOLERANCE,
    Comparison,
    check_graph,
    compare,
    open_engine,
    operators,
    reference_pair,
    relative_difference,
)
from export.weights import prove_weights
from runtime.atomic import atomic_path
from runtime.contract import CONTRACT_KEY, Contract, Conversion, NetworkInput, Provenance, TrainingProbe
from runtime.errors import InputError, VerificationError
from runtime.grouping import nearest_groups
from runtime.scan import Scan
from runtime.session import Session
from train.dataset import SCALE_RULE
from train.network import initial_network, load_network
from train.run import NativeNetwork, RunRecord, held_out_scan, read_run

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
    comparison
        Parity with the native network, and the worst element.
    operators_before, operators_after
        Operators as the exporter wrote them, and as published.
    """

    path: Path
    contract: Contract
    comparison: Comparison
    operators_before: Counter[str]
    operators_after: Counter[str]

    def verdict(self) -> list[str]:
        """What was compared, on which inputs, and how well it agreed, as lines of text."""
        return verdict(self.contract, self.comparison.worst)


def export_run(run: Path, out: Path, *, tolerance: float = TOLERANCE) -> ExportResult:
    """Convert the trained network of a run folder, verify it, and write `out`.

    Parameters
    ----------
    run
        Folder written by training.
    out
        File to write; it appears complete and verified, or not at all.
    tolerance
        Largest difference allowed between artifact and native network, over the largest output.

    Raises
    ------
    InputError
        If the folder is no finished run, or its network cannot be converted.
    VerificationError
        If the artifact fails a check; nothing is written.
    """
    record = read_run(run)
    scan = held_out_scan(run)
    initial = initial_network(run, record)
    return export_network(record, load_network(run, record), initial, scan, out, tolerance=tolerance)


def export_network(
    record: RunRecord,
    network: NativeNetwork,
    initial: NativeNetwork,
    scan: Scan,
    out: Path,
    *,
    tolerance: float = TOLERANCE,
) -> ExportResult:
    """Like `export_run`, with everything loaded.

    Parameters
    ----------
    network, initial
        With the trained and with the initial weights.
    scan
        Patterns that training did not see, with the probe.
    """
    out = Path(out)
    if out.suffix != ".onnx":
        raise InputError(f"{out}: expected a name that ends in .onnx")
    if not tolerance > 0:
        raise InputError(f"tolerance is {tolerance}, expected more than 0")
    channels = record.network.gridsize**2
    diffraction = scan.diffraction[nearest_groups(scan.positions, channels)][:_COMPARED]
    patterns = f"{len(diffraction)} patterns of {record.scan} that training did not see"

    # Imported here, and with it the framework.
    converter = importlib.import_module(f"export.{record.framework}.convert")
    converted: Converted = converter.convert_network(network, diffraction)
    # Needs onnx-ir, which comes with the frameworks.
    cleaned = importlib.import_module("export.passes").clean(converted.model)
    model: onnx.ModelProto = cleaned.model

    bare = model.SerializeToString(deterministic=True)
    check_graph(bare)
    engine = open_engine(bare)
    comparison = compare(engine, network.predict, diffraction, tolerance=tolerance, patterns=patterns)
    distance = relative_difference(initial.predict(diffraction), engine(diffraction))
    contract = _contract(record, scan, converted, model, cleaned.passes).model_copy(
        update={
            "parity": comparison.parity,
            "weights": prove_weights(record, network.tensors(), model, distance, tolerance),
            "reference": reference_pair(engine, channels, record.network.n, record.flux),
        }
    )
    onnx.helper.set_model_props(model, {CONTRACT_KEY: contract.to_json()})
    with atomic_path(out) as partial:
        partial.write_bytes(model.SerializeToString(deterministic=True))
        _verify_file(partial, contract, network, diffraction)
    return ExportResult(out, contract, comparison, operators(converted.model), operators(model))


def _verify_file(
    path: Path, contract: Contract, network: NativeNetwork, diffraction: NDArray[np.float32]
) -> None:
    """Check the very bytes that are to be published, read back from the disk."""
    data = path.read_bytes()
    check_graph(data)
    engine = open_engine(data)
    assert contract.parity is not None
    compare(engine, network.predict, diffraction, tolerance=contract.parity.tolerance)
    if reference_pair(engine, contract.channels, contract.n, contract.probe.flux) != contract.reference:
        raise VerificationError("the file does not give the output that the graph gave before it was written")
    try:
        session = Session(path, "cpu")
    except InputError as error:
        raise VerificationError(f"the runtime does not take the file: {error}") from error
    if session.contract != contract:
        raise VerificationError("the contract in the file is not the one that was stamped")


def _contract(
    record: RunRecord, scan: Scan, converted: Converted, model: onnx.ModelProto, passes: list[str]
) -> Contract:
    (opset,) = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    lowered = (
        f"{converted.lowering}, {len(converted.layers)} layers" if converted.layers else converted.lowering
    )
    return Contract(
        label=record.label,
        architecture=record.architecture,
        n=record.network.n,
        gridsize=record.network.gridsize,
        input=NetworkInput(scale=record.scale, scale_rule=SCALE_RULE),
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
            opset=opset,
            ir_version=model.ir_version,
            lowering=lowered,
            passes=passes,
        ),
    )
