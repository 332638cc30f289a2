"""What happens to every detector frame between the file and the scan: cut, turned, binned, bad pixels out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.formats.options import ReadOptions
from runtime.formats.scaling import root_of_counts, valid_values
from runtime.formats.stacks import Stack
from runtime.orientation import turn_pattern

__all__ = ["FramePlan", "Frames", "detect_dc", "read_frames"]

# Counts held at once beside the amplitudes, in bytes of float64.
_BLOCK_BYTES = 2**25
# Patterns whose mean tells where the direct beam is.
_SAMPLE = 16


@dataclass(frozen=True)
class Frames:
    """Amplitudes float32 [n, N, N] with DC at the centre, the mask [N, N], and notes on what was done."""

    diffraction: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    notes: list[str]


@dataclass(frozen=True)
class FramePlan:
    """From a frame of the file to a pattern: cut, direct beam to the centre, turn, bin.

    Attributes
    ----------
    rows, columns
        Of the detector that are read from the file.
    inner
        Cut after the direct beam has gone to the centre, for files that have it in the corner.
    corner, orientation, rebin
        See `runtime.formats.options.ReadOptions`.
    full, size
        Side of the square detector before cutting (None if it is none), and of the patterns N.
    """

    rows: slice
    columns: slice
    inner: slice
    corner: bool
    orientation: str
    rebin: int
    full: int | None
    cut: int
    size: int

    @classmethod
    def of(cls, shape: tuple[int, ...], corner: bool, options: ReadOptions, where: str) -> FramePlan:
        """Plan for a stack of shape (n, rows, columns).

        Raises
        ------
        InputError
            If the cut leaves the frame, the frame is not square, or cannot be binned.
        """
        height, width = shape[1:]
        if options.crop is None and options.crop_centre is not None:
            raise InputError(f"{where}: a centre to crop around is given and no side, expected both")
        if options.crop is None and height != width:
            raise InputError(
                f"{where} has shape {shape}, expected square patterns [n, N, N], or a side to --crop"
            )
        cut = options.crop or height
        rows = columns = inner = slice(None)
        if corner:
            if options.crop_centre is not None or height != width or cut > height:
                raise InputError(
                    f"{where} has the direct beam in the corner of {height} x {width} frames, expected a crop of "
                    f"at most {min(height, width)} pixels without a centre"
                )
            inner = _around(height // 2, cut, height, where)
        elif options.crop is not None:
            row, column = options.crop_centre or (height // 2, width // 2)
            rows, columns = _around(row, cut, height, where), _around(column, cut, width, where)
        if cut % options.rebin:
            raise InputError(
                f"{where}: {cut} pixels do not split into bins of {options.rebin}, expected a divisor"
            )
        return cls(
            rows,
            columns,
            inner,
            corner,
            options.orientation,
            options.rebin,
            height if height == width else None,
            cut,
            cut // options.rebin,
        )

    def upright(self, block: NDArray) -> NDArray:
        """Frames [..., rows, columns] as read: direct beam to the centre, cut, turned; not binned yet."""
        if self.corner:
            block = np.fft.fftshift(block, axes=(-2, -1))[..., self.inner, self.inner]
        return turn_pattern(block, self.orientation)

    def binned(self, amplitude: NDArray[np.float32]) -> NDArray[np.float32]:
        """Amplitudes of the photons added up over bins; bins start at pixel 0, so that DC stays in bin N // 2."""
        if self.rebin == 1:
            return amplitude
        photons = np.zeros((len(amplitude), self.size, self.size))
        # A sum of strided views is several times faster than one over two axes of a reshaped array.
        for row in range(self.rebin):
            for column in range(self.rebin):
                photons += np.square(amplitude[:, row :: self.rebin, column :: self.rebin], dtype=np.float64)
        return np.sqrt(photons).astype(np.float32)

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask of the file [rows, columns], as the patterns lie; a bin is trusted if all of its pixels are."""
        upright = self.upright(mask[self.rows, self.columns])
        bins = upright.reshape(self.size, self.rebin, self.size, self.rebin)
        return np.logical_and.reduce(bins, axis=(1, 3))


def read_frames(
    stack: Stack,
    plan: FramePlan,
    quantity: str,
    mask: NDArray[np.bool_] | None,
    bad_pixels: str,
    where: str,
    hint: str = "",
) -> Frames:
    """Read all patterns in blocks: a large scan is in memory once, as float32.

    Parameters
    ----------
    mask
        bool [rows, columns] of the file's frames, True = trust; other pixels may hold anything.
    where, hint
        File and key, and what else could be done about bad pixels, for the error.

    Raises
    ------
    InputError
        If values outside the mask are no counts and the policy is ``refuse``.
    """
    n, height, width = stack.shape
    if mask is not None and mask.shape != (height, width):
        raise InputError(f"{where}: the mask has shape {mask.shape}, expected {(height, width)}")
    kept = None if mask is None else mask[plan.rows, plan.columns]
    diffraction = np.empty((n, plan.size, plan.size), dtype=np.float32)
    broken_count, ever_broken = 0, np.zeros((plan.cut, plan.cut), dtype=bool)
    step = max(1, _BLOCK_BYTES // (8 * height * width))
    root: Callable[[NDArray], NDArray[np.float32]] = (
        root_of_counts if quantity == "counts" else lambda values: values.astype(np.float32)
    )
    for start in range(0, n, step):
        block = np.asarray(stack[slice(start, min(n, start + step)), plan.rows, plan.columns])
        valid = valid_values(block, where)
        whole = bool(valid.all())
        used = valid if kept is None else valid & kept
        amplitude = root(block if whole and kept is None else np.where(used, block, block.dtype.type(0)))
        if not whole:
            broken = ~valid if kept is None else ~valid & kept
            broken_count += int(np.count_nonzero(broken))
            ever_broken |= plan.upright(broken).any(axis=0)
        diffraction[start : start + len(block)] = plan.binned(plan.upright(amplitude))
    notes = []
    result = None if mask is None else plan.mask(mask)
    if broken_count and bad_pixels == "refuse":
        raise InputError(
            f"{where} has {broken_count} pixels that are negative, NaN or saturated and not masked, expected photon "
            f"{quantity}: {hint}--bad-pixels mask distrusts them"
        )
    if broken_count and bad_pixels == "mask":
        bins = ever_broken.reshape(plan.size, plan.rebin, plan.size, plan.rebin)
        good = ~np.logical_or.reduce(bins, axis=(1, 3))
        result = good if result is None else result & good
        notes.append(f"bad pixels: {np.count_nonzero(ever_broken)} of a frame masked in all patterns (given)")
    elif broken_count:
        notes.append(f"bad pixels: {broken_count} values set to 0 (given)")
    if result is not None:
        diffraction[:, ~result] = 0
    return Frames(diffraction, result, notes)


def detect_dc(stack: Stack, mask: NDArray[np.bool_] | None, where: str) -> tuple[str, str]:
    """Where the direct beam is, by the brightest pixel of a mean pattern: (``centre`` or ``corner``, reason)."""
    n, height, width = stack.shape
    total = np.zeros((height, width))
    for index in np.unique(np.linspace(0, n - 1, min(n, _SAMPLE)).astype(int)):
        frame = np.asarray(stack[slice(index, index + 1), slice(None), slice(None)])[0]
        total += np.where(valid_values(frame, where), frame, 0)
    if mask is not None and mask.shape == total.shape:
        total[~mask] = 0
    peak = np.array(np.unravel_index(np.argmax(total), total.shape))
    sides = np.array(total.shape)
    from_centre = np.abs(peak - sides // 2).max()
    from_corner = np.minimum(peak, sides - peak).max()
    place = "corner" if from_corner < from_centre else "centre"
    return place, f"the brightest pixel of the mean pattern is [{peak[0]}, {peak[1]}]"


def _around(centre: int, side: int, length: int, where: str) -> slice:
    start = centre - side // 2
    if start < 0 or start + side > length:
        raise InputError(
            f"{where}: a crop of {side} pixels around {centre} leaves the frame of {length}, expected it inside"
        )
    return slice(start, start + side)
