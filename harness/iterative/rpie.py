"""Iterative reconstruction by rPIE and mPIE with the package cdtools, from vacuum or from the object of a network.

The regularised ptychographic iterative engine visits one pattern after the other and updates the object in its window:

    O <- O + beta conj(P) (psi' - psi) / ((1 - alpha) |P|^2 + alpha max |P|^2)

psi = P O is the exit wave, psi' the exit wave with the measured amplitude on the detector, and |P|^2 the sum over the
modes of the probe (Maiden, Johnson and Li, Optica 4, 736, 2017). alpha = 1 is ePIE (Maiden and Rodenburg,
Ultramicroscopy 109, 1256, 2009): a step of length beta / (2 max |P|^2) down the gradient of the squared amplitude error
of one pattern. This is how it is implemented: `cdtools.models.FancyPtycho` and
`cdtools.reconstructors.SGDReconstructor` provide forward model, gradient and descent, and the gradient of the object is
multiplied by max |P|^2 over the denominator before the step.

Momentum is that of mPIE in the same article, twice in each epoch but the first: with the object O_before of half an
epoch ago,

    V <- eta V + O - O_before,    O <- O + eta V

The last epochs are ePIE without momentum, which averages the noise that large steps have left.

cdtools computes |fft2(ifftshift(P O))|, which equals `forward_model.forward` with DC at [N // 2, N // 2]. It takes
positions as window corners in units of a basis, which is set to rows and columns of pixels here, so that the geometry
of the sample in metres and its signs do not enter. Fractions of a pixel shift the probe by a phase ramp on its Fourier
transform.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.reconstruction.stitching import Stitched, StitchedTiles, Stitcher, patch_weight
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import window_corners

__all__ = ["MOMENTUM", "Iterations", "algorithm", "check_installed", "check_iterative", "iterate", "vacuum"]

# cdtools computes corners in single precision: a corner that is rounded to -1e-7 must still lie on the canvas.
_MARGIN = 1
_ROWS_AND_COLUMNS = np.eye(3, 2, dtype=np.float32)

MOMENTUM = 0.8

# A smaller alpha converges faster with many photons and amplifies noise with few (docs/results/iterative.md): 1 up to
# this number of photons in a pattern, then their inverse fourth root, down to the smallest.
_PHOTONS_OF_EPIE, _SMALLEST_ALPHA = 1e4, 0.1

# With momentum: one epoch in so many is ePIE without, at most so many in all.
_ONE_LAST_IN, _MOST_LAST = 5, 2


@dataclass(frozen=True)
class Iterations:
    """Result of an iterative reconstruction.

    Attributes
    ----------
    stitched
        The object on the canvas of the start, with the weights of the start.
    probe
        complex64 [modes, N, N], refined or unchanged.
    misfit
        After each epoch ``sqrt(sum (A - measured)^2 / sum measured^2)`` over the valid pixels of all patterns, with the
        amplitude A at the time the pattern was visited.
    seconds
        Time of each epoch; the first includes preparation.
    text
        Summary of the settings in words.
    """

    stitched: Stitched
    probe: NDArray[np.complex64]
    misfit: tuple[float, ...]
    seconds: tuple[float, ...]
    text: str


def check_iterative(scan: Scan, alpha: float | None = None, momentum: float = MOMENTUM) -> None:
    """Check the requirements of `iterate` before any work is done.

    Raises InputError if the package is not installed, the probe is unknown, `alpha` is not in (0, 1], or `momentum` is
    not in [0, 1).
    """
    check_installed()
    if scan.probe is None:
        raise InputError(
            f"{scan.name}: iterations need a probe and the scan has none: give one with --probe "
            "(`ptychonnx reconstruct --estimate-probe` estimates one)"
        )
    if alpha is not None and not 0 < alpha <= 1:
        raise InputError(f"iterations: alpha is {alpha:g}, expected more than 0 and at most 1")
    if not 0 <= momentum < 1:
        raise InputError(f"iterations: momentum is {momentum:g}, expected a value from 0 and less than 1")


def check_installed() -> None:
    """Check that the package for iterations is installed.

    Raises InputError if it is not.
    """
    try:
        import cdtools  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"iterations need the package cdtools, which cannot be imported ({error}): pip install ptychonnx[iterative]"
        ) from error


def algorithm(momentum: float) -> str:
    """The name of the iterations: mPIE with momentum, rPIE without."""
    return "mPIE" if momentum else "rPIE"


def vacuum(scan: Scan) -> Stitched | StitchedTiles:
    """An object of ones on the canvas of a scan, with the weights that stitched patches would have."""
    stitcher = Stitcher(scan.positions, patch_weight("probe", scan.size, scan.probe))
    patch = np.ones((1, scan.size, scan.size), dtype=np.complex64)
    for position in scan.positions:
        stitcher.add(patch, position[None])
    return stitcher.result()


def iterate(
    scan: Scan,
    epochs: int,
    start: Stitched | StitchedTiles | None = None,
    *,
    refine_probe: bool = False,
    step: float = 1.0,
    alpha: float | None = None,
    momentum: float = MOMENTUM,
    seed: int = 0,
    watch: Callable[[int, Callable[[], NDArray[np.complex64]]], None] = lambda epoch, image: None,
    until: Callable[[Sequence[float]], bool] = lambda misfits: False,
    settled: Callable[[Sequence[float]], bool] = lambda misfits: False,
) -> Iterations:
    """Run epochs of mPIE, or of rPIE, on a scan, on the CPU.

    Raises InputError if the package is missing, the scan has no probe, an option is out of range, or the canvas is kept
    in tiles. Raises VerificationError if the iterations diverge.

    Parameters
    ----------
    scan
        Scan with a probe that is scaled to the counts. Pixels outside the mask are ignored.
    epochs
        Number of times that each pattern is visited, at most.
    start
        Object to start from, such as that of a network; vacuum if None. Pixels that no patch covers start as vacuum.
    refine_probe
        Update the probe too, by the rule of ePIE with object and probe exchanged.
    step
        beta, in (0, 2): 1 solves the brightest pixel of each pattern in one step.
    alpha
        Regularisation in (0, 1]: the smaller, the larger the updates where the probe is faint. 1 is ePIE. If None,
        ``(1e4 / photons) ** (1 / 4)`` for the mean photons of a pattern, at least 0.1 and at most 1.
    momentum
        eta of the object, in [0, 1). With momentum the last epoch of five to nine, and the last two of more, are ePIE
        without. 0: rPIE.
    seed
        Seed of the order of the patterns, which changes from epoch to epoch.
    watch
        Called after each epoch with its number (from 1) and a function that returns the current object, complex64
        [rows, columns]. Its time is not counted.
    until
        Called after each epoch with the misfits so far; the iterations end if it returns True.
    settled
        Called likewise; if it returns True, only the last epochs of ePIE follow.

    Notes
    -----
    All intensities, float32 [n, N, N], are kept in memory.
    """
    check_iterative(scan, alpha, momentum)
    if epochs < 1:
        raise InputError(f"iterations: got {epochs} epochs, expected at least one")
    if not 0 < step < 2:
        raise InputError(f"iterations: step is {step:g}, expected a value between 0 and 2")
    scan = scan.settled()
    began = time.perf_counter()
    start = start or vacuum(scan)
    first = np.where(start.covered, start.object, 1).astype(np.complex64)
    problem = _Problem(scan, first, start.origin, refine_probe, step, seed)
    if alpha is None:
        alpha = _alpha(problem.photons)
    misfit: list[float] = []
    seconds: list[float] = []
    end = epochs
    while len(misfit) < end:
        is_last = momentum > 0 and len(misfit) >= end - _last_epochs(end)
        is_first = not misfit
        error = problem.epoch(1.0 if is_last else alpha, 0.0 if is_first or is_last else momentum)
        seconds.append(time.perf_counter() - began)
        epoch = len(seconds)
        if not np.isfinite(error):
            raise VerificationError(
                f"{scan.name}: the iterations diverged in epoch {epoch}, expected a probe that is scaled to the counts"
            )
        misfit.append(error)
        watch(epoch, problem.object)
        if until(misfit):
            break
        if not is_last and settled(misfit):
            end = min(end, epoch + (_MOST_LAST if momentum else 0))
        began = time.perf_counter()
    text = (
        f"{len(misfit)} epoch{'s' if len(misfit) > 1 else ''} of {algorithm(momentum)}, alpha {alpha:.2g}, "
        f"{f'momentum {momentum:g}, ' if momentum else ''}step {step:g}, probe "
        f"{'refined' if refine_probe else 'held'}, cdtools-py {version('cdtools-py')}"
    )
    stitched = Stitched(problem.object(), start.weight, start.origin)
    return Iterations(stitched, problem.probe(), tuple(misfit), tuple(seconds), text)


def _alpha(photons: float) -> float:
    """The regularisation for a mean number of photons in a pattern."""
    return float(np.clip((_PHOTONS_OF_EPIE / max(photons, 1.0)) ** 0.25, _SMALLEST_ALPHA, 1.0))


def _last_epochs(epochs: int) -> int:
    """How many of the epochs with momentum are kept for the end."""
    return min(epochs // _ONE_LAST_IN, _MOST_LAST)


class _OneByOne:
    """Data loader for cdtools: one pattern at a time, in a new order each epoch.

    The loader of cdtools draws the order from the global random generator of torch. Before each half of an epoch
    `between` is called.
    """

    def __init__(self, dataset: Any, seed: int, between: Callable[[], None]) -> None:
        self._dataset, self._random = dataset, np.random.default_rng(seed)
        self._between = between
        self.current = 0

    def __iter__(self) -> Iterator[Any]:
        count = len(self._dataset)
        for place, index in enumerate(self._random.permutation(count)):
            if place in (0, count // 2):
                self._between()
            self.current = int(index)
            yield self._dataset[[self.current]]


class _Momentum:
    """Momentum of the object: where its last moves lead."""

    def __init__(self, parameter: Any) -> None:
        self._object = parameter
        self._before = parameter.detach().clone()
        self._velocity = 0.0

    def apply(self, eta: float) -> None:
        """Move the object on by `eta` times its momentum."""
        now = self._object.detach()
        self._velocity = eta * self._velocity + (now - self._before)
        now += eta * self._velocity
        self._before = now.clone()


class _Preconditioner:
    """Factor for the gradient of the object in the window of the current pattern."""

    def __init__(
        self, probe: NDArray[np.complexfloating], corners: NDArray[np.floating], alpha: float
    ) -> None:
        self._whole = np.floor(corners).astype(int)
        self._fractions = corners - self._whole
        self._waves = np.fft.fft2(probe.astype(np.complex64))
        self._frequencies = np.fft.fftfreq(probe.shape[-1])
        self._alpha = alpha
        self.brightest = float(np.sum(np.abs(probe.astype(np.complex128)) ** 2, axis=0).max())
        self._unmoved = self._factor(probe)

    def __call__(self, gradient: Any, index: int) -> Any:
        """Multiply the gradient [rows, columns], which is zero outside the window of pattern `index`."""
        row, column = self._whole[index]
        factor = self._unmoved
        if self._fractions[index].any():
            ramps = np.exp(-2j * np.pi * np.multiply.outer(self._fractions[index], self._frequencies))
            factor = self._factor(np.fft.ifft2(self._waves * np.multiply.outer(*ramps.astype(np.complex64))))
        size = len(factor)
        scaled = gradient.clone()
        scaled[row : row + size, column : column + size] *= gradient.new_tensor(factor)
        return scaled

    def _factor(self, probe: NDArray[np.complexfloating]) -> NDArray[np.float32]:
        light = np.sum(probe.real**2 + probe.imag**2, axis=0)
        factor = self.brightest / ((1 - self._alpha) * light + self._alpha * self.brightest)
        return np.asarray(factor, dtype=np.float32)


class _Problem:
    """A scan as a model and a dataset of cdtools."""

    def __init__(
        self,
        scan: Scan,
        first: NDArray[np.complex64],
        origin: tuple[float, float],
        refine_probe: bool,
        step: float,
        seed: int,
    ) -> None:
        from cdtools.datasets import Ptycho2DDataset
        from cdtools.models import FancyPtycho
        from cdtools.reconstructors import SGDReconstructor

        assert scan.probe is not None
        count, size = len(scan), scan.size
        corners = np.zeros((count, 3), dtype=np.float32)
        corners[:, :2] = window_corners(scan.positions, size) - np.asarray(origin) + _MARGIN
        amplitudes = np.asarray(scan.diffraction[:], dtype=np.float32)
        valid = scan.valid_pixels
        dataset = Ptycho2DDataset(corners, np.square(amplitudes))
        self._model = FancyPtycho(
            1.0,
            {"distance": 1.0, "basis": _ROWS_AND_COLUMNS},
            _ROWS_AND_COLUMNS,
            scan.probe,
            np.pad(first, _MARGIN, constant_values=1),
            background=np.zeros((size, size), dtype=np.float32),
            weights=np.ones(count, dtype=np.float32),
            mask=None if valid.all() else valid,
            plot_level=0,
        )
        updated = {"obj", "probe"} if refine_probe else {"obj"}
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad = name in updated
        self._eta = 0.0
        self._momentum = _Momentum(self._model.obj)
        self._loader = _OneByOne(dataset, seed, lambda: self._momentum.apply(self._eta))
        self._corners, self._lit_by = corners[:, :2], scan.probe
        self._set_alpha(1.0)
        self._model.obj.register_hook(self._preconditioned)
        # cdtools reports the mean squared error per pixel.
        measured = float(np.mean(np.square(amplitudes[:, valid], dtype=np.float64)))
        self._measured = measured if measured > 0 else 1.0
        self.photons = measured * np.count_nonzero(valid)
        # cdtools divides the probe by its largest value: its gradient and its step are in that unit.
        light, unit = self._preconditioner.brightest, float(self._model.probe_norm)
        probe_factor = light / (unit**2 * max(float(np.abs(first).max()) ** 2, 1e-12))
        self._descent = SGDReconstructor(self._model, dataset)
        self._descent.adjust_optimizer(lr=step / (2 * light), lr_factors={"probe": probe_factor})
        self._descent.data_loader = self._loader

    def epoch(self, alpha: float, momentum: float) -> float:
        """Run an epoch and return its misfit."""
        self._eta = momentum
        self._set_alpha(alpha)
        return float(np.sqrt(float(self._descent.run_epoch(calculation_width=1)) / self._measured))

    def _set_alpha(self, alpha: float) -> None:
        self._alpha = alpha
        self._preconditioner = _Preconditioner(self._lit_by, self._corners, alpha)

    def _preconditioned(self, gradient: Any) -> Any:
        return gradient if self._alpha == 1 else self._preconditioner(gradient, self._loader.current)

    def object(self) -> NDArray[np.complex64]:
        """Current object, complex64 [rows, columns]."""
        inner = slice(_MARGIN, -_MARGIN)
        return self._model.obj.detach().numpy()[inner, inner].astype(np.complex64)

    def probe(self) -> NDArray[np.complex64]:
        """Current probe, complex64 [modes, N, N]."""
        return (self._model.probe.detach() * self._model.probe_norm).numpy().astype(np.complex64)
