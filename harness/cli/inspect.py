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

from export.verdict import verdict
from harness.cli.console import output
from runtime.contract import Contract
from runtime.errors import InputError
from runtime.providers import Provider
from runtime.session import Session

__all__ = ["inspect"]


def inspect(
    artifact: Annotated[Path | None, typer.Argument(help="ONNX artifact.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the contract as JSON and nothing else.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of contracts and stop.")
    ] = False,
    provider: Annotated[Provider, typer.Option(help="Where to run; auto takes the best there is.")] = "auto",
) -> None:
    """Print the **contract** of an artifact, its parity figures, its operators and their placement.

    Example: `ptychonnx inspect --json models/pinn_fno.onnx`
    """
    if schema:
        print(json.dumps(Contract.model_json_schema(), indent=2))
        return
    if artifact is None:
        raise InputError("expected the path of an ONNX artifact")
    session = Session(artifact, provider)
    contract = session.contract
    if as_json:
        print(json.dumps(contract.model_dump(mode="json"), indent=2))
        return
    output.print(f"[bold]{artifact}[/] ({artifact.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)
    output.print(_summary(contract))
    for line in verdict(contract):
        output.print(line, soft_wrap=True, markup=False)
    output.print(_operators(artifact, session))


def _summary(contract: Contract) -> Table:
    made = contract.provenance
    versions = ", ".join(f"{name} {number}" for name, number in made.versions.items())
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in (
        ("label", contract.label),
        ("network", f"{contract.architecture}, {made.parameters:,} parameters, {made.framework}"),
        (
            "input",
            f"{contract.input.name}: {contract.input.domain}, {contract.input.dtype} "
            f"[batch, {contract.channels}, {contract.n}, {contract.n}], DC at the {contract.input.dc}",
        ),
        ("scale", f"{contract.input.scale:.6g} in the graph: {contract.input.scale_rule}"),
        (
            "output",
            f"{contract.output.name}: {contract.output.quantity} as {contract.output.representation}, float32 "
            f"[batch, {contract.n}, {contract.n}, {contract.channels}, 2]",
        ),
        ("stitching", f"{contract.stitching.weighting}, {contract.stitching.placement}"),
        (
            "trained on",
            f"{contract.probe.flux:.3g} photons a pattern, {made.epochs} epochs, seed {made.seed}",
        ),
        ("loss", f"{made.loss}, {made.final_loss:.4g} at the end"),
        ("Fourier layer", made.spectral_operator or "none"),
        ("converted by", f"{contract.conversion.exporter}, opset {contract.conversion.opset}"),
        ("lowering", contract.conversion.lowering),
        ("versions", versions),
    ):
        table.add_row(name, escape(str(value)))
    return table


def _operators(artifact: Path, session: Session) -> Table:
    graph = onnx.load(artifact).graph
    written = Counter(node.op_type for node in graph.node)
    placed = session.placement()
    table = Table("operator", "in the file", *placed, title="Operators, and where they run after fusion")
    for operator in sorted(set(written).union(*placed.values())):
        row = [str(written.get(operator, ""))] + [str(counts.get(operator, "")) for counts in placed.values()]
        table.add_row(operator, *row)
    return table
