"""Options for reading a scan file, and the conventions that a file follows."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from ptychonnx.runtime.scan.orientation import Orientation
from ptychonnx.runtime.validation import Refusing

__all__ = [
    "METRES",
    "Axes",
    "BadPixels",
    "Convention",
    "Conventions",
    "DirectBeam",
    "Quantity",
    "ReadOptions",
    "Sign",
    "Unit",
]

Unit = Literal["px", "m", "mm", "um", "nm"]
Axes = Literal["row,column", "column,row"]
Sign = Literal["as-is", "flip-row", "flip-column", "flip-both"]
Quantity = Literal["counts", "amplitude"]
DirectBeam = Literal["centre", "corner"]
BadPixels = Literal["refuse", "mask", "zero"]

METRES: dict[str, float] = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9}


class ReadOptions(Refusing):
    """How to read a scan file. An option that is left out is taken from the file, or detected and reported.

    The fields are the command line's options and the keys of its configuration files: their descriptions are the
    help texts.

    Examples
    --------
    >>> import ptychonnx
    >>> options = ptychonnx.ReadOptions(positions_unit="um", pixel_size=8e-9, crop=128)
    >>> scan = ptychonnx.read_scan("scan.npz", options=ptychonnx.ReadOptions(crop=32))
    >>> scan.diffraction.shape
    (25, 32, 32)
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        title="Reading the scan (default: as the file or its format says)",
        json_schema_extra={
            "help_option": "--help-scan",
            "help_subject": "for scan files that do not describe themselves",
        },
    )

    mapping: dict[str, str] = Field(
        default_factory=dict,
        description="Path of an array inside a file of unknown format; may be repeated. KEY is patterns, positions, x, "
        "y, probe, mask, bad, pixel_size or wavelength",
        json_schema_extra={"flag": "--map", "metavar": "KEY=PATH"},
    )
    companion: Path | None = Field(
        default=None,
        description="Second file of a format that needs two, if it has another name or folder than usual",
    )
    positions_unit: Unit | None = Field(
        default=None, description="Unit of the positions; px are object pixels of the uncropped detector"
    )
    positions_axes: Axes | None = Field(default=None, description="Order of the two position columns")
    positions_sign: Sign | None = Field(
        default=None,
        description="Position axes to reverse, so that rows grow downwards and columns to the right",
    )
    quantity: Quantity | None = Field(
        default=None, description="Whether the data are photon counts or amplitudes, their square roots"
    )
    dc: DirectBeam | None = Field(
        default=None, description="Position of the direct beam (DC): pixel [N // 2, N // 2] or pixel [0, 0]"
    )
    orientation: Orientation = Field(
        default="identity",
        description="Flip or rotation of the frames that aligns them with positions and probe",
    )
    crop: int | None = Field(
        default=None, ge=2, description="Side of the square to cut out of each frame, in detector pixels"
    )
    crop_centre: tuple[int, int] | None = Field(
        default=None,
        description="Direct beam, around which frames are cropped, in detector pixels",
        json_schema_extra={"metavar": "ROW COLUMN"},
    )
    rebin: int = Field(
        default=1, ge=1, description="Detector pixels along each axis whose photons are summed into one"
    )
    bad_pixels: BadPixels = Field(
        default="refuse",
        description="Treatment of invalid values outside the mask: refuse the file, mask the pixel in all patterns, "
        "or set the value to zero",
    )
    pixel_size: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Object pixel size after cropping, in metres"
    )
    resample_probe: bool = Field(
        default=False,
        description="Resample a probe of another number of pixels than the patterns, over the same field of view, by "
        "cropping or padding its Fourier transform",
    )
    average_positions: bool = Field(
        default=False,
        description="Average consecutive positions, where a fly scan recorded the same number of them for every "
        "pattern.",
    )
    ignore_extra_positions: bool = Field(
        default=False, description="Use the first positions, where more were recorded than patterns."
    )
    raster: tuple[int, int] | None = Field(
        default=None,
        description="Rows and columns of a raster scan without recorded positions; columns are the fast axis.",
        json_schema_extra={"metavar": "ROWS COLUMNS"},
    )
    raster_step: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Step of the raster, in the unit of the positions.",
    )
    min_photons: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Patterns with fewer photons are left out; by default only those without any.",
    )
    external_links: bool = Field(
        default=False,
        description="Follow links and external storage of HDF5 files to other folders than the scan's own.",
    )
    wavelength: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Wavelength, in metres"
    )


@dataclass(frozen=True)
class Convention:
    """The value of a convention and the reason why it is believed."""

    value: str
    reason: str


@dataclass(frozen=True)
class Conventions:
    """What the numbers of a file mean."""

    unit: Convention
    axes: Convention
    sign: Convention
    quantity: Convention
    dc: Convention

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
        """Conventions that a format defines."""
        reason = f"{name} convention"
        return cls(*(Convention(value, reason) for value in (unit, axes, sign, quantity, dc)))

    def overridden(self, options: ReadOptions) -> Conventions:
        """The same conventions, where an option replaces what the file says."""
        options_by_name = {
            "unit": options.positions_unit,
            "axes": options.positions_axes,
            "sign": options.positions_sign,
            "quantity": options.quantity,
            "dc": options.dc,
        }
        return replace(
            self, **{name: Convention(value, "given") for name, value in options_by_name.items() if value}
        )

    def lines(self) -> list[str]:
        """One line per convention, for people."""
        return [
            f"{field.name}: {getattr(self, field.name).value} ({getattr(self, field.name).reason})"
            for field in fields(self)
        ]
