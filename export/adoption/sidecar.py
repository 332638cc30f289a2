"""The specification of a foreign network, read from a YAML file."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ptychonnx.export.adoption.preprocessing import STEPS, Argument
from ptychonnx.runtime.contract import Weighting
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan.orientation import Orientation
from ptychonnx.runtime.yaml_files import read_yaml_mapping

__all__ = ["Channel", "Layout", "Specification", "read_specification"]

Channel = Literal["amplitude", "phase", "real", "imag"]
Layout = Literal["BCNN", "BNNC", "BNN"]
_CHANNEL_SETS = ({"phase"}, {"amplitude", "phase"}, {"real", "imag"})


class _SpecificationPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class ForeignInput(_SpecificationPart):
    """Input of the network, and the steps from measured amplitudes (DC in the centre) to it."""

    name: str | None = Field(default=None, description="name of the tensor; the only input if not set")
    layout: Layout = "BCNN"
    orientation: Orientation = Field(
        default="identity",
        description="orientation of the patterns about the direct beam, applied before the steps",
    )
    steps: list[str | dict[str, Any]] = Field(
        default=[], description="preprocessing steps in order; a name, or a name with its argument"
    )

    @field_validator("steps")
    @classmethod
    def _known(cls, steps: list[str | dict[str, Any]]) -> list[str | dict[str, Any]]:
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


class ForeignOutput(_SpecificationPart):
    """Output of the network."""

    names: dict[Channel, str] = Field(
        default={}, description="tensor of each channel; the only output if not set"
    )
    channels: list[Channel] = Field(default=[], description="channels of the only output, in order")
    layout: Layout = "BCNN"
    orientation: Orientation = Field(
        default="identity", description="orientation that patches are brought to"
    )
    quantity: Literal["object", "exit_wave"] = "object"
    probe: str | None = Field(default=None, description="complex [N, N] in a .npy file, for exit waves")

    @model_validator(mode="after")
    def _consistent(self) -> ForeignOutput:
        if bool(self.names) == bool(self.channels):
            raise ValueError("expected either names, one per channel, or channels of the only output")
        channels = list(self.names) or self.channels
        if set(channels) not in _CHANNEL_SETS or len(channels) != len(set(channels)):
            raise ValueError(
                f"channels are {channels}, expected phase, amplitude and phase, or real and imag"
            )
        if (self.quantity == "exit_wave") != (self.probe is not None):
            raise ValueError("a probe belongs to an exit wave, expected both or neither")
        return self


class Specification(_SpecificationPart):
    """A foreign network: its input, its output and its origin."""

    label: str = Field(min_length=1, description="name in reports")
    architecture: str = "foreign"
    n: int = Field(gt=1, description="side of the measured patterns in pixels, before crop and rebinning")
    flux: float = Field(gt=0, description="mean photons per pattern in training")
    origin: str | None = Field(default=None, description="where the network came from, in words")
    input: ForeignInput = ForeignInput()
    output: ForeignOutput
    stitching: Weighting | None = Field(
        default=None, description="weights of patches: probe, window, uniform or crop"
    )
    folder: Path = Path()

    def resolved_steps(self) -> list[tuple[str, Argument, int]]:
        """(name, argument, side before the step) of each step, and at the end ("", None, final side).

        Raises
        ------
        InputError
            If an argument does not fit, or its file cannot be read.
        """
        side, resolved = self.n, []
        for step in self.input.steps:
            name, argument = (step, None) if isinstance(step, str) else next(iter(step.items()))
            argument = self._argument(name, argument, side)
            resolved.append((name, argument, side))
            side = STEPS[name].side(side, argument)
        return [*resolved, ("", None, side)]

    def read_array(self, file: str, shape: tuple[int, ...], kind: type) -> NDArray:
        """A finite array of the given shape, from a .npy file in the folder of the specification.

        Raises
        ------
        InputError
            If the file holds something else.
        """
        path = self.folder / file
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: cannot be read, expected a .npy file ({error})") from error
        if not isinstance(array, np.ndarray) or array.shape != shape:
            shown = getattr(array, "shape", type(array).__name__)
            raise InputError(f"{path}: is {shown}, expected an array {shape}")
        if not np.isfinite(array).all():
            raise InputError(f"{path}: holds NaN or infinity, expected finite values")
        return array.astype(kind)

    def _argument(self, name: str, argument: Any, side: int) -> Argument:
        takes = STEPS[name].takes
        if takes == "array" and isinstance(argument, str):
            return self.read_array(argument, (side, side), np.float32)
        if takes == "none":
            return None
        is_number = isinstance(argument, int | float) and not isinstance(argument, bool)
        if not is_number or not np.isfinite(argument):
            raise InputError(f"step {name}: argument is {reprlib.repr(argument)}, expected a number")
        if takes in ("size", "factor"):
            fits = argument == int(argument) and 1 <= argument <= side
            if not fits or (takes == "factor" and side % int(argument)):
                raise InputError(f"step {name}: {argument} does not fit patterns of {side} pixels")
            return int(argument)
        if name == "divide" and argument == 0:
            raise InputError("step divide: the divisor is 0, expected another number")
        return float(argument)


def read_specification(path: Path) -> Specification:
    """Read the YAML file.

    Raises
    ------
    InputError
        If the file is missing, not YAML, or incomplete; the message names the field.
    """
    path = Path(path)
    content = read_yaml_mapping(path, "fields such as label, n and output")
    try:
        return Specification.model_validate({**content, "folder": path.parent})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path}: {field}: {first['msg']}") from error
