"""The ways to reconstruct that an evaluation compares: networks, iterations after them, and iterations alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from ptychonnx.harness.evaluation.results import Row, ScanResult
from ptychonnx.harness.iterative.refinement import ALGORITHM
from ptychonnx.runtime.inference.model import DEFAULT_BATCH, Network
from ptychonnx.runtime.inference.session import Session

__all__ = ["Method", "methods_of", "row_of"]


@dataclass(frozen=True)
class Method:
    """One way to reconstruct.

    Attributes
    ----------
    session
        The network; None for iterations from vacuum.
    epochs
        Of the iterations; 0 for a network alone.
    batch, is_tuned
        Patterns in one run of the network, and whether trials found that number.
    """

    label: str
    session: Network | None
    epochs: int = 0
    batch: int = DEFAULT_BATCH
    is_tuned: bool = False


def methods_of(networks: Sequence[Method], refine: int, iterations: int) -> list[Method]:
    """The networks, each followed by `refine` epochs from its object, then `iterations` epochs from vacuum."""
    methods = []
    for network in networks:
        methods.append(network)
        if refine:
            methods.append(Method(f"{network.label} + {ALGORITHM} {refine}", network.session, refine))
    if iterations:
        methods.append(Method(f"iterative ({ALGORITHM} {iterations})", None, iterations))
    return methods


def row_of(method: Method, results: dict[str, ScanResult]) -> Row:
    """The row of a report; iterations have no contract and no parity."""
    session = method.session
    if session is not None and not method.epochs:
        notes = _notes(method, session)
        return Row(method.label, session.name, session.contract, session.provider, results, notes)
    return Row(
        method.label,
        f"cdtools-py {version('cdtools-py')}",
        None,
        "CPU" if session is None else f"{session.provider}, then CPU",
        results,
        kind="iterations",
        facts={
            "algorithm": ALGORITHM,
            "epochs": str(method.epochs),
            "start": "vacuum" if session is None else f"the object of {session.name}",
        },
    )


def _notes(method: Method, session: Network) -> tuple[str, ...]:
    notes = []
    if method.label != session.contract.label:
        notes.append(
            f"several artifacts are labelled {session.contract.label!r}: told apart by the names of the files or "
            "servers"
        )
    if method.is_tuned and isinstance(session, Session):
        count = session.threads
        threads = "" if count is None else f" and {count} thread{'s' * (count > 1)}"
        notes.append(f"ran in a batch of {method.batch}{threads}, which was fastest in trials")
    return tuple(notes)
