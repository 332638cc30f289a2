"""Estimate of the probe of a scan that has none: mean pattern, defocus by trial, then a few epochs of rPIE.

The mean pattern is about that of the beam alone. Its amplitude is the pupil; the phase of the pupil is unknown, and
defocus is by far its largest part. So the beam is tried at several distances from its focus, on both sides: each trial
is refined for a few epochs on patterns around the middle of the scan, and the one that explains them best is refined
further. Without the right phase, neighbouring patterns contradict each other.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.iterative.algorithm import Algorithm
from ptychonnx.harness.iterative.held_out import run_trial
from ptychonnx.harness.iterative.iterations import iterate
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.reconstruction.misfit import DOUBTFUL, SCATTERED_DOUBTFUL, forward_misfit
from ptychonnx.runtime.scan import Scan

__all__ = ["with_estimated_probe"]

# Radius over N to which defocus alone spreads the beam; both signs are tried.
_BLURS = (0.0, 0.06, 0.12, 0.18, 0.25, 0.33)
# Trials are ePIE: cautious steps, since the start is far from the truth.
_TRIAL_PATTERNS, _TRIAL_EPOCHS = 48, 4
_TRIAL = Algorithm(alpha=1.0, momentum=0.0, refine_probe=True)
_PATTERNS, _EPOCHS = 150, 30
_REFINEMENT = Algorithm(alpha=0.3, momentum=0.0, refine_probe=True)
# Share of the power of the mean pattern within the aperture.
_APERTURE = 0.9


def with_estimated_probe(scan: Scan, progress: Progress = SILENT) -> tuple[Scan, str]:
    """The scan with an estimated probe complex64 [1, N, N], and one line about it.

    Raises InputError if the scan has a probe, or the package for iterations is missing. Raises VerificationError if no
    trial explains the patterns, see `ptychonnx.runtime.reconstruction.misfit`.

    `progress` receives the number of epochs done, as a stage of its own.
    """
    if scan.probe is not None:
        raise InputError(f"{scan.name}: has a probe, expected --estimate-probe for a scan without one")
    scan = replace(scan, reference=None, labels=None)
    part, trial = _middle(scan, _PATTERNS), _middle(scan, _TRIAL_PATTERNS)
    starts = _starts(part)
    progress.stage(f"Estimating the probe of {scan.name}", len(starts) * _TRIAL_EPOCHS + _EPOCHS, "epochs")
    best, smallest = starts[0], np.inf
    for number, start in enumerate(starts, start=1):
        # One that is too far may diverge.
        with suppress(VerificationError):
            run = iterate(replace(trial, probe=start), _TRIAL_EPOCHS, algorithm=_TRIAL)
            if run.misfit[-1] < smallest:
                best, smallest = run.probe, run.misfit[-1]
        progress.update(number * _TRIAL_EPOCHS)
    try:
        run = iterate(
            replace(part, probe=best),
            _EPOCHS,
            algorithm=_REFINEMENT,
            watch=lambda epoch, image: progress.update(len(starts) * _TRIAL_EPOCHS + epoch),
        )
    except VerificationError as error:
        raise VerificationError(
            f"{scan.name}: no probe could be estimated, since the iterations diverged: give a probe with --probe FILE"
        ) from error
    explained = replace(part, probe=run.probe)
    misfit = forward_misfit(
        explained, run.stitched, held_out=run_trial(explained, None, Algorithm(smoothing=0)).held_out
    )
    assert misfit is not None
    text = (
        f"{scan.name}: probe estimated from the mean pattern and {_EPOCHS} epochs of rPIE on {len(part)} patterns, "
        f"{misfit.verdict}: forward misfit {misfit.value:.3f}, that of an empty object {misfit.vacuum:.3f}, of the "
        f"scattered light alone {misfit.scattered:.3f}{'' if misfit.held_out is None else f'; {misfit.held_out}'}"
    )
    if misfit.verdict == "wrong":
        raise VerificationError(
            f"{text}; expected at most {DOUBTFUL:g} and {SCATTERED_DOUBTFUL:g}: give a probe with --probe FILE"
        )
    return replace(scan, probe=run.probe, probe_estimated=True), text


def _middle(scan: Scan, count: int) -> Scan:
    """The patterns nearest to the middle of the scan, which overlap."""
    distance = np.hypot(*(scan.positions - np.median(scan.positions, axis=0)).T)
    return scan.subset(np.sort(np.argsort(distance, kind="stable")[:count]))


def _starts(scan: Scan) -> list[NDArray[np.complex64]]:
    """Beams complex64 [1, N, N] with the mean pattern and the photons of a scan, at each defocus."""
    mean = np.mean(np.square(np.asarray(scan.diffraction[:]), dtype=np.float64), axis=0)
    k = np.fft.fftshift(np.fft.fftfreq(scan.size))
    square = k[:, None] ** 2 + k**2
    order = np.argsort(square, axis=None)
    power = np.cumsum(mean.ravel()[order])
    cutoff = np.sqrt(square.ravel()[order][np.searchsorted(power, _APERTURE * power[-1])])
    starts = []
    for blur in sorted({sign * blur for blur in _BLURS for sign in (-1, 1)}, key=abs):
        # The outermost ray is displaced by blur N, see `ptychonnx.harness.simulate.beams`.
        pupil = np.sqrt(mean) * np.exp(-1j * np.pi * blur * scan.size / cutoff * square)
        beam = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(pupil), norm="ortho"))
        starts.append(beam[None].astype(np.complex64))
    return starts
