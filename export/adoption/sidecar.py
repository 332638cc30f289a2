"""The specification of a foreign network, read from a YAML file."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from ptychonnx.export.adoption.preprocessing import STEPS, Argument
from ptychonnx.runtime.contract import Weighting
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.npz import is_npy, load_npy
from ptychonnx.runtime.scan.amplitudes import MOST_PHOTONS
from ptychonnx.runtime.scan.orientation import Orientation
from ptychonnx.runtime.validation import first_fault
from ptychonnx.runtime.yaml_files import read_yaml_mapping

__all__ = ["QUANTITIES", "Channel", "Layout", "Quantity", "Specification", "read_specification"]

Quantity = Literal["amplitude", "phase", "real", "imag"]
Channel = Literal[
    "amplitude",
    "phase",
    "real",
    "imag",
    "amplitude_uncertainty",
    "phase_uncertainty",
    "real_uncertainty",
    "imag_uncertainty",
    "ignored",
]
Layout = Literal["BCNN", "BNNC", "BNN"]
QUANTITIES = frozenset(get_args(Quantity))
_QUANTITY_SETS = ({"phase"}, {"amplitude", "phase"}, {"real", "imag"})


def _steps_schema() -> dict[str, Any]:
    """JSON schema of a list of steps: the name of a step, or a mapping of its name to its argument."""
    number_or_file = {"anyOf": [{"type": "number"}, {"type": "string"}]}
    kinds: dict[str, dict[str, Any]] = {
        "size": {"type": "integer", "minimum": 1},
        "factor": {"type": "integer", "minimum": 1},
        "number": {"type": "number"},
        "array": number_or_file,
        "mask": {"type": "string"},
    }
    plain = [
        {"const": name, "description": step.summary} for name, step in STEPS.items() if step.takes == "none"
    ]
    with_argument = {
        name: {**kinds[step.takes], "description": step.summary}
        for name, step in STEPS.items()
        if step.takes != "none"
    }
    mapping = {
        "type": "object",
        "properties": with_argument,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"type": "array", "items": {"anyOf": [*plain, mapping]}}


def _check_steps(steps: list[str | dict[str, Any]]) -> list[str | dict[str, Any]]:
    for step in steps:
        if isinstance(step, dict) and len(step) != 1:
            raise ValueError(f"step {reprlib.repr(step)} has {len(step)} names, expected one")
        name = step if isinstance(step, str) else next(iter(step))
        if name not in STEPS:
            raise ValueError(f"step {name!r} is unknown, expected one of {', '.join(STEPS)}")
        if (STEPS[name].takes == "none") != isinstance(step, str):
            wanted = "no argument" if STEPS[name].takes == "none" else f"a {STEPS[name].takes}"
            raise ValueError(f"step {name!r} takes {wanted}")
    return steps


StepList = Annotated[
    list[str | dict[str, Any]], AfterValidator(_check_steps), WithJsonSchema(_steps_schema())
]


class _SpecificationPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ForeignInput(_SpecificationPart):
    """Input of the network, and the steps from measured amplitudes (DC in the centre) to it."""

    name: str | None = Field(default=None, description="name of the tensor; the only input if not set")
    layout: Layout = Field(default="BCNN", description="order of the axes: batch, channel, row, column")
    orientation: Orientation = Field(
        default="identity",
        description="orientation of the patterns about the direct beam, applied before the steps",
    )
    steps: StepList = Field(
        default=[], description="preprocessing steps in order; a name, or a name with its argument"
    )


class ForeignOutput(_SpecificationPart):
    """Output of the network, and the steps from it to amplitude and phase, or real and imaginary part."""

    channels: list[Channel] = Field(
        default=[], description="meaning of the channels of the only output, in order"
    )
    names: dict[Quantity, str] = Field(
        default={}, description="instead, the tensor of each quantity, which has one channel"
    )
    heads: dict[str, list[Channel]] = Field(
        default={}, description="instead, for several tensors, the meaning of the channels of each, in order"
    )
    layout: Layout = Field(default="BCNN", description="order of the axes: batch, channel, row, column")
    steps: dict[Quantity, StepList] = Field(
        default={},
        description="steps from each quantity of the network to the amplitude, or the phase in radians",
    )
    orientation: Orientation = Field(
        default="identity", description="orientation that patches are brought to"
    )
    side: int | None = Field(
        default=None, gt=0, description="side of a patch in pixels; that of the network's patterns if not set"
    )
    covers: Literal["window", "centre"] = Field(
        default="window",
        description="what a patch of another side than the patterns covers: their whole window in pixels of another "
        "size, or the centre of it in pixels of the same size",
    )
    crop: int | None = Field(
        default=None,
        gt=0,
        description="side of the central part of each patch that is used; all of it if not set",
    )
    quantity: Literal["object", "exit_wave"] = "object"
    probe: str | None = Field(default=None, description="complex [N, N] in a .npy file, for exit waves")

    @field_validator("steps")
    @classmethod
    def _value_steps(cls, steps: dict[str, StepList]) -> dict[str, StepList]:
        for quantity, of_quantity in steps.items():
            for step in of_quantity:
                name = step if isinstance(step, str) else next(iter(step))
                if STEPS[name].moves_pixels:
                    raise ValueError(
                        f"step {name!r} of the {quantity} moves pixels, expected steps that do not"
                    )
        return steps

    @model_validator(mode="after")
    def _consistent(self) -> ForeignOutput:
        forms = [form for form in (self.channels, self.names, self.heads) if form]
        if len(forms) != 1:
            raise ValueError(
                "expected either names, one per channel, or channels of the only output, or heads with the channels "
                "of each output"
            )
        named = self.named_channels()
        quantities = [channel for channel in named if channel in QUANTITIES]
        if set(quantities) not in _QUANTITY_SETS or len(quantities) != len(set(quantities)):
            raise ValueError(
                f"channels are {named}, expected phase, amplitude and phase, or real and imag, once each; others are "
                "named ignored, or their uncertainties"
            )
        if len(set(self.names.values())) != len(self.names):
            raise ValueError("names has one tensor for two channels, expected heads or channels")
        if self.layout == "BNN" and any(len(of_one) > 1 for of_one in (self.channels, *self.heads.values())):
            raise ValueError("layout BNN has no axis of channels, expected BCNN or BNNC")
        if unused := set(self.steps) - set(quantities):
            raise ValueError(f"steps are for {', '.join(sorted(unused))}, which is no channel of the output")
        if (self.quantity == "exit_wave") != (self.probe is not None):
            raise ValueError("a probe belongs to an exit wave, expected both or neither")
        return self

    def named_channels(self) -> list[Channel]:
        """All channels that the specification names, those that are left out too."""
        return [*self.names, *self.channels, *(channel for head in self.heads.values() for channel in head)]

    def left_out(self) -> list[Channel]:
        """Named channels that do not become part of the object."""
        return [channel for channel in self.named_channels() if channel not in QUANTITIES]


class Specification(_SpecificationPart):
    """A foreign network: its input, its output and its origin."""

    label: str = Field(min_length=1, description="name in reports")
    architecture: str = Field(default="foreign", description="name of the architecture in reports")
    n: int = Field(gt=1, description="side of the measured patterns in pixels, before the steps")
    flux: float = Field(gt=0, le=MOST_PHOTONS, description="mean photons per pattern in training")
    origin: str | None = Field(default=None, description="where the network came from, in words")
    input: ForeignInput = ForeignInput()
    output: ForeignOutput
    stitching: Weighting | None = Field(
        default=None, description="weights of patches: probe, window, uniform or crop"
    )
    # Where arrays are looked for; not part of the file.
    folder: SkipJsonSchema[Path] = Field(default=Path(), exclude=True)

    def resolved_steps(self) -> list[tuple[str, Argument, int]]:
        """(name, argument, side before the step) of each step, and at the end ("", None, final side).

        Raises InputError if an argument does not fit, or its file cannot be read.
        """
        side, resolved = self.n, []
        for step in self.input.steps:
            name, argument = self._resolved(step, side)
            resolved.append((name, argument, side))
            side = STEPS[name].side(side, argument)
        return [*resolved, ("", None, side)]

    def output_steps(self, quantity: str, side: int) -> list[tuple[str, Argument]]:
        """(name, argument) of the steps of one quantity, for patches of this side.

        Raises InputError as `resolved_steps` does.
        """
        steps = {str(of): steps for of, steps in self.output.steps.items()}
        return [self._resolved(step, side) for step in steps.get(quantity, [])]

    def read_array(self, file: str, shape: tuple[int, ...], kind: type) -> NDArray:
        """A finite array of the given shape, from a .npy file in the folder of the specification.

        Raises InputError if the file holds something else.
        """
        path = self.folder / file
        if not path.is_file() or not is_npy(path):
            raise InputError(f"{path}: cannot be read, expected a .npy file")
        array = load_npy(path, f"an array {shape}")
        if array.shape != shape or array.dtype.kind not in ("biufc" if kind is np.complex64 else "biuf"):
            raise InputError(f"{path}: is {array.dtype} {array.shape}, expected an array {shape}")
        if not np.isfinite(array).all():
            raise InputError(f"{path}: holds NaN or infinity, expected finite values")
        return array.astype(kind)

    def _resolved(self, step: str | dict[str, Any], side: int) -> tuple[str, Argument]:
        name, argument = (step, None) if isinstance(step, str) else next(iter(step.items()))
        return name, self._argument(name, argument, side)

    def _argument(self, name: str, argument: Any, side: int) -> Argument:
        step = STEPS[name]
        if step.takes == "none":
            return None
        if step.takes == "mask":
            if not isinstance(argument, str):
                raise InputError(f"step {name}: argument is {reprlib.repr(argument)}, expected a .npy file")
            return self.read_array(argument, (side, side), np.bool_)
        if step.takes == "array" and isinstance(argument, str):
            return self.read_array(argument, (side, side), np.float32)
        is_number = isinstance(argument, int | float) and not isinstance(argument, bool)
        if not is_number or not np.isfinite(argument):
            raise InputError(f"step {name}: argument is {reprlib.repr(argument)}, expected a number")
        if step.takes in ("size", "factor"):
            if argument != int(argument) or argument < 1 or not step.fits(side, int(argument)):
                raise InputError(f"step {name}: {argument} does not fit patterns of {side} pixels")
            return int(argument)
        if name == "divide" and argument == 0:
            raise InputError("step divide: the divisor is 0, expected another number")
        return float(argument)


def read_specification(path: Path) -> Specification:
    """Read the YAML file.

    Raises InputError if the file is missing, not YAML, or incomplete; the message names the field.
    """
    path = Path(path)
    content = read_yaml_mapping(path, "fields such as label, n and output")
    if "folder" in content:
        raise InputError(f"{path}: folder: no such field; arrays are read from the folder of this file")
    try:
        return Specification.model_validate({**content, "folder": path.parent})
    except ValidationError as error:
        raise InputError(f"{path}: {first_fault(error)}") from error
