"""Units of positions in files of unknown format."""

from __future__ import annotations

import re
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.quantities import LENGTH_UNITS, unit_factor
from ptychonnx.runtime.formats.read_options import METRES, Convention, ReadOptions
from ptychonnx.runtime.formats.readers.mapped_arrays import MappedArrays

__all__ = ["POSITION_UNITS", "UNIT_SUFFIX", "positions_unit"]

# No stage scans further than this many metres, and no scan on a canvas of pixels spans as little.
_LARGEST_SPAN_M = 0.05
# Units of positions by every name that files use.
POSITION_UNITS = {
    name: unit for name, metres in LENGTH_UNITS.items() for unit in METRES if METRES[unit] == metres
}
POSITION_UNITS |= {"px": "px", "pixel": "px", "pixels": "px"}
# Endings of names that state a unit, such as lambda_nm, y [mm] and x (um).
UNIT_SUFFIX = re.compile(rf"(?:_|[\s(\[/]+)({'|'.join(map(re.escape, POSITION_UNITS))})[)\]\s]*$")


def positions_unit(
    arrays: MappedArrays,
    keys: tuple[str, ...],
    of_columns: tuple[str, ...],
    values: NDArray[np.float64],
    options: ReadOptions,
) -> Convention:
    """The unit of positions [n, 2], stated or by their span.

    Raises InputError if a stated unit is unknown, or rows and columns have different ones, and the options do not state
    one.

    `keys`: those of the mapping that hold positions. `of_columns`: names of the columns, if they are a table.
    """
    stated = [unit for key in keys for unit in _stated_units(arrays, key, of_columns, options)]
    if len({unit.value for unit in stated}) > 1 and options.positions_unit is None:
        units = " and ".join(unit.value for unit in stated)
        raise InputError(
            f"{arrays.path}: the positions are in {units}, expected one unit for rows and columns"
        )
    if stated:
        if len(keys) > 1 and len({unit.reason for unit in stated}) == len(stated) == 1:
            arrays.notes.append(
                f"positions: {' or '.join(keys)} states no unit, {stated[0].value} taken for both"
            )
        return stated[0]
    finite = values[np.isfinite(values).all(axis=1)] if values.ndim == 2 else values[:0]
    span = float(np.ptp(finite, axis=0).max()) if finite.size else np.inf
    if span == 0:
        return Convention("px", "assumed")
    if span < _LARGEST_SPAN_M:
        return Convention("m", f"they span {span:.3g}, too little for pixels")
    return Convention("px", f"they span {span:.4g}, too much for metres")


def _unit_of(name: str) -> str:
    """The unit of positions that a name means, in any spelling; empty if there is none."""
    name = name.strip()
    if name.lower() in ("px", "pixel", "pixels"):
        return "px"
    with suppress(InputError):
        metres = unit_factor(name, LENGTH_UNITS, "")
        return next((unit for unit in METRES if METRES[unit] == metres), "")
    return ""


def _stated_units(
    arrays: MappedArrays, key: str, of_columns: tuple[str, ...], options: ReadOptions
) -> list[Convention]:
    """The unit of an array by its attribute or the names of its columns, else by its own name."""
    array = arrays.find(key, "positions")
    texts = arrays.units(key, array)
    units = [_unit_of(name) for name in texts]
    if units and all(units):
        return [Convention(unit, "from the units of the file") for unit in units]
    name = ", ".join(texts).strip()
    if name and options.positions_unit is None:
        raise InputError(
            f"{arrays.where(key)}: its units are {name!r}, expected {', '.join(METRES)} or px: --positions-unit says "
            "which"
        )
    for names in (of_columns, (arrays.names[key],)):
        matches = [match for one in names if (match := UNIT_SUFFIX.search(one.lower()))]
        if matches:
            return [Convention(POSITION_UNITS[match[1]], f"by the name {match.string}") for match in matches]
    return []
