"""Iterative reconstruction by rPIE with the package cdtools, from vacuum or from the object of a network.

The regularised ptychographic iterative engine visits one pattern after the other and updates the object in its window:

    O <- O + beta conj(P) (psi' - psi) / ((1 - alpha) |P|^2 + alpha max |P|^2)

psi = P O is the exit wave, psi' the exit wave with the measured amplitude on the detector, and |P|^2 the sum over the
modes of the probe (Maiden, Johnson and Li, Optica 4, 736, 2017). alpha = 1 is ePIE (Maiden and Rodenburg,
Ultramicroscopy 109, 1256, 2009): a step of length beta / (2 max |P|^2) down the gradient of the squared amplitude error
of one pattern. This is how it is implemented: `cdtools.models.FancyPtycho` and
`cdtools.reconstructors.SGDReconstructor` provide forward model, gradient and descent, and the gradient of the object is
multiplied by max |P|^2 over the denominator before the step.

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

__all__ = ["ALPHA", "Iterations", "check_installed", "check_iterative", "iterate", "vacuum"]

# cdtools computes corners in single precision: a corner that is rounded to -1e-7 must still lie on the canvas.
_MARGIN = 1
_ROWS_AND_COLUMNS = np.eye(3, 2, dtype=np.float32)

# A smaller alpha converges faster with many photons and amplifies noise with few (docs/results/iterative.md).
ALPHA = 0.3


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


def check_iterative(scan: Scan, alpha: float = ALPHA) -> None:
    """Check the requirements of `iterate` before any work is done.

    Raises InputError if the package is not installed, the probe is unknown, or `alpha` is not in (0, 1].
    """
    check_installed()
    if scan.probe is None:
        raise InputError(
            f"{scan.name}: iterations need a probe and the scan has none: give one with --probe "
            "(`ptychonnx reconstruct --estimate-probe` estimates one)"
        )
    if not 0 < alpha <= 1:
        raise InputError(f"iterations: alpha is {alpha:g}, expected more than 0 and at most 1")


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
    alpha: float = ALPHA,
    seed: int = 0,
    watch: Callable[[int, Callable[[], NDArray[np.complex64]]], None] = lambda epoch, image: None,
    until: Callable[[Sequence[float]], bool] = lambda misfits: False,
) -> Iterations:
    """Run epochs of rPIE on a scan, on the CPU.

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
        Regularisation in (0, 1]: the smaller, the larger the updates where the probe is faint. 1 is ePIE.
    seed
        Seed of the order of the patterns, which changes from epoch to epoch.
    watch
        Called after each epoch with its number (from 1) and a function that returns the current object, complex64
        [rows, columns]. Its time is not counted.
    until
        Called after each epoch with the misfits so far; the iterations end if it returns True.

    Notes
    -----
    All intensities, float32 [n, N, N], are kept in memory.
    """
    check_iterative(scan, alpha)
    if epochs < 1:
        raise InputError(f"iterations: got {epochs} epochs, expected at least one")
    if not 0 < step < 2:
        raise InputError(f"iterations: step is {step:g}, expected a value between 0 and 2")
    scan = scan.settled()
    began = time.perf_counter()
    start = start or vacuum(scan)
    first = np.where(start.covered, start.object, 1).astype(np.complex64)
    problem = _Problem(scan, first, start.origin, refine_probe, alpha, seed)
    misfit, seconds = [], []
    for epoch, error in enumerate(problem.epochs(epochs, step), start=1):
        seconds.append(time.perf_counter() - began)
        if not np.isfinite(error):
            raise VerificationError(
                f"{scan.name}: the iterations diverged in epoch {epoch}, expected a probe that is scaled to the counts"
            )
        misfit.append(error)
        watch(epoch, problem.object)
        if until(misfit):
            break
        began = time.perf_counter()
    text = (
        f"{len(misfit)} epoch{'s' if len(misfit) > 1 else ''} of rPIE, alpha {alpha:g}, step {step:g}, probe "
        f"{'refined' if refine_probe else 'held'}, cdtools-py {version('cdtools-py')}"
    )
    stitched = Stitched(problem.object(), start.weight, start.origin)
    return Iterations(stitched, problem.probe(), tuple(misfit), tuple(seconds), text)


class _OneByOne:
    """Data loader for cdtools: one pattern at a time, in a new order each epoch.

    The loader of cdtools draws the order from the global random generator of torch.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self._dataset, self._random = dataset, np.random.default_rng(seed)
        self.current = 0

    def __iter__(self) -> Iterator[Any]:
        for index in self._random.permutation(len(self._dataset)):
            self.current = int(index)
            yield self._dataset[[self.current]]


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
        alpha: float,
        seed: int,
    ) -> None:
        from cdtools.datasets import Ptycho2DDataset
        from cdtools.models import FancyPtycho

        assert scan.probe is not None
        count, size = len(scan), scan.size
        corners = np.zeros((count, 3), dtype=np.float32)
        corners[:, :2] = window_corners(scan.positions, size) - np.asarray(origin) + _MARGIN
        amplitudes = np.asarray(scan.diffraction[:], dtype=np.float32)
        valid = scan.valid_pixels
        self._dataset = Ptycho2DDataset(corners, np.square(amplitudes))
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
        self._loader = _OneByOne(self._dataset, seed)
        preconditioner = _Preconditioner(scan.probe, corners[:, :2], alpha)
        self._light = preconditioner.brightest
        if alpha < 1:
            self._model.obj.register_hook(lambda gradient: preconditioner(gradient, self._loader.current))
        # cdtools reports the mean squared error per pixel.
        measured = float(np.mean(np.square(amplitudes[:, valid], dtype=np.float64)))
        self._measured = measured if measured > 0 else 1.0
        # cdtools divides the probe by its largest value: its gradient and its step are in that unit.
        unit = float(self._model.probe_norm)
        self._probe_factor = self._light / (unit**2 * max(float(np.abs(first).max()) ** 2, 1e-12))

    def epochs(self, count: int, step: float) -> Iterator[float]:
        """Run epochs and yield the misfit of each."""
        from cdtools.reconstructors import SGDReconstructor

        descent = SGDReconstructor(self._model, self._dataset)
        descent.adjust_optimizer(lr=step / (2 * self._light), lr_factors={"probe": self._probe_factor})
        descent.data_loader = self._loader
        for _ in range(count):
            yield float(np.sqrt(float(descent.run_epoch(calculation_width=1)) / self._measured))

    def object(self) -> NDArray[np.complex64]:
        """Current object, complex64 [rows, columns]."""
        inner = slice(_MARGIN, -_MARGIN)
        return self._model.obj.detach().numpy()[inner, inner].astype(np.complex64)

    def probe(self) -> NDArray[np.complex64]:
        """Current probe, complex64 [modes, N, N]."""
        return (self._model.probe.detach() * self._model.probe_norm).numpy().astype(np.complex64)
