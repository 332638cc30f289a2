"""Options of every command that reads scans: what a file does not say about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.text import Text

from ptychonnx.harness.cli.console import errors
from ptychonnx.harness.cli.shared_options import with_options
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.formats.read_options import (
    Axes,
    BadPixels,
    DirectBeam,
    Quantity,
    ReadOptions,
    Sign,
    Unit,
)
from ptychonnx.runtime.formats.readers.mapped import KEYS
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.orientation import Orientation

__all__ = ["note", "read_if_given", "with_reading"]

_PANEL = "What the scan file does not say"


def note(line: str) -> None:
    """Print how a scan was understood, beside the results."""
    errors.print(Text(line, style="dim"), soft_wrap=True)


def read_if_given(path: Path | None, reading: ReadOptions) -> Scan | None:
    """The scan of an option that may be left out.

    Raises
    ------
    InputError
        If it is left out and still something is said about it, or it cannot be read.
    """
    if path is not None:
        return read_scan(path, options=reading, log=note)
    if reading != ReadOptions():
        raise InputError("options about reading a scan were given, expected --scan FILE with them")
    return None


def _reading(
    map: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=PATH",
            help=f"Where an array is, for files of no known format; KEY: {', '.join(KEYS)}. Give it several times.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    companion: Annotated[
        Path | None,
        typer.Option(help="Second file of formats that have two, if not beside.", rich_help_panel=_PANEL),
    ] = None,
    positions_unit: Annotated[
        Unit | None, typer.Option(help="Of the positions.", rich_help_panel=_PANEL)
    ] = None,
    positions_axes: Annotated[
        Axes | None, typer.Option(help="Order of the positions' columns.", rich_help_panel=_PANEL)
    ] = None,
    positions_sign: Annotated[
        Sign | None,
        typer.Option(help="Axes that grow upwards or to the left in the file.", rich_help_panel=_PANEL),
    ] = None,
    quantity: Annotated[
        Quantity | None, typer.Option(help="What patterns are.", rich_help_panel=_PANEL)
    ] = None,
    dc: Annotated[
        DirectBeam | None, typer.Option(help="Where the direct beam is.", rich_help_panel=_PANEL)
    ] = None,
    orientation: Annotated[
        Orientation, typer.Option(help="How to turn detector frames.", rich_help_panel=_PANEL)
    ] = "identity",
    crop: Annotated[
        int | None,
        typer.Option(help="Side of the square to cut, in detector pixels.", rich_help_panel=_PANEL),
    ] = None,
    crop_centre: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="ROW COLUMN", help="Direct beam to cut around.", rich_help_panel=_PANEL),
    ] = None,
    rebin: Annotated[
        int, typer.Option(help="Detector pixels to add up along each axis.", rich_help_panel=_PANEL)
    ] = 1,
    bad_pixels: Annotated[
        BadPixels, typer.Option(help="Values that are no counts, outside the mask.", rich_help_panel=_PANEL)
    ] = "refuse",
    pixel_size: Annotated[
        float | None, typer.Option(help="Of the object, in metres.", rich_help_panel=_PANEL)
    ] = None,
    wavelength: Annotated[float | None, typer.Option(help="In metres.", rich_help_panel=_PANEL)] = None,
) -> ReadOptions:
    values = dict(locals())
    mapping = dict(_pair(text) for text in values.pop("map") or [])
    try:
        return ReadOptions(mapping=mapping, **values)
    except ValidationError as error:
        first = error.errors()[0]
        name = "--" + str(first["loc"][0]).replace("_", "-")
        raise InputError(f"{name} {first['input']}: {first['msg'].lower()}") from error


def _pair(text: str) -> tuple[str, str]:
    key, equals, path = text.partition("=")
    if not (key and equals and path):
        raise InputError(f"--map {text}: expected KEY=PATH, with one of the keys {', '.join(KEYS)}")
    return key, path


# A command gets them as one argument `reading: ReadOptions`.
with_reading = with_options("reading", _reading)
