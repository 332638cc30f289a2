"""Numbers that no experiment has: a wrong unit, an outlier, a near-field scan read as far field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ptychonnx.runtime.errors import InputError, UnsupportedError
from ptychonnx.runtime.formats.conversion.detector_geometry import check_wavelength
from ptychonnx.runtime.scan import Reference

__all__ = [
    "check_far_field",
    "check_plausible",
    "check_wrapped",
    "counts_note",
    "covering_reference",
    "mask_note",
    "positions_note",
]

# No stage of a scan moves farther, in metres.
_LARGEST_SPAN = 0.1
# Object pixels from a tenth of an atom's radius to a millimetre.
_PIXELS = (1e-12, 1e-3)
# A position this many times farther from the median than nine tenths of the others is no part of the scan.
_OUTLIER = 100.0
# More repeated positions than this part of all may be values that a stage never wrote.
_REPEATED = 0.1
# Bits of the integers in which positions are stored, and the part of their range that a scan spans at most.
_INTEGERS = (16, 32, 64)
_WRAPPED = 1 / 16
# Steps of fewer pixels, in a scan that spans less than a window, are in another unit.
_LEAST_STEP = 0.5
# A mask with a smaller part of valid pixels is doubtful.
_LEAST_VALID = 0.5
# Amplitudes that are whole numbers by chance are smaller.
_LEAST_COUNT = 8.0
# A nearest neighbour that is this many times farther than at other positions.
_APART = 5.0


def check_plausible(
    path: Path,
    positions_key: str,
    positions: NDArray[np.float64],
    pixel_size: float | None,
    wavelength: float | None,
) -> None:
    """Refuse positions (in pixels), pixel sizes and wavelengths (in metres) that no experiment has.

    Raises InputError with the number and the option that changes it.
    """
    if wavelength is not None:
        check_wavelength(wavelength, str(path))
    if pixel_size is not None and not _PIXELS[0] < pixel_size < _PIXELS[1]:
        raise InputError(
            f"{path}: the object pixel size comes out as {pixel_size:g} m, expected {_PIXELS[0]:g} to {_PIXELS[1]:g}: "
            "are wavelength, distance and detector pixel in SI units? --pixel-size overrides it"
        )
    if len(positions) < 2 or not np.isfinite(positions).all():
        return
    span = float(np.ptp(positions, axis=0).max())
    if 0 < span < 1:
        raise InputError(
            f"{path}: {positions_key} spans {span:.2g} pixels of the object, expected a scan: are the positions in "
            "another unit? --positions-unit"
        )
    away = np.abs(positions - np.median(positions, axis=0)).max(axis=1)
    farthest = int(np.argmax(away))
    spread = float(np.quantile(away, 0.9)) if len(away) >= 10 else float(np.sort(away)[-2])
    if spread > 0 and away[farthest] > _OUTLIER * spread:
        raise InputError(
            f"{path}: {positions_key}[{farthest}] is {away[farthest]:.3g} pixels away from the others, expected all "
            f"within {spread:.3g}: is it an outlier?"
        )
    if pixel_size is not None and span * pixel_size > _LARGEST_SPAN:
        raise InputError(
            f"{path}: {positions_key} spans {span * pixel_size:.3g} m, expected at most {_LARGEST_SPAN:g} m: are the "
            "positions in another unit? --positions-unit, --pixel-size"
        )


def check_wrapped(where: str, positions: NDArray) -> None:
    """Refuse positions [n, 2] as a file has them that left the range of an integer and came back at its other end.

    Raises InputError with one of them; `where` (file and key) begins the message.
    """
    for values in np.asarray(positions, dtype=np.float64).T:
        if not np.isfinite(values).all() or (values != np.rint(values)).any():
            continue
        ordered = np.sort(values)
        for bits in _INTEGERS:
            # Numbers below zero that were stored without a sign lie just below this range, and their lines join again.
            unwrapped = np.where(values - ordered[0] > 2.0 ** (bits - 1), values - 2.0**bits, values)
            if np.ptp(values) <= 2.0**bits and np.ptp(unwrapped) < _WRAPPED * 2.0**bits < np.ptp(values) / 2:
                row = int(np.argmax(values != unwrapped))
                raise InputError(
                    f"{where}[{row}] is {values[row]:.0f} where others are about {np.median(unwrapped):.0f}, expected "
                    f"{unwrapped[row]:.0f}: was a number below zero stored in {bits} bits without a sign?"
                )


def positions_note(positions: NDArray[np.float64], size: int) -> str:
    """A line for the user if positions are doubtful: all are one; they lie on a row or a column, as when an axis is
    missing; many are repeated; their windows do not overlap, or are nearly the same; or one lies apart.

    `size`: N, pixels of a window.
    """
    if len(positions) < 3 or not np.isfinite(positions).all():
        return ""
    spans = np.ptp(positions, axis=0)
    if not spans.any():
        return f"positions: all {len(positions)} are the same: expected a scan"
    if not spans.all():
        return f"positions: all have the same {'row' if spans[0] == 0 else 'column'}: is an axis missing?"
    visited, times = np.unique(positions, axis=0, return_counts=True)
    places = len(visited)
    most = int(np.argmax(times))
    if times[most] > 2 and np.median(times) == 1 and len(positions) - places <= _REPEATED * len(positions):
        first = np.flatnonzero((positions == visited[most]).all(axis=1))[:2]
        return (
            f"positions: {times[most]} patterns have the same one (numbers {first[0]}, {first[1]}, ...): were all of "
            "them recorded?"
        )
    if len(positions) - places > _REPEATED * len(positions):
        return (
            f"positions: {len(positions)} patterns have {places} different ones: were all of them recorded?"
        )
    nearest = KDTree(positions).query(positions, 2)[0][:, 1]
    step, lone = float(np.median(nearest)), int(np.argmax(nearest))
    if 0 < step < _LEAST_STEP and spans.max() < size:
        return (
            f"positions: neighbours are {step:.2g} pixels apart, and all within {spans.max():.3g}: are they in another "
            "unit (--positions-unit, --pixel-size)?"
        )
    if step > size:
        return (
            f"positions: neighbours are {step:.3g} pixels apart, so that windows of {size} do not overlap: are they in "
            "another unit (--positions-unit, --pixel-size)?"
        )
    if step > 0 and nearest[lone] > max(_APART * step, size / 2):
        return (
            f"positions: that of pattern {lone} is {nearest[lone]:.3g} pixels from its nearest neighbour, expected "
            f"about {step:.3g}: is it an outlier?"
        )
    return ""


def mask_note(mask: NDArray[np.bool_] | None) -> str:
    """A line for the user if a mask, True = valid, leaves less than half of the pixels."""
    if mask is None or np.count_nonzero(mask) >= _LEAST_VALID * mask.size:
        return ""
    bad = mask.size - np.count_nonzero(mask)
    return f"mask: {bad} of {mask.size} pixels are bad: does it mark the good ones?"


def counts_note(pattern: NDArray) -> str:
    """A line for the user if a pattern of amplitudes holds whole numbers alone, as one of photon counts does."""
    values = np.asarray(pattern, dtype=np.float64)
    brightest = float(values.max(initial=0, where=np.isfinite(values)))
    if brightest < _LEAST_COUNT or (values != np.rint(values)).any():
        return ""
    return f"quantity: amplitude, but a pattern holds whole numbers up to {brightest:g}: is it --quantity counts?"


def covering_reference(
    reference: Reference, positions: NDArray[np.float64], log: Callable[[str], None]
) -> Reference | None:
    """A known object, or None, which is logged, if positions lie outside it."""
    if reference.covers(positions):
        return reference
    rows, columns = reference.object.shape
    log(f"known object: left out, since positions leave its {rows} x {columns} pixels")
    return None


def check_far_field(
    path: Path,
    positions: NDArray[np.float64],
    pixel_size: float | None,
    wavelength: float | None,
    distance: float | None,
    size: int,
) -> None:
    """Refuse scans that were measured in the near field, whose patterns are no Fourier transforms.

    The illumination is at least as wide as the steps of the scan, so that the Fresnel number is at least
    ``step**2 / (wavelength * distance)``. Above 1, and with steps of more than half a far-field window, neighbouring
    windows could not overlap as ptychography needs it.

    Raises UnsupportedError with the Fresnel number.

    `positions`: in object pixels of the far-field geometry, [n, 2]. `size`: N, pixels of a window.
    """
    if pixel_size is None or wavelength is None or distance is None or len(positions) < 2:
        return
    if not np.isfinite(positions).all():
        return
    step = float(np.median(KDTree(positions).query(positions, 2)[0][:, 1]))
    fresnel = (step * pixel_size) ** 2 / (wavelength * distance)
    if fresnel > 1 and step > size / 2:
        raise UnsupportedError(
            f"{path}: steps of {step * pixel_size:.3g} m at a distance of {distance:g} m have a Fresnel number of "
            f"{fresnel:.3g}, expected less than 1: near-field scans are not supported (--pixel-size overrides it)"
        )
