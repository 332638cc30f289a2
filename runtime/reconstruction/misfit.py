"""Forward misfit of a reconstruction: the stitched object must explain the patterns.

Amplitudes are predicted from the object and the probe, and compared with the measured ones over the valid pixels. What
counting noise alone would leave, the expectation of ``(sqrt(k) - sqrt(l))^2`` for a Poisson number k of mean l, is
subtracted:

    misfit^2 = (sum (A - A_predicted)^2 - sum noise(A_predicted^2)) / sum A^2

The misfit is 0 for a perfect object, and 1 for an object that predicts nothing. It needs no reference, so it comes with
every reconstruction. An empty object explains the patterns of a weak object well, so the verdict also asks how much of
what an empty object leaves is explained.

The direct beam dominates these sums, and fine structure of the object scatters little light past it: the more pixels a
pattern has, the smaller is the misfit of an object that is equally wrong. So the same ratio is also taken over the
pixels to which an empty object sends less than half of the measured light: the misfit of the scattered light, whose
thresholds are the same for all sizes of pattern.

An object that was fitted to the patterns explains them more easily, so patterns that were held out have a part in the
verdict.

With few photons an object of mere noise explains the patterns down to their noise. So the noise that counting leaves in
the object is compared with its contrast.

The misfit is no distance from the true object: pixels that the light hardly reaches do not count, and a probe that is
wrong can be compensated by the object.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from ptychonnx.runtime.reconstruction.counting_noise import CountingNoise, counting_noise
from ptychonnx.runtime.reconstruction.neighbour_agreement import NeighbourAgreement
from ptychonnx.runtime.reconstruction.stitching import Stitched, StitchedTiles
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import sample_of
from ptychonnx.runtime.scan.forward_model import forward, window_corners

__all__ = [
    "DOUBTFUL",
    "GOOD",
    "SCATTERED_DOUBTFUL",
    "SCATTERED_GOOD",
    "VERDICTS",
    "HeldOut",
    "Misfit",
    "Verdict",
    "forward_misfit",
    "object_windows",
]

Verdict = Literal["good", "doubtful", "unknown", "wrong"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

# Up to GOOD the object explains the patterns; above DOUBTFUL it does not. The same for the scattered light alone. How
# these follow from simulated scans is in docs/explanation/beams.md.
GOOD, DOUBTFUL = 0.1, 0.25
SCATTERED_GOOD, SCATTERED_DOUBTFUL = 0.2, 0.5
# Light is scattered where an empty object predicts less than this share of what was measured.
_DIRECT = 0.5

# An object must explain this share of the square of the misfit that an empty one leaves.
_SHARE = 0.5

# Counting noise over contrast: above this the smaller SSIM of amplitude and phase is 0.2 to 0.75.
_NOISY = 0.3

# Patterns that were held out, of scans that were read rightly, had less where overlap is not too little to tell.
_GOOD_HELD_OUT = 0.05
# Patterns that share less than this part of their light with others cannot be predicted from them.
_SHARED = 0.3

# Offsets of the direct beam that are told. The objects of benchmarks.unseen_beams have less than 0.2.
_OFF_CENTRE_PX = 0.5

# Patterns that are predicted, evenly spread over the scan: enough for three digits.
_MOST_PATTERNS = 1024
_AT_ONCE = 32


@dataclass(frozen=True)
class Misfit:
    """Forward misfit of one reconstruction.

    * `value`: over all compared patterns.
    * `vacuum`: misfit of an empty object to the same patterns.
    * `scattered`: misfit over the pixels that hold scattered light; 0 if there are none.
    * `patterns`: int [m], indices of the compared patterns.
    * `per_pattern`: float64 [m], misfit of each.
    * `positions`: float64 [m, 2], their positions (row, column) in pixels: with `per_pattern` a map over the scan.
    * `agreement`: whether the patches of neighbours agree, see `neighbour_agreement`; None for objects without patches.
    * `held_out`: misfit of patterns to which the object was not fitted; None for objects that were fitted to none.
    * `noise`: noise that the photons leave in the object, and its contrast.
    * `beam_offset`: (rows, columns) in pixels from the middle of the patterns to the direct beam, by the mean slope of
      the phase of the object: an object with a ramp explains patterns that are moved by as much.
    """

    value: float
    vacuum: float
    scattered: float
    patterns: NDArray[np.intp]
    per_pattern: NDArray[np.float64]
    positions: NDArray[np.float64]
    agreement: NeighbourAgreement | None = None
    held_out: HeldOut | None = None
    noise: CountingNoise | None = None
    beam_offset: tuple[float, float] = (0.0, 0.0)

    @property
    def verdict(self) -> Verdict:
        """``good`` up to `GOOD`, ``wrong`` above `DOUBTFUL`, ``doubtful`` between; one step worse if the object
        explains less than half of what an empty one leaves. The scattered light has thresholds of its own, and the
        worse of the two counts; so it does of all patterns and those that were held out. ``doubtful`` instead of good
        if counting noise is more than 0.3 of the contrast. ``wrong`` too if neighbouring patches agree better with
        other positions, and ``unknown`` instead of good if they have too little in common to tell.
        """
        verdict = "doubtful" if self._is_noisy else self._explained
        if self.held_out is not None:
            verdict = max(verdict, self.held_out.verdict, key=VERDICTS.index)
        if self.agreement is None:
            return verdict
        if self.agreement.better is not None:
            return "wrong"
        return verdict if self.agreement.tells or verdict != "good" else "unknown"

    @property
    def _is_noisy(self) -> bool:
        """Whether the object explains the patterns and is hidden in their noise."""
        return self._explained == "good" and self.noise is not None and self.noise.share > _NOISY

    @property
    def _explained(self) -> Verdict:
        if not np.isfinite(self.value) or self.value > DOUBTFUL or self.scattered > SCATTERED_DOUBTFUL:
            return "wrong"
        explains = self.value**2 <= (1 - _SHARE) * self.vacuum**2
        if self.value > GOOD:
            return "doubtful" if explains else "wrong"
        return "good" if explains and self.scattered <= SCATTERED_GOOD else "doubtful"

    def __str__(self) -> str:
        means = {
            "good": "the object explains the patterns",
            "doubtful": self._doubt,
            "unknown": "cannot be judged",
            "wrong": "the object does not explain the patterns: do not use it",
        }
        worst = int(self.patterns[int(np.argmax(self.per_pattern))])
        held_out = "" if self.held_out is None else f"; {self.held_out}"
        return (
            f"forward misfit {self.value:.3f}, of the scattered light alone {self.scattered:.3f}{held_out}: "
            f"{self.verdict}, {self._with_reason(means[self.verdict])} (an empty object has {self.vacuum:.3f}; worst "
            f"pattern {worst}: {self.per_pattern.max():.3f}){self._ramp}"
        )

    @property
    def _ramp(self) -> str:
        if max(map(abs, self.beam_offset)) <= _OFF_CENTRE_PX:
            return ""
        rows, columns = self.beam_offset
        return (
            f"; the phase of the object is a ramp, as if the direct beam were {rows:+.1f} rows and {columns:+.1f} "
            "columns from the middle of the patterns (--crop with --crop-centre moves it)"
        )

    @property
    def _doubt(self) -> str:
        """Why the object is doubtful, and what helps."""
        if self._is_noisy and (self.held_out is None or self.held_out.verdict == "good"):
            assert self.noise is not None
            return (
                f"the object explains the patterns, but the noise of so few photons is {self.noise.share:.2f} times "
                "its contrast: count longer, or crop the patterns (--crop), which makes its pixels larger"
            )
        helps = (
            "iterate (--refine auto)"
            if self.held_out is None
            else "check probe and positions (`ptychonnx check`)"
        )
        return f"the object explains the patterns in part: {helps}"

    def _with_reason(self, meaning: str) -> str:
        """What a verdict means, and what the patches of neighbours have to do with it."""
        if self.verdict == "unknown" and self.held_out is not None and self.held_out.verdict == "unknown":
            return f"{meaning}: neighbouring patterns share too little light to predict each other"
        if self.agreement is None or not self.agreement.reason:
            # Nothing here tells why: transposed frames, for one, agree with each other.
            hint = "; `ptychonnx check` tests orientation, axes and units" if self.verdict == "wrong" else ""
            return meaning + hint
        if self.verdict == "unknown":
            return f"{meaning}: {self.agreement.reason}"
        if self.verdict == "wrong" and self.agreement.better is not None and self._explained != "wrong":
            return f"do not use the object: {self.agreement.reason}"
        return f"{meaning}; {self.agreement.reason}"


@dataclass(frozen=True)
class HeldOut:
    """Misfit of patterns to which an object was not fitted, see `ptychonnx.harness.iterative.held_out`.

    * `misfit`: of these patterns alone.
    * `shared`: share of their light that falls where the patterns to which the object was fitted have as much.
    """

    misfit: Misfit
    shared: float

    @property
    def verdict(self) -> Verdict:
        """That of the misfit, but ``good`` only up to 0.05; ``unknown`` instead of wrong if too little light is shared.

        Patterns that share no light with others cannot be predicted from them.
        """
        verdict = self.misfit._explained
        if verdict == "good" and self.misfit.value > _GOOD_HELD_OUT:
            return "doubtful"
        return "unknown" if verdict == "wrong" and self.shared < _SHARED else verdict

    def __str__(self) -> str:
        return f"of patterns that a trial did not see {self.misfit.value:.3f} and {self.misfit.scattered:.3f}"


# Objects and probes in units of other programs may exceed single precision, which makes the misfit infinite.
@np.errstate(over="ignore")
def forward_misfit(
    scan: Scan,
    stitched: Stitched | StitchedTiles,
    agreement: NeighbourAgreement | None = None,
    held_out: HeldOut | None = None,
) -> Misfit | None:
    """Misfit of an object to the patterns of a scan; None without a probe, or for an object that is kept in tiles.

    Patterns that have not been read yet are read; of more than 1,024 patterns, 1,024 are compared, evenly spread.

    `agreement`, `held_out`: attributes of the `Misfit`.
    """
    if scan.probe is None or not isinstance(stitched, Stitched):
        return None
    scan = scan.settled()
    assert scan.probe is not None
    probe = scan.probe.astype(np.complex64)
    index = sample_of(len(scan), _MOST_PATTERNS)
    count = len(index)
    valid = scan.valid_pixels
    empty = forward(np.ones((1, scan.size, scan.size), dtype=np.complex64), probe)[:, valid]
    excess, without, total = np.empty(count), np.empty(count), np.empty(count)
    # Per pixel: photons, what the object leaves beyond noise, and the square of that.
    light, left, squares = np.zeros((3, empty.shape[1]))
    for start in range(0, count, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        measured = np.asarray(scan.diffraction[index[part]])[:, valid]
        windows = object_windows(stitched, scan.positions[index[part]], scan.size)
        predicted = forward(windows, probe)[:, valid]
        photons = np.square(measured, dtype=np.float64)
        total[part] = np.sum(photons, axis=1)
        light += np.sum(photons, axis=0)
        error = _beyond_noise(measured, predicted)
        excess[part] = np.sum(error, axis=1)
        without[part] = np.sum(_beyond_noise(measured, empty), axis=1)
        left += np.sum(error, axis=0)
        squares += np.sum(np.square(error), axis=0)
    # Three standard deviations, so that pixels are not chosen by their noise, which the object cannot explain.
    dark = count * np.square(empty[0], dtype=np.float64) < _DIRECT * (light - 3 * np.sqrt(light))
    total = np.maximum(total, np.finfo(float).tiny)
    per_pattern = np.sqrt(np.maximum(excess, 0) / total)
    # Less than two standard deviations may be noise.
    significant = left[dark].sum() - 2 * np.sqrt(squares[dark].sum())
    value, vacuum, scattered = (
        float(np.sqrt(max(part, 0.0) / max(whole, np.finfo(float).tiny)))
        for part, whole in (
            (excess.sum(), total.sum()),
            (without.sum(), total.sum()),
            (significant, light[dark].sum()),
        )
    )
    noise = counting_noise(scan, stitched)
    return Misfit(
        value,
        vacuum,
        scattered,
        index,
        per_pattern,
        scan.positions[index],
        agreement,
        held_out,
        noise,
        _beam_offset(stitched, scan.size),
    )


def _beam_offset(stitched: Stitched, size: int) -> tuple[float, float]:
    """By how many pixels of patterns [N, N] a direct beam is off whose patterns an object explains."""
    image = np.where(stitched.covered, stitched.object, 0)
    steps = np.vdot(image[:-1], image[1:]), np.vdot(image[:, :-1], image[:, 1:])
    row, column = np.angle(steps) * size / (2 * np.pi)
    return float(row), float(column)


def _beyond_noise(measured: NDArray[np.floating], predicted: NDArray[np.floating]) -> NDArray[np.float64]:
    """Squared errors [n, pixels] of amplitudes, less what counting noise leaves on average."""
    means, noise = _noise_table()
    expected = np.interp(np.square(predicted, dtype=np.float64), means, noise)
    return np.square(measured - predicted, dtype=np.float64) - expected


@cache
def _noise_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and ``2 l - 2 sqrt(l) E[sqrt(k)]``, which is 2 l for faint pixels, 0.45 at one photon and 1/4 for many."""
    means = np.concatenate([[0.0], np.geomspace(1e-3, 100, 120)])
    k = np.arange(1, 400)
    probability = np.exp(k * np.log(means[1:, None]) - means[1:, None] - gammaln(k + 1))
    noise = 2 * means[1:] - 2 * np.sqrt(means[1:]) * (probability @ np.sqrt(k))
    return means, np.concatenate([[0.0], noise])


def object_windows(stitched: Stitched, positions: NDArray[np.float64], size: int) -> NDArray[np.complex64]:
    """Windows [n, size, size] at positions [n, 2] between pixels, interpolated linearly.

    Where nothing is known, and beyond the object, is vacuum.
    """
    image = np.where(stitched.weight > 0, stitched.object, 1)
    padded = np.pad(image, 2, constant_values=1)
    corners = window_corners(positions - np.asarray(stitched.origin), size) + 2
    whole = np.floor(corners).astype(int)
    rest = corners - whole
    views = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
    limits = np.array(views.shape[:2]) - 1
    result = np.zeros((len(positions), size, size), dtype=np.complex64)
    for row in (0, 1):
        for column in (0, 1):
            weight = np.abs(1 - row - rest[:, 0]) * np.abs(1 - column - rest[:, 1])
            corner = np.clip(whole + (row, column), 0, limits)
            result += weight[:, None, None].astype(np.float32) * views[corner[:, 0], corner[:, 1]]
    return result
