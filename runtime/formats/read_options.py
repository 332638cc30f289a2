"""What may be said about a scan file when it does not say it itself, or says it wrongly."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.runtime.scan.orientation import Orientation

__all__ = [
    "METRES",
    "Axes",
    "BadPixels",
    "Conventions",
    "DirectBeam",
    "Quantity",
    "ReadOptions",
    "Sign",
    "Stated",
    "Unit",
]

Unit = Literal["px", "m", "mm", "um", "nm"]
Axes = Literal["row,column", "column,row"]
Sign = Literal["as-is", "flip-row", "flip-column", "flip-both"]
Quantity = Literal["counts", "amplitude"]
DirectBeam = Literal["centre", "corner"]
BadPixels = Literal["refuse", "mask", "zero"]

METRES: dict[str, float] = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9}


class ReadOptions(BaseModel):
    """How to read a scan; what is None is taken from the file, or detected.

    Attributes
    ----------
    mapping
        Where arrays are in a file of no known format, see `ptychonnx.runtime.formats.readers.mapped`.
    companion
        The second file of formats that take two (ptychodus: diffraction and product; `_dp` and `_para`).
    positions_unit
        Of the positions; lengths need a pixel size, and `px` are those of the object at the full detector.
    positions_axes
        Order of the two columns.
    positions_sign
        Which axes grow against ours (rows downwards, columns to the right). What stands in the file is flipped.
    quantity
        What the patterns are.
    dc
        Where the direct beam is in the file: pixel [N // 2, N // 2] or [0, 0].
    orientation
        How frames must be turned to lie as positions and probe do. `flip-rows` turns them upside down,
        `rot90` a quarter anticlockwise, all about the direct beam.
    crop
        Side of the square to cut around `crop_centre` before anything else, in detector pixels.
    crop_centre
        (row, column) of the direct beam in the file; [rows // 2, columns // 2] if None.
    rebin
        Detector pixels along each axis whose photons are added up.
    bad_pixels
        What to do with values outside the mask that are no counts (negative, NaN, saturated): ``refuse`` the
        file, ``mask`` such pixels in all patterns, or set only these values to ``zero``.
    pixel_size
        Of the object as it comes out, in metres; one in the file is of the full detector, before the crop.
    wavelength
        In metres.

    Examples
    --------
    >>> import ptychonnx
    >>> options = ptychonnx.ReadOptions(positions_unit="um", pixel_size=8e-9, crop=128)
    >>> scan = ptychonnx.read_scan("scan.npz", options=ptychonnx.ReadOptions(crop=32))
    >>> scan.diffraction.shape
    (25, 32, 32)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mapping: dict[str, str] = Field(default_factory=dict)
    companion: Path | None = None
    positions_unit: Unit | None = None
    positions_axes: Axes | None = None
    positions_sign: Sign | None = None
    quantity: Quantity | None = None
    dc: DirectBeam | None = None
    orientation: Orientation = "identity"
    crop: int | None = Field(default=None, ge=2)
    crop_centre: tuple[int, int] | None = None
    rebin: int = Field(default=1, ge=1)
    bad_pixels: BadPixels = "refuse"
    pixel_size: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    wavelength: float | None = Field(default=None, gt=0, allow_inf_nan=False)


@dataclass(frozen=True)
class Stated:
    """A convention and how it is known."""

    value: str
    why: str


@dataclass(frozen=True)
class Conventions:
    """What the numbers of a file mean; each with the reason why it is believed."""

    unit: Stated
    axes: Stated
    sign: Stated
    quantity: Stated
    dc: Stated

    @classmethod
    def of_format(
        cls,
        name: str,
        *,
        unit: Unit,
        axes: Axes,
        sign: Sign = "as-is",
        quantity: Quantity = "counts",
        dc: DirectBeam = "centre",
    ) -> Conventions:
        """Conventions that a format fixes."""
        why = f"as {name} has it"
        return cls(*(Stated(value, why) for value in (unit, axes, sign, quantity, dc)))

    def overridden(self, options: ReadOptions) -> Conventions:
        """What the options say goes before what the file says."""
        given = {
            "unit": options.positions_unit,
            "axes": options.positions_axes,
            "sign": options.positions_sign,
            "quantity": options.quantity,
            "dc": options.dc,
        }
        return replace(self, **{name: Stated(value, "given") for name, value in given.items() if value})

    def lines(self) -> list[str]:
        """One line each, for people."""
        return [
            f"{field.name}: {getattr(self, field.name).value} ({getattr(self, field.name).why})"
            for field in fields(self)
        ]
