"""`ptychonnx inspect`: the contract of an artifact, its verification, and the targets that run its operators."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import onnx
import typer
from rich.markup import escape
from rich.table import Table

from ptychonnx.export.artifact.artifact_checks import Check, check_artifact, raise_on_difference
from ptychonnx.export.artifact.module_description import MODULE_KEY, ModuleDescription
from ptychonnx.export.artifact.signing import verify_signature
from ptychonnx.export.graph.inspection import operators
from ptychonnx.export.portability import Portability, Target, portability
from ptychonnx.export.verification.verdict import verdict
from ptychonnx.harness.cli.console import output, print_lines
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.contract.integrity import check_model_file
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import Provider, Session
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.inference.providers import PROVIDER_FORMS

__all__ = ["inspect"]

_STATES = {True: "ok", False: "DIFFERS", None: "not checked"}


def inspect(
    artifact: Annotated[
        Path | None,
        typer.Argument(metavar="artifact", parser=artifact_path, help="ONNX artifact or zoo:NAME."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the contract, as JSON.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of contracts, and exit.")
    ] = False,
    provider: Annotated[
        Provider,
        typer.Option(metavar="PROVIDER", help=f"Where it would run: {PROVIDER_FORMS}."),
    ] = "auto",
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Check the stored hashes and run the reference input; exit code 1 if anything differs.",
        ),
    ] = False,
    public_key: Annotated[
        Path | None,
        typer.Option(
            help="With --verify: PEM file to check the signature ARTIFACT.sig with, before all else."
        ),
    ] = None,
) -> None:
    """Print the **contract** of an artifact, its parity, its operators, and where each of them runs.

    Example: `ptychonnx inspect --verify models/pinn_fno.onnx`
    """
    if schema:
        print(json.dumps(Contract.model_json_schema(), indent=2))
        return
    if artifact is None:
        raise InputError("expected the path of an ONNX artifact")
    if public_key is not None and not verify:
        raise InputError("--public-key checks a signature, expected --verify with it")
    for option, is_set in (("--json", as_json), (f"--provider {provider}", provider != "auto")):
        if verify and is_set:
            raise InputError(f"{option}: belongs to the contract, expected no --verify with it")
    if verify:
        _verify(artifact, public_key)
        return
    model = check_model_file(artifact)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if MODULE_KEY in metadata and CONTRACT_KEY not in metadata:
        _print_module(artifact, model, metadata[MODULE_KEY], as_json)
        return
    session = Session(artifact, provider)
    contract = session.contract
    if as_json:
        print(json.dumps(contract.model_dump(mode="json"), indent=2))
        return
    _print_rows(artifact, _contract_rows(contract))
    print_lines(*verdict(contract))
    _print_operators(Counter(contract.conversion.operators_before), model, session.placement())


def _verify(artifact: Path, public_key: Path | None) -> None:
    """Print each check. The signature comes first, since an unsigned change could reach everything else."""
    if public_key is not None:
        _print_check(Check("signature", True, verify_signature(artifact, public_key)))
    checks = check_artifact(artifact)
    for check in checks:
        _print_check(check)
    raise_on_difference(artifact, checks)


def _print_check(check: Check) -> None:
    print_lines(f"{check.name:<24}{_STATES[check.passed]:<13}{check.finding}")


def _print_module(artifact: Path, model: onnx.ModelProto, text: str, as_json: bool) -> None:
    """Print the description of a file of `ptychonnx export-module`, which has no contract."""
    description = ModuleDescription.from_json(text, str(artifact))
    if as_json:
        print(json.dumps(description.model_dump(mode="json"), indent=2))
        return
    rows = []
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            is_complex = value.name in description.complex_values
            rows.append((kind, _signature(value) + " (last axis: real, imaginary)" * is_complex))
    _print_rows(artifact, [*rows, *description.rows().items()])
    _print_operators(Counter(description.operators_before), model, {})


def _signature(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    axes = ", ".join(axis.dim_param or str(axis.dim_value) for axis in tensor.shape.dim)
    return f"{value.name}: {kind} [{axes}]"


def _print_rows(artifact: Path, rows: Sequence[tuple[str, str]]) -> None:
    size = artifact.stat().st_size / 1e6
    output.print(f"[bold]{escape(str(artifact))}[/] ({size:.1f} MB)", soft_wrap=True)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows:
        table.add_row(name, escape(value))
    output.print(table)


def _contract_rows(contract: Contract) -> list[tuple[str, str]]:
    """(name, value) of everything in a contract that a user may ask for."""
    origin, conversion, stitching = contract.provenance, contract.conversion, contract.stitching
    batch = "batch" if contract.batch is None else str(contract.batch)
    n, channels, offsets = contract.n, contract.channels, contract.offsets
    epochs = "" if origin.epochs is None else f", {origin.epochs} epochs, seed {origin.seed}"
    float_layers = ", ".join(conversion.float_layers)
    rows = {
        "label": contract.label,
        "network": f"{contract.architecture}, {origin.parameters:,} parameters, {origin.framework}",
        "input": f"{contract.input.name}: {contract.input.domain}, {contract.input.dtype} "
        f"[{batch}, {channels}, {n}, {n}], DC at the {contract.input.dc}",
        "scale": f"{contract.input.scale:.6g} in the graph: {contract.input.scale_rule}",
        "offsets": offsets
        and f"{offsets.name}: {offsets.dtype} [{batch}, {channels}, 2], (row, column) of each pattern of a group, "
        f"{offsets.unit}s from any origin",
        "beam": contract.beam
        and f"general: {', '.join(contract.beam.names)} may be overridden, "
        + (
            "any number of probe modes"
            if contract.beam.modes is None
            else f"probe modes: {contract.beam.modes}"
        ),
        "specialised": contract.specialised_from
        and f"holds one beam of the general artifact {contract.specialised_from[:12]}",
        "output": f"{contract.output.name}: {contract.output.quantity} as {contract.output.representation}, float32 "
        f"[{batch}, {n}, {n}, {channels}, 2]",
        "stitching": f"{stitching.weighting}, {stitching.placement}"
        + ", phases synchronised" * stitching.synchronise,
        "trained on": f"{contract.probe.flux:.3g} photons per pattern{epochs}",
        "loss": "unknown" if origin.loss is None else f"{origin.loss}, {origin.final_loss:.4g} at the end",
        "origin": origin.origin,
        "Fourier layer": origin.spectral_operator or "none",
        "converted by": f"{conversion.exporter}, opset {conversion.opset}",
        "lowering": conversion.lowering,
        "last steps": ""
        if conversion.final_steps is None
        else f"{conversion.final_steps} of phase retrieval",
        "precision": conversion.precision + (f", in float32: {float_layers}" if float_layers else ""),
        "versions": ", ".join(f"{name} {number}" for name, number in origin.versions.items()) or "unknown",
    }
    return [(name, value) for name, value in rows.items() if value]


def _print_operators(before: Counter[str], model: onnx.ModelProto, placed: dict[str, Counter[str]]) -> None:
    targets = portability(model)
    output.print(_operator_table(before, operators(model), placed, targets))
    lists = "; ".join(f"{target.name}: {_title(target)}" for target in targets.targets)
    print_lines(f"Looked up in the operator lists of {lists}.")
    reasons = Counter[str]()
    for (row, _), reason in targets.missing.items():
        reasons[reason] += row.count
    for reason, count in reasons.items():
        print_lines(f"{reason} ({count} node{'s' * (count > 1)})")


def _title(target: Target) -> str:
    return target.title if target.version in target.title else f"{target.title} {target.version}"


def _operator_table(
    before: Counter[str], after: Counter[str], placed: dict[str, Counter[str]], targets: Portability
) -> Table:
    """One row per operator: nodes as exported, nodes in the file, nodes by provider here, and support by targets."""
    columns = {"exported": before, "in the file": after} | placed
    table = Table(title="Operators, and the targets that have them", title_justify="left", show_footer=True)
    table.add_column("operator", "all")
    for name, counts in columns.items():
        table.add_column(name, str(counts.total() or ""), justify="right")
    for target in targets.targets:
        table.add_column(target.name, "yes" if targets.runs_on(target.name) else "no")
    for operator in sorted({*before, *after}.union(*placed.values())):
        numbers = [str(counts[operator] or "") for counts in columns.values()]
        kinds = [row for row in targets.operators if row.name == operator]
        lacks = [any((kind, target.name) in targets.missing for kind in kinds) for target in targets.targets]
        table.add_row(
            escape(operator), *numbers, *(("no" if lack else "yes") if kinds else "" for lack in lacks)
        )
    return table
