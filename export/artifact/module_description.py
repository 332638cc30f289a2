"""Description of an exported module, for files of `ptychonnx export-module`, which have no contract."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ptychonnx.runtime.contract import Parity, ReferencePair
from ptychonnx.runtime.errors import InputError

__all__ = ["MODULE_KEY", "ModuleDescription"]

MODULE_KEY = "ptychonnx.module"


class ModuleDescription(BaseModel):
    """Stamped as JSON into `metadata_props["ptychonnx.module"]`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    source: str | None = Field(default=None, description="where the module came from, without its folder")
    framework: str | None = None
    complex_values: list[str] = Field(
        default=[], description="inputs and outputs whose last axis is the real and the imaginary part"
    )
    bounds: dict[str, tuple[int, int]] = Field(
        default={}, description="smallest and largest value of each integer input in verification"
    )
    notes: list[str] = Field(default=[], description="what a user of the file should know")
    parameters: int | None = None
    exporter: str | None = None
    opset: int | None = None
    lowering: str | None = None
    passes: list[str] = []
    operators_before: dict[str, int] = Field(default={}, description="before the passes")
    versions: dict[str, str] = {}
    precision: str = Field(default="fp32", description="fp32, or fp16 for layers in half precision")
    precision_error: float | None = Field(
        default=None, description="for fp16: largest |difference| from float32 divided by the largest output"
    )
    parity: Parity | None = None
    reference: ReferencePair | None = None
    graph_sha256: str | None = None

    def rows(self) -> dict[str, str]:
        """The description for people, by name; unknown entries are left out."""
        rows = {
            "source": self.source,
            "parameters": None if self.parameters is None else f"{self.parameters:,}",
            "converted by": None if self.exporter is None else f"{self.exporter}, opset {self.opset}",
            "lowering": self.lowering,
            "passes": ", ".join(self.passes),
            "notes": "; ".join(self.notes),
            "versions": ", ".join(f"{name} {number}" for name, number in self.versions.items()),
            "precision": self.precision if self.precision_error is None else self.precision_text(),
            "parity": self._parity_text(),
            "reference": None
            if self.reference is None
            else f"output {self.reference.output_sha256[:12]} for the {self.reference.rule}",
        }
        return {name: shown for name, shown in rows.items() if shown}

    def precision_text(self) -> str:
        """The precision and what it costs."""
        return f"{self.precision}, {self.precision_error:.1e} of the largest output from float32"

    def _parity_text(self) -> str | None:
        parity = self.parity
        if parity is None:
            return None
        return (
            f"{parity.max_relative_error:.2e} of the largest output (allowed {parity.tolerance:.0e}), "
            f"{parity.engine} on {parity.patterns}"
        )

    def to_json(self) -> str:
        """The form that is stamped into the file."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str, where: str) -> ModuleDescription:
        """Parse a description; `where` names the file in the error.

        Raises InputError if the text is not a description.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InputError(f"{where}: {MODULE_KEY} not understood: {error.errors()[0]['msg']}") from error
