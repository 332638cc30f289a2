"""The contract that every artifact carries: its inputs and outputs, its provenance, and how it was verified.

It is stored inside the ONNX file, as JSON in `metadata_props["ptychonnx.contract"]`.
`ptychonnx inspect --schema` prints the JSON schema that `docs/reference/contract.schema.json` publishes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.validation import Refusing, first_fault

__all__ = [
    "CONTRACT_KEY",
    "MODES_AXIS",
    "BeamInputs",
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
    "TrainedBeams",
    "TrainingProbe",
    "Weighting",
    "WeightsProof",
]

CONTRACT_KEY = "ptychonnx.contract"
# Name of the first axis of the probe in the graph of an artifact that takes any number of modes.
MODES_AXIS = "modes"

Weighting = Literal["probe", "window", "uniform", "crop"]
Placement = Literal["bilinear", "fourier"]


class _Part(Refusing):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkInput(_Part):
    """The diffraction input of the graph."""

    name: str = "diffraction"
    domain: Literal["amplitude", "counts"] = "amplitude"
    dtype: Literal["float32", "uint16"] = "float32"
    layout: Literal["BCNN"] = Field(default="BCNN", description="[batch, channel, row, column]")
    dc: Literal["centre", "corner"] = Field(
        default="centre", description="pixel of the direct beam; centre is N // 2"
    )
    scale: float = Field(
        gt=0, allow_inf_nan=False, description="factor that the graph applies to the amplitude"
    )
    scale_rule: str = Field(description="how the scale was determined, in words")


class OffsetsInput(_Part):
    """The second input of a graph that reconstructs one object from a group of patterns: their positions."""

    name: str = "offsets"
    dtype: Literal["float32"] = "float32"
    layout: Literal["BC2"] = Field(default="BC2", description="[batch, channel, (row, column)]")
    unit: Literal["pixel"] = Field(
        default="pixel", description="object pixels from any origin; only distances within a group matter"
    )


class BeamInputs(_Part):
    """Inputs of a general artifact that have defaults, and replace them when they are fed by name.

    All patterns of a call share them, so they have no batch axis: the probe float32 [modes, N, N, 2] (real and
    imaginary part, in sqrt(photons)), the mask float32 [N, N] (1 at valid pixels, 0 elsewhere), and the scale float32
    [] (factor that brings the root mean square of the amplitudes to 1).
    """

    probe: str = "probe"
    mask: str = "mask"
    scale: str = "scale"
    modes: int | None = Field(
        default=None,
        gt=0,
        description="modes that the graph takes, missing ones are zero; null if any number",
    )

    @property
    def names(self) -> tuple[str, str, str]:
        """Names of the inputs, in the order of the graph."""
        return self.probe, self.mask, self.scale

    def shapes(self, n: int) -> dict[str, tuple[int | str, ...]]:
        """Shape of each input, by name; an axis of any length is `MODES_AXIS`."""
        modes = MODES_AXIS if self.modes is None else self.modes
        return {self.probe: (modes, n, n, 2), self.mask: (n, n), self.scale: ()}


Range = tuple[float, float]


class TrainedBeams(_Part):
    """Beams and scans that the weights were trained for; what is not known is null."""

    families: list[str] = Field(default=[], description="kinds of beam, such as zone-plate")
    objects: list[str] = Field(default=[], description="kinds of object, such as lines")
    n: list[int] = Field(default=[], description="sides of the patterns, pixels")
    modes: tuple[int, int] | None = None
    photons: Range | None = Field(default=None, description="mean photons in a pattern")
    overlap: Range | None = Field(
        default=None, description="1 - distance of neighbouring positions / diameter of the probe"
    )
    oversampling: Range | None = Field(default=None, description="N / diameter of the probe in pixels")
    fresnel_number: Range | None = Field(
        default=None,
        description="r^2 / (wavelength |z|) with the radius r of the probe and the distance z to where the beam is "
        "narrowest; 1000 in focus",
    )
    defocus: Range | None = Field(default=None, description="the distance |z| in metres")


@dataclass(frozen=True)
class InputTensor:
    """An input of the graph as an engine or a server sees it."""

    name: str
    dtype: Literal["float32", "uint16"]
    shape: tuple[int, ...]  # without the batch axis, which comes first


class NetworkOutput(_Part):
    """The output of the graph."""

    name: str = "object"
    representation: Literal["real_imag", "amp_phase", "phase_only"] = "real_imag"
    layout: Literal["BNNC2"] = Field(default="BNNC2", description="[batch, row, column, channel, part]")
    quantity: Literal["object", "exit_wave"] = "object"
    orientation: Literal["identity"] = Field(
        default="identity", description="patches are placed on the canvas without flip or transposition"
    )


class Stitching(_Part):
    """How patches are merged by default."""

    weighting: Weighting = "probe"
    window: int | None = Field(
        default=None,
        gt=0,
        description="side in pixels of the central square that patches cover, outside of which weights are 0; null "
        "if all",
    )
    placement: Placement = "bilinear"
    synchronise: bool = Field(
        default=False,
        description="whether each patch is multiplied by one phase factor so that overlapping patches agree",
    )


class TrainingProbe(_Part):
    """The illumination that the network was trained with; of a specialised artifact, the one that it holds."""

    sha256: str | None
    modes: int = Field(ge=0, description="0 if unknown")
    flux: float = Field(gt=0, allow_inf_nan=False, description="mean photons in a training pattern")
    thumbnail: str | None = Field(
        default=None,
        description="the strongest mode at 32 x 32 pixels or fewer, unit power: base64 of float16 [side, side, 2]",
    )


class Provenance(_Part):
    """Origin of the weights."""

    framework: Literal["torch", "tensorflow", "foreign"]
    versions: dict[str, str]
    git_commit: str | None
    spectral_operator: str | None = Field(default=None, description="Fourier layer that was trained, if any")
    parameters: int = Field(ge=0)
    origin: str | None = Field(default=None, description="origin of a foreign network, in words")
    training_data_sha256: str | None = None
    seed: int | None = None
    epochs: int | None = Field(default=None, ge=0)
    loss: str | None = None
    final_loss: float | None = None


class Conversion(_Part):
    """How the graph was produced."""

    exporter: str
    opset: int = Field(gt=0)
    ir_version: int = Field(gt=0)
    lowering: str = Field(description="replacement of the spectral convolutions, or 'none'")
    final_steps: int | None = Field(
        default=None,
        ge=0,
        description="steps of phase retrieval after the network, chosen at export or as trained; null if none, "
        "or if the artifact is older than this entry",
    )
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    float_layers: list[str] = Field(
        default=[], description="nodes kept in float32 because a lower precision loses too much"
    )
    passes: list[str]
    operators_before: dict[str, int] = Field(
        default={}, description="operators written by the exporter, before the passes"
    )


class WeightsProof(_Part):
    """Proof that the graph holds the trained weights."""

    checkpoint_sha256: str
    initial_sha256: str
    changed_tensors: int = Field(ge=0, description="trainable tensors that training changed")
    trainable_tensors: int = Field(ge=0)
    found_bit_for_bit: int = Field(ge=0, description="checkpoint tensors that are in the graph bit for bit")
    initial_output_distance: float = Field(
        description="relative difference of the output with the initial weights"
    )


class ReferencePair(_Part):
    """A seeded input and its output, by which the network is recognised."""

    rule: str
    input_sha256: str
    output_sha256: str
    output_rms: float


class Parity(_Part):
    """Output of the artifact compared with the native network's, on patterns that were not in the training set."""

    max_relative_error: float = Field(ge=0, description="largest |difference| over the largest |output|")
    rms_relative_error: float = Field(ge=0)
    tolerance: float | None = Field(
        description="null where the quality of the reconstruction decides, see `quality`"
    )
    batches: list[int]
    patterns: str
    engine: str


class Quality(_Part):
    """Loss by reduced precision: the reconstruction of a scan compared with that of the float32 artifact.

    Figures are those of `ptychonnx evaluate`, for example ``amplitude_pearson`` or ``phase_frc_cutoff``.
    """

    parent_sha256: str = Field(description="hash of the float32 artifact's graph")
    scan: str
    parent: dict[str, float | None] = Field(description="figures of the float32 artifact")
    artifact: dict[str, float | None] = Field(description="the same figures of this artifact")
    allowed_fall: dict[str, float] = Field(description="largest allowed decrease of each figure")


class Contract(_Part):
    """Everything that a runtime, a server or a reader needs to know about an artifact.

    Examples
    --------
    >>> import ptychonnx
    >>> contract = ptychonnx.Session("zoo:pinn_hybrid").contract
    >>> contract.label, contract.n, contract.input.domain, contract.stitching.weighting
    ('pinn_hybrid', 64, 'amplitude', 'probe')
    """

    # The docstring without its example.
    model_config = ConfigDict(
        json_schema_extra={
            "description": "Everything that a runtime, a server or a reader needs to know about an artifact."
        }
    )

    version: Literal[1] = 1
    label: str = Field(
        description="run label: pinn_<architecture> or baseline, then _grid<g> for a gridsize above 1, then _any "
        "if many scans trained it",
        min_length=1,
    )
    architecture: str
    n: int = Field(gt=0, description="side of a diffraction pattern in pixels")
    gridsize: int = Field(default=1, gt=0, description="g: the network sees g * g neighbouring patterns")
    batch: int | None = Field(
        default=None, gt=0, description="the only batch size that the graph takes; null if any"
    )
    input: NetworkInput
    offsets: OffsetsInput | None = Field(default=None, description="null if patterns are the only input")
    beam: BeamInputs | None = Field(
        default=None,
        description="inputs of a general artifact that may be overridden; null if the graph holds one beam",
    )
    trained_for: TrainedBeams | None = Field(default=None, description="null if the artifact is older")
    specialised_from: str | None = Field(
        default=None, description="graph hash of the general artifact whose beam was replaced by constants"
    )
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
        default=None,
        description="SHA-256 of the serialised model without its metadata, by which a changed file is detected",
    )

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.stitching.window is not None and self.stitching.window > self.n:
            raise ValueError(f"stitching.window: {self.stitching.window}, expected at most n = {self.n}")
        return self

    @property
    def general(self) -> bool:
        """Whether the beam is an input."""
        return self.beam is not None

    @property
    def channels(self) -> int:
        """C, the number of patterns and of patches in a group: gridsize squared."""
        return self.gridsize**2

    @property
    def inputs(self) -> tuple[InputTensor, ...]:
        """All inputs of the graph, in order: patterns [C, N, N] and, for some networks, offsets [C, 2]."""
        patterns = InputTensor(self.input.name, self.input.dtype, (self.channels, self.n, self.n))
        if self.offsets is None:
            return (patterns,)
        return patterns, InputTensor(self.offsets.name, self.offsets.dtype, (self.channels, 2))

    def to_json(self) -> str:
        """One line of JSON with sorted keys, as it is stamped into the artifact."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: str) -> Contract:
        """Parse a contract; `where` names the artifact in the error.

        Raises InputError if the text is not a contract of a known version.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InputError(
                f"{where}: contract not understood: {first_fault(error)} ({error.error_count()} in all)"
            ) from error
