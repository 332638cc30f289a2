"""The contract: what an artifact takes, what it gives, where it came from, and how well it was checked.

It travels inside the ONNX file, as JSON in `metadata_props["ptychonnx.contract"]`.
`ptychonnx inspect --schema` prints the JSON schema that `docs/reference/contract.schema.json` publishes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ptychonnx.runtime.errors import InputError

__all__ = [
    "CONTRACT_KEY",
    "Contract",
    "Conversion",
    "InputTensor",
    "NetworkInput",
    "NetworkOutput",
    "OffsetsInput",
    "Parity",
    "Placement",
    "Provenance",
    "Quality",
    "ReferencePair",
    "Stitching",
    "TrainingProbe",
    "Weighting",
    "WeightsProof",
]

CONTRACT_KEY = "ptychonnx.contract"

Weighting = Literal["probe", "window", "uniform", "crop"]
Placement = Literal["bilinear", "fourier"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkInput(_Part):
    """What the graph takes."""

    name: str = "diffraction"
    domain: Literal["amplitude", "counts"] = "amplitude"
    dtype: Literal["float32", "uint16"] = "float32"
    layout: Literal["BCNN"] = Field(default="BCNN", description="[batch, channel, row, column]")
    dc: Literal["centre", "corner"] = Field(
        default="centre", description="pixel of the direct beam; centre is N // 2"
    )
    scale: float = Field(gt=0, description="factor that the graph itself applies to the amplitude")
    scale_rule: str = Field(description="how the scale was found, in words")


class OffsetsInput(_Part):
    """What else the graph takes if it finds one object for all patterns of a group: where they lie."""

    name: str = "offsets"
    dtype: Literal["float32"] = "float32"
    layout: Literal["BC2"] = Field(default="BC2", description="[batch, channel, (row, column)]")
    unit: Literal["pixel"] = Field(
        default="pixel", description="of the object; from any origin, only distances inside a group matter"
    )


@dataclass(frozen=True)
class InputTensor:
    """An input of the graph as an engine or a server sees it.

    Attributes
    ----------
    shape
        Without the batch, which comes first.
    """

    name: str
    dtype: Literal["float32", "uint16"]
    shape: tuple[int, ...]


class NetworkOutput(_Part):
    """What the graph gives."""

    name: str = "object"
    representation: Literal["real_imag", "amp_phase", "phase_only"] = "real_imag"
    layout: Literal["BNNC2"] = Field(default="BNNC2", description="[batch, row, column, channel, part]")
    quantity: Literal["object", "exit_wave"] = "object"
    orientation: Literal["identity"] = Field(
        default="identity", description="patches lie on the canvas as they are: no flip, no transposition"
    )


class Stitching(_Part):
    """How patches are merged unless the user says otherwise."""

    weighting: Weighting = "probe"
    placement: Placement = "bilinear"
    synchronise: bool = Field(
        default=False, description="whether each patch is turned by one phase so that all agree"
    )


class TrainingProbe(_Part):
    """The illumination that the network was trained with; it knows no other."""

    sha256: str | None
    modes: int
    flux: float = Field(gt=0, description="mean photons in a training pattern")


class Provenance(_Part):
    """Where the weights came from."""

    framework: Literal["torch", "tensorflow", "foreign"]
    versions: dict[str, str]
    git_commit: str | None
    spectral_operator: str | None = Field(
        default=None, description="the Fourier layer that was trained, if any"
    )
    parameters: int
    origin: str | None = Field(default=None, description="where a foreign network came from, in words")
    training_data_sha256: str | None = None
    seed: int | None = None
    epochs: int | None = None
    loss: str | None = None
    final_loss: float | None = None


class Conversion(_Part):
    """How the graph was made."""

    exporter: str
    opset: int
    ir_version: int
    lowering: str = Field(description="what replaced the spectral convolutions, or 'none'")
    final_steps: int | None = Field(
        default=None,
        ge=0,
        description="steps of phase retrieval after the network, chosen at export or as trained; null if it has none, "
        "or if the artifact is older than this entry",
    )
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    float_layers: list[str] = Field(
        default=[], description="nodes kept in float32 because a lower precision cost too much"
    )
    passes: list[str]
    operators_before: dict[str, int] = Field(
        default={}, description="operators as the exporter wrote them, before the passes"
    )


class WeightsProof(_Part):
    """That the graph holds the trained weights."""

    checkpoint_sha256: str
    initial_sha256: str
    changed_tensors: int = Field(description="trainable tensors that training changed")
    trainable_tensors: int
    found_bit_for_bit: int = Field(description="checkpoint tensors that stand unchanged in the graph")
    initial_output_distance: float = Field(
        description="relative difference of the output when the initial weights are used instead"
    )


class ReferencePair(_Part):
    """A seeded input and the output it gave, to recognise the network again."""

    rule: str
    input_sha256: str
    output_sha256: str
    output_rms: float


class Parity(_Part):
    """Output of the artifact against the native network, on patterns that training did not see."""

    max_relative_error: float = Field(description="largest |difference| over the largest |output|")
    rms_relative_error: float
    tolerance: float | None = Field(
        description="null where the quality of the reconstruction decides, see `quality`"
    )
    batches: list[int]
    patterns: str
    engine: str


class Quality(_Part):
    """What a reduced precision costs: the reconstruction of a scan, against that of the float32 artifact.

    Figures are those of `ptychonnx evaluate`, such as ``amplitude_pearson`` or ``phase_frc_cutoff``.
    """

    parent_sha256: str = Field(description="of the float32 artifact's graph")
    scan: str
    parent: dict[str, float | None] = Field(description="figures of the float32 artifact")
    artifact: dict[str, float | None] = Field(description="the same figures of this artifact")
    allowed_fall: dict[str, float] = Field(description="by how much each figure may fall")


class Contract(_Part):
    """Everything a runtime, a server or a reader needs to know about one artifact.

    Examples
    --------
    >>> import ptychonnx
    >>> contract = ptychonnx.Session("zoo:pinn_hybrid").contract
    >>> contract.label, contract.n, contract.input.domain, contract.stitching.weighting
    ('pinn_hybrid', 64, 'amplitude', 'probe')
    """

    version: Literal[1] = 1
    label: str = Field(
        description="run label: pinn_<architecture> or baseline, _grid<g> behind it for a gridsize above 1",
        min_length=1,
    )
    architecture: str
    n: int = Field(gt=0, description="side of a diffraction pattern in pixels")
    gridsize: int = Field(default=1, gt=0, description="g: the network sees g * g neighbouring patterns")
    batch: int | None = Field(default=None, gt=0, description="the only batch it takes; null if any")
    input: NetworkInput
    offsets: OffsetsInput | None = Field(default=None, description="null if the graph takes patterns alone")
    output: NetworkOutput = NetworkOutput()
    stitching: Stitching = Stitching()
    probe: TrainingProbe
    provenance: Provenance
    conversion: Conversion
    weights: WeightsProof | None = None
    reference: ReferencePair | None = None
    parity: Parity | None = None
    quality: Quality | None = Field(default=None, description="null for float32")
    graph_sha256: str | None = Field(
        default=None, description="of the serialised model without its metadata, to notice a changed file"
    )

    @property
    def channels(self) -> int:
        """C = gridsize squared: patterns in, patches out."""
        return self.gridsize**2

    @property
    def inputs(self) -> tuple[InputTensor, ...]:
        """Every input of the graph, in order: patterns [C, N, N] and, if it takes them, offsets [C, 2]."""
        patterns = InputTensor(self.input.name, self.input.dtype, (self.channels, self.n, self.n))
        if self.offsets is None:
            return (patterns,)
        return patterns, InputTensor(self.offsets.name, self.offsets.dtype, (self.channels, 2))

    def to_json(self) -> str:
        """One line of JSON with sorted keys, the form that is stamped into the artifact."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: str) -> Contract:
        """Parse a contract; `where` names the artifact in the error.

        Raises
        ------
        InputError
            If the text is not a contract of a version known here.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "the document"
            raise InputError(
                f"{where}: contract not understood: {key}: {first['msg']} ({error.error_count()} in all)"
            ) from error
