"""`ptychonnx inspect`: what an artifact says of itself, and where each of its operators would run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import onnx
import typer
from rich.markup import escape
from rich.table import Table

from ptychonnx.export.artifact.module_description import MODULE_KEY, ModuleDescription
from ptychonnx.export.artifact.signing import verify_signature
from ptychonnx.export.graph.inspection import operators
from ptychonnx.export.portability import Portability, Target, portability
from ptychonnx.export.verification.published_file import Check, check_artifact, raise_on_difference
from ptychonnx.export.verification.verdict import verdict
from ptychonnx.harness.cli.console import output
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract, Stitching
from ptychonnx.runtime.contract.integrity import check_model_file
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import Provider, Session

__all__ = ["inspect"]

_STATES = {True: "ok", False: "DIFFERS", None: "not checked"}


def inspect(
    artifact: Annotated[Path | None, typer.Argument(help="ONNX artifact.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the contract as JSON and nothing else.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of contracts and stop.")
    ] = False,
    provider: Annotated[Provider, typer.Option(help="Where to run; auto takes the best there is.")] = "auto",
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Check the stored hashes and run the reference input; exit 1 if something differs.",
        ),
    ] = False,
    public_key: Annotated[
        Path | None,
        typer.Option(help="With --verify: check the signature ARTIFACT.sig first, by this PEM file."),
    ] = None,
) -> None:
    """Print the **contract** of an artifact, its parity figures, its operators, and where each of them runs.

    Example: `ptychonnx inspect --verify models/pinn_fno.onnx`
    """
    if schema:
        print(json.dumps(Contract.model_json_schema(), indent=2))
        return
    if artifact is None:
        raise InputError("expected the path of an ONNX artifact")
    if public_key is not None and not verify:
        raise InputError("--public-key checks a signature, expected --verify with it")
    if verify:
        _verify(artifact, public_key)
        return
    model = check_model_file(artifact)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if MODULE_KEY in metadata and CONTRACT_KEY not in metadata:
        _module(artifact, model, metadata[MODULE_KEY], as_json)
        return
    session = Session(artifact, provider)
    contract = session.contract
    if as_json:
        print(json.dumps(contract.model_dump(mode="json"), indent=2))
        return
    _title(artifact)
    output.print(_summary(contract))
    for line in verdict(contract):
        output.print(line, soft_wrap=True, markup=False)
    _print_operators(Counter(contract.conversion.operators_before), model, session.placement())


def _title(artifact: Path) -> None:
    output.print(f"[bold]{escape(str(artifact))}[/] ({artifact.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)


def _module(artifact: Path, model: onnx.ModelProto, text: str, as_json: bool) -> None:
    """Print what `ptychonnx export-module` wrote: a graph that has no contract."""
    described = ModuleDescription.from_json(text, str(artifact))
    if as_json:
        print(json.dumps(described.model_dump(mode="json"), indent=2))
        return
    _title(artifact)
    rows = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            pairs = " (complex: the last axis is the part)" if value.name in described.complex_values else ""
            rows.add_row(kind, escape(_value(value) + pairs))
    for name, shown in described.rows().items():
        rows.add_row(name, escape(shown))
    output.print(rows)
    _print_operators(Counter(described.operators_before), model, {})


def _value(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    axes = ", ".join(axis.dim_param or str(axis.dim_value) for axis in tensor.shape.dim)
    return f"{value.name}: {kind} [{axes}]"


def _verify(artifact: Path, public_key: Path | None) -> None:
    """Print each check; the signature comes first, since nothing else in the file can be relied on without it."""
    if public_key is not None:
        _print(Check("signature", True, verify_signature(artifact, public_key)))
    checks = check_artifact(artifact)
    for check in checks:
        _print(check)
    raise_on_difference(artifact, checks)


def _print(check: Check) -> None:
    output.print(f"{check.name:<24}{_STATES[check.passed]:<13}{check.finding}", soft_wrap=True, markup=False)


def _stitching(stitching: Stitching) -> str:
    return f"{stitching.weighting}, {stitching.placement}" + ", phases synchronised" * stitching.synchronise


def _summary(contract: Contract) -> Table:
    made, steps = contract.provenance, contract.conversion.final_steps
    batch = "batch" if contract.batch is None else str(contract.batch)
    versions = ", ".join(f"{name} {number}" for name, number in made.versions.items()) or "unknown"
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in (
        ("label", contract.label),
        ("network", f"{contract.architecture}, {made.parameters:,} parameters, {made.framework}"),
        (
            "input",
            f"{contract.input.name}: {contract.input.domain}, {contract.input.dtype} "
            f"[{batch}, {contract.channels}, {contract.n}, {contract.n}], DC at the {contract.input.dc}",
        ),
        ("scale", f"{contract.input.scale:.6g} in the graph: {contract.input.scale_rule}"),
        *(
            []
            if contract.offsets is None
            else [
                (
                    "and",
                    f"{contract.offsets.name}: {contract.offsets.dtype} [{batch}, {contract.channels}, 2], "
                    f"(row, column) of each pattern of a group, {contract.offsets.unit}s from any origin",
                )
            ]
        ),
        (
            "output",
            f"{contract.output.name}: {contract.output.quantity} as {contract.output.representation}, float32 "
            f"[{batch}, {contract.n}, {contract.n}, {contract.channels}, 2]",
        ),
        ("stitching", _stitching(contract.stitching)),
        ("trained on", _training(contract)),
        ("loss", "unknown" if made.loss is None else f"{made.loss}, {made.final_loss:.4g} at the end"),
        *([] if made.origin is None else [("origin", made.origin)]),
        ("Fourier layer", made.spectral_operator or "none"),
        ("converted by", f"{contract.conversion.exporter}, opset {contract.conversion.opset}"),
        ("lowering", contract.conversion.lowering),
        *([] if steps is None else [("last steps", f"{steps} of phase retrieval")]),
        ("precision", _precision(contract)),
        ("versions", versions),
    ):
        table.add_row(name, escape(str(value)))
    return table


def _training(contract: Contract) -> str:
    made = contract.provenance
    text = f"{contract.probe.flux:.3g} photons a pattern"
    return text if made.epochs is None else f"{text}, {made.epochs} epochs, seed {made.seed}"


def _precision(contract: Contract) -> str:
    kept = contract.conversion.float_layers
    return contract.conversion.precision + (f", in float32: {', '.join(kept)}" if kept else "")


def _print_operators(before: Counter[str], model: onnx.ModelProto, placed: dict[str, Counter[str]]) -> None:
    found = portability(model)
    output.print(_operators(before, operators(model), placed, found))
    lists = "; ".join(f"{target.name}: {_title_of(target)}" for target in found.targets)
    output.print(f"Looked up in the operator lists of {lists}.", soft_wrap=True, markup=False)
    for line in _missing(found):
        output.print(line, soft_wrap=True, markup=False)


def _title_of(target: Target) -> str:
    return target.title if target.version in target.title else f"{target.title} {target.version}"


def _operators(
    before: Counter[str], after: Counter[str], placed: dict[str, Counter[str]], found: Portability
) -> Table:
    """One row an operator: how many the exporter wrote, how many are left, what runs here, what runs elsewhere."""
    columns = {"exported": before, "in the file": after} | placed
    table = Table(title="Operators, and the targets that have them", title_justify="left")
    table.add_column("operator", "all")
    for name, counts in columns.items():
        table.add_column(name, str(counts.total() or ""), justify="right")
    for target in found.targets:
        table.add_column(target.name, "yes" if found.runs_on(target.name) else "no")
    table.show_footer = True
    for operator in sorted({*before, *after}.union(*placed.values())):
        numbers = [str(counts[operator] or "") for counts in columns.values()]
        kinds = [row for row in found.operators if row.name == operator]
        lacks = [any((kind, target.name) in found.missing for kind in kinds) for target in found.targets]
        table.add_row(operator, *numbers, *(("no" if lack else "yes") if kinds else "" for lack in lacks))
    return table


def _missing(found: Portability) -> list[str]:
    """Why a target cannot run the graph, once for each reason."""
    reasons = Counter[str]()
    for (row, _), reason in found.missing.items():
        reasons[reason] += row.count
    return [f"{reason} ({count} node{'s' if count > 1 else ''})" for reason, count in reasons.items()]
