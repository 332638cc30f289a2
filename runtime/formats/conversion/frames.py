"""Detector frames become patterns: cropped, oriented, binned, bad pixels removed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.stacks import patterns_together
from ptychonnx.runtime.formats.conversion.dark_patterns import refuse_dark
from ptychonnx.runtime.formats.conversion.scaling import root_of_counts, valid_values
from ptychonnx.runtime.formats.conversion.stored_frames import StoredFrames
from ptychonnx.runtime.formats.read_options import ReadOptions
from ptychonnx.runtime.scan.amplitudes import LazyAmplitudes
from ptychonnx.runtime.scan.orientation import orient_pattern

__all__ = ["FramePlan", "Frames", "lazy_frames"]

# Size of the frames that are read together, and converted together, in bytes of float64.
_BLOCK_BYTES = 2**23
# Fraction of negative pixels that a detector's marks never reach, and subtracted noise does.
_BACKGROUND = 0.02
# Fraction of a frame that masks rarely exceed.
_LARGE_MASK = 0.1
# Upper limit for a block that the chunks of a file enlarge.
_LARGEST_BLOCK_BYTES = 2**27


@dataclass(frozen=True)
class Frames:
    """Amplitudes [n, N, N] with DC at the centre, still in the file; their mask [N, N]; and notes for the user."""

    diffraction: LazyAmplitudes
    mask: NDArray[np.bool_] | None
    notes: list[str]


@dataclass(frozen=True)
class FramePlan:
    """The steps from a frame in the file to a pattern: crop, direct beam to the centre, orient, bin."""

    # Part of the detector that is read from the file.
    rows: slice
    columns: slice
    # Crop after the direct beam has been moved to the centre, for files that have it in the corner.
    inner: slice
    # See `ptychonnx.runtime.formats.read_options.ReadOptions`.
    corner: bool
    orientation: str
    rebin: int
    # Side of the detector before cropping (None unless it is square), after cropping, and of the patterns, N.
    full: int | None
    cut: int
    size: int

    @classmethod
    def of(cls, shape: tuple[int, ...], corner: bool, options: ReadOptions, where: str) -> FramePlan:
        """Plan for a stack of shape (n, rows, columns).

        Raises InputError if the crop leaves the frame, the frame is not square, or it does not divide into bins.
        """
        height, width = shape[1:]
        if options.crop is None and options.crop_centre is not None:
            raise InputError(f"{where}: --crop-centre is given without --crop, expected both")
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
        """Frames [..., rows, columns] as read become cropped, centred and oriented, but not binned."""
        if self.corner:
            block = np.fft.fftshift(block, axes=(-2, -1))[..., self.inner, self.inner]
        return orient_pattern(block, self.orientation)

    def binned(self, amplitude: NDArray[np.float32]) -> NDArray[np.float32]:
        """Amplitudes of the photons summed over bins; bins start at pixel 0, so that DC stays in bin N // 2."""
        if self.rebin == 1:
            return amplitude
        photons = np.zeros((len(amplitude), self.size, self.size))
        # A sum of strided views is several times faster than one over two axes of a reshaped array.
        for row in range(self.rebin):
            for column in range(self.rebin):
                photons += np.square(amplitude[:, row :: self.rebin, column :: self.rebin], dtype=np.float64)
        return np.sqrt(photons).astype(np.float32)

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The file's mask [rows, columns] as a mask of the patterns; a bin is valid if all of its pixels are."""
        upright = self.upright(mask[self.rows, self.columns])
        bins = upright.reshape(self.size, self.rebin, self.size, self.rebin)
        return np.logical_and.reduce(bins, axis=(1, 3))


def lazy_frames(
    stored: StoredFrames, plan: FramePlan, bad_pixels: str, hint: str = "", name: str = "scan"
) -> Frames:
    """Frames that are read and converted on access.

    Only the policies ``mask`` and ``zero`` for bad pixels look through all frames at once, block by block: ``mask``
    needs the pixels that are bad in any of them, and both report the number.

    Raises InputError if the mask has another shape than the frames. When patterns are read: if values outside the mask
    are invalid and the policy is ``refuse``, or the file is damaged.

    Pixels outside the mask may hold anything.

    `hint`: another remedy for bad pixels. `name`: that of the patterns in messages.
    """
    mask, shape = stored.mask, stored.stack.shape[1:]
    if mask is not None and mask.shape != shape:
        raise InputError(f"{stored.where}: the mask has shape {mask.shape}, expected {shape}")
    stored = replace(stored, rows=plan.rows, columns=plan.columns)
    result = None if mask is None else plan.mask(mask)
    source = _Frames(stored, plan, bad_pixels == "refuse", result, hint)
    notes = []
    if bad_pixels != "refuse":
        count, ever = source.survey()
        if count and bad_pixels == "mask":
            bins = ever.reshape(plan.size, plan.rebin, plan.size, plan.rebin)
            good = ~np.logical_or.reduce(bins, axis=(1, 3))
            source = replace(source, good=good if source.good is None else source.good & good)
            masked = np.count_nonzero(ever)
            doubt = ", which is much: was a background subtracted? --bad-pixels zero keeps them"
            large = masked > _LARGE_MASK * ever.size
            notes.append(
                f"bad pixels: {masked} of a frame masked in all patterns (given){doubt if large else ''}"
            )
        elif count:
            notes.append(f"bad pixels: {count} values set to 0 (given)")
    amplitudes = LazyAmplitudes(
        (stored.stack.shape[0], plan.size, plan.size), source.read, source.block, name
    )
    return Frames(amplitudes, source.good, notes)


@dataclass(frozen=True)
class _Frames:
    """Stored frames and their conversion."""

    stored: StoredFrames
    plan: FramePlan
    refuse: bool  # whether invalid values are refused; otherwise they become 0
    good: NDArray[np.bool_] | None  # bool [N, N], the mask of the patterns
    hint: str

    @property
    def frame_bytes(self) -> int:
        """Size of a frame as it is read, in float64."""
        return 8 * self.stored.trusted.size

    @property
    def block(self) -> int:
        """Number of frames to read together, so that no chunk is decompressed twice."""
        together = patterns_together(self.stored.stack)
        if together * self.frame_bytes > _LARGEST_BLOCK_BYTES:
            together = 1
        return together * max(1, _BLOCK_BYTES // (together * self.frame_bytes))

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Patterns float32 [m, N, N]."""
        frames = self._frames(start, stop)
        patterns = np.empty((len(frames), self.plan.size, self.plan.size), dtype=np.float32)
        step = max(1, _BLOCK_BYTES // self.frame_bytes)
        for low in range(0, len(frames), step):
            patterns[low : low + step] = self._converted(frames[low : low + step], start + low)
        return patterns

    def survey(self) -> tuple[int, NDArray[np.bool_]]:
        """Number of invalid values, and the pixels of an upright frame that are invalid in any frame."""
        n = self.stored.stack.shape[0]
        count, ever = 0, np.zeros((self.plan.cut, self.plan.cut), dtype=bool)
        for start in range(0, n, self.block):
            frames = self._frames(start, min(start + self.block, n))
            broken = self._broken(valid_values(frames, self.stored.where))
            count += int(np.count_nonzero(broken))
            ever |= self.plan.upright(broken).any(axis=0)
        return count, ever

    def _frames(self, start: int, stop: int) -> NDArray:
        try:
            return np.asarray(self.stored.stack[slice(start, stop), self.plan.rows, self.plan.columns])
        except (OSError, RuntimeError, KeyError) as error:
            raise InputError(
                f"{self.stored.where} is damaged or unreadable ({error}), expected a complete file"
            ) from error

    def _broken(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return ~valid & self.stored.trusted

    def _converted(self, frames: NDArray, first: int) -> NDArray[np.float32]:
        valid = valid_values(frames, self.stored.where)
        whole = bool(valid.all())
        if self.refuse and not whole:
            self._refuse(frames, valid, first)
        if not whole or self.stored.mask is not None:
            frames = np.where(valid & self.stored.trusted, frames, frames.dtype.type(0))
        refuse_dark(frames, self.stored.where, first)
        # What float32 cannot hold becomes infinite, and is refused with the number of the pattern.
        with np.errstate(over="ignore"):
            amplitude = (
                root_of_counts(frames) if self.stored.quantity == "counts" else frames.astype(np.float32)
            )
            patterns = self.plan.binned(self.plan.upright(amplitude))
        return patterns if self.good is None else patterns * self.good

    def _refuse(self, frames: NDArray, valid: NDArray[np.bool_], first: int) -> None:
        broken = np.count_nonzero(self._broken(valid), axis=(1, 2))
        if not broken.any():
            return
        index = int(np.argmax(broken > 0))
        negative = frames[index][frames[index] < 0]
        where, expected = f"{self.stored.where}[{first + index}]", f"expected photon {self.stored.quantity}"
        # Marks are all alike, noise is not.
        if negative.size > _BACKGROUND * frames[index].size and np.ptp(negative) > 0:
            raise InputError(
                f"{where} has {broken[index]} invalid pixels, {negative.size} negative ones, as after the subtraction "
                f"of a background, {expected}: --bad-pixels zero sets them to 0"
            )
        if not np.any(frames[index][valid[index] & self.stored.trusted]):
            raise InputError(
                f"{where} holds no valid photons, {broken[index]} of its pixels are negative, NaN or saturated, "
                f"{expected}: --min-photons 1 leaves such patterns out"
            )
        raise InputError(
            f"{where} has {broken[index]} pixels that are negative, NaN or saturated and not masked, {expected}: "
            f"{self.hint}--bad-pixels mask masks them"
        )


def _around(centre: int, side: int, length: int, where: str) -> slice:
    start = centre - side // 2
    if start < 0 or start + side > length:
        raise InputError(
            f"{where}: a crop of {side} pixels around {centre} leaves the frame of {length}, expected it inside"
        )
    return slice(start, start + side)
