"""What must be known of a foreign network, read from a YAML file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ptychonnx.export.adoption.preprocessing import STEPS, Argument
from ptychonnx.runtime.contract import Weighting
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan.orientation import Orientation

__all__ = ["Channel", "Layout", "Specification", "read_specification"]

Channel = Literal["amplitude", "phase", "real", "imag"]
Layout = Literal["BCNN", "BNNC", "BNN"]
_PAIRS = ({"phase"}, {"amplitude", "phase"}, {"real", "imag"})


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class ForeignInput(_Part):
    """What is done to measured amplitudes, DC in the centre, before the network sees them."""

    name: str | None = Field(default=None, description="of the tensor; the only input if not given")
    layout: Layout = "BCNN"
    orientation: Orientation = Field(
        default="identity", description="how patterns are turned first of all, about the direct beam"
    )
    steps: list[str | dict[str, Any]] = Field(
        default=[], description="in this order; a name, or a name with its argument"
    )

    @field_validator("steps")
    @classmethod
    def _known(cls, steps: list[str | dict[str, Any]]) -> list[str | dict[str, Any]]:
        for step in steps:
            if isinstance(step, dict) and len(step) != 1:
                raise ValueError(f"step {step} has {len(step)} names, expected one")
            name = step if isinstance(step, str) else next(iter(step))
            if name not in STEPS:
                raise ValueError(f"step {name!r} is unknown, expected one of {', '.join(STEPS)}")
            if (STEPS[name].takes == "none") != isinstance(step, str):
                wanted = "nothing" if STEPS[name].takes == "none" else f"a {STEPS[name].takes}"
                raise ValueError(f"step {name!r} takes {wanted}")
        return steps


class ForeignOutput(_Part):
    """What the network gives."""

    names: dict[Channel, str] = Field(
        default={}, description="tensors, one a channel; the only output if not given"
    )
    channels: list[Channel] = Field(
        default=[], description="what the channels of the only output are, in order"
    )
    layout: Layout = "BCNN"
    orientation: Orientation = Field(default="identity", description="how patches are turned to lie as ours")
    quantity: Literal["object", "exit_wave"] = "object"
    probe: str | None = Field(default=None, description="complex [N, N] in a .npy file, for exit waves")

    @model_validator(mode="after")
    def _consistent(self) -> ForeignOutput:
        if bool(self.names) == bool(self.channels):
            raise ValueError("expected either names, one a channel, or channels of the only output")
        given = list(self.names) or self.channels
        if set(given) not in _PAIRS or len(given) != len(set(given)):
            raise ValueError(f"channels are {given}, expected phase, amplitude and phase, or real and imag")
        if (self.quantity == "exit_wave") != (self.probe is not None):
            raise ValueError("a probe belongs to an exit wave, and only to one")
        return self


class Specification(_Part):
    """A foreign network: what it takes, what it gives, where it came from."""

    label: str = Field(min_length=1, description="name in reports")
    architecture: str = "foreign"
    n: int = Field(gt=1, description="side of the measured patterns, before crop and rebinning")
    flux: float = Field(gt=0, description="mean photons in a pattern that it was trained with")
    origin: str | None = Field(default=None, description="where it came from, in words")
    input: ForeignInput = ForeignInput()
    output: ForeignOutput
    stitching: Weighting | None = Field(default=None, description="probe, window, uniform or crop")
    folder: Path = Path()

    def resolved_steps(self) -> list[tuple[str, Argument, int]]:
        """(name, argument with files read, side before the step), and at the end ("", None, last side).

        Raises
        ------
        InputError
            If an argument does not fit.
        """
        side, found = self.n, []
        for step in self.input.steps:
            name, argument = (step, None) if isinstance(step, str) else next(iter(step.items()))
            argument = self._argument(name, argument, side)
            found.append((name, argument, side))
            side = STEPS[name].side(side, argument)
        return [*found, ("", None, side)]

    def read_array(self, file: str, shape: tuple[int, ...], kind: type) -> NDArray:
        """An array in a .npy file beside the specification, finite and of some shape.

        Raises
        ------
        InputError
            If it is not.
        """
        path = self.folder / file
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: cannot be read, expected a .npy file ({error})") from error
        if not isinstance(array, np.ndarray) or array.shape != shape:
            found = getattr(array, "shape", type(array).__name__)
            raise InputError(f"{path}: is {found}, expected an array {shape}")
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
            raise InputError(f"step {name}: argument is {argument!r}, expected a number")
        if takes in ("size", "factor"):
            fits = argument == int(argument) and 1 <= argument <= side
            if not fits or (takes == "factor" and side % int(argument)):
                raise InputError(f"step {name}: {argument} does not fit patterns of {side} pixels")
            return int(argument)
        if name == "divide" and argument == 0:
            raise InputError("step divide: by 0, expected another number")
        return float(argument)


def read_specification(path: Path) -> Specification:
    """Read the YAML file.

    Raises
    ------
    InputError
        If it is missing, no YAML, or does not say what is needed; the message names the field.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: holds {type(content).__name__}, expected fields such as label, n and output"
        )
    try:
        return Specification.model_validate({**content, "folder": path.parent})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path}: {field}: {first['msg']}") from error
