"""The stamp of an artifact as servers publish it: a contract, or the description of a module."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import NDArray

from ptychonnx.export.artifact.module_description import MODULE_KEY, ModuleDescription
from ptychonnx.export.deploy.interface import Interface
from ptychonnx.export.verification.reference_pair import contract_reference
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract, Parity

__all__ = ["Stamped", "StampedContract", "StampedModule"]


@dataclass(frozen=True)
class StampedContract:
    """A contract, and its text in the artifact."""

    contract: Contract
    text: str
    key = CONTRACT_KEY

    @property
    def interface(self) -> Interface:
        return Interface.of_contract(self.contract)

    @property
    def precision(self) -> str:
        return self.contract.conversion.precision

    @property
    def graph_sha256(self) -> str | None:
        return self.contract.graph_sha256

    @property
    def reference(self) -> list[NDArray]:
        return contract_reference(self.contract)[1]

    def rows(self) -> dict[str, str]:
        contract, interface = self.contract, self.interface
        (output,) = interface.outputs
        shown = f"`{output.name}: {interface.describe(output)}`"
        return {
            "label": contract.label,
            "input": f"`{interface}`, DC at the {contract.input.dc}",
            "output": f"{shown}: {contract.output.quantity} as {contract.output.representation}",
            "precision": self.precision,
            "trained on": f"{contract.probe.flux:.3g} photons per pattern",
            "parity": _parity(contract.parity),
        }


@dataclass(frozen=True)
class StampedModule:
    """The description of a module, its text in the artifact, and what only the graph tells."""

    description: ModuleDescription
    text: str
    interface: Interface
    reference: list[NDArray]
    key = MODULE_KEY

    @property
    def precision(self) -> str:
        return self.description.precision

    @property
    def graph_sha256(self) -> str | None:
        return self.description.graph_sha256

    def rows(self) -> dict[str, str]:
        outputs = "; ".join(
            f"{tensor.name}: {self.interface.describe(tensor)}" for tensor in self.interface.outputs
        )
        rows = {
            "source": self.description.source or "unknown",
            "input": f"`{self.interface}`",
            "output": f"`{outputs}`",
            "precision": self.precision,
            "parity": _parity(self.description.parity),
        }
        notes = "; ".join(self.description.notes)
        return rows | ({"notes": notes} if notes else {})


Stamped = StampedContract | StampedModule
"""A stamp and its text in the artifact.

Servers publish the text as it is: serialised again, it would have the fields of this version of ptychonnx, which an
older client may refuse although it accepts the artifact.
"""


def _parity(parity: Parity | None) -> str:
    return "not measured" if parity is None else f"{parity.max_relative_error:.1e} ({parity.engine})"
