"""Iterative refinement of a reconstruction, or an iterative reconstruction from vacuum."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ptychonnx.harness.iterative.algorithm import Algorithm
from ptychonnx.harness.iterative.held_out import run_trial
from ptychonnx.harness.iterative.iterations import Epochs, check_iterative, iterate, vacuum
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.reconstruction.misfit import Misfit, forward_misfit
from ptychonnx.runtime.scan import Scan

__all__ = ["refine"]


def refine(
    scan: Scan,
    reconstruction: Reconstruction | None,
    epochs: Epochs,
    algorithm: Algorithm | None = None,
    progress: Progress = SILENT,
    *,
    until: Callable[[Sequence[float]], bool] = lambda misfits: False,
) -> Reconstruction:
    """Iterate from the object of a reconstruction, or from vacuum.

    Raises InputError or VerificationError as `ptychonnx.harness.iterative.iterations.iterate`.

    * `scan`, `algorithm`, `until`: see `ptychonnx.harness.iterative.iterations.iterate`.
    * `epochs`: likewise; but ``auto`` runs none if the object of the reconstruction explains the patterns down to their
      noise, which more epochs would follow, unless smoothing predicts patterns better.
    * `reconstruction`: reconstruction of this scan to start from; vacuum if None.
    * `progress`: updated after each epoch, within the stage of the caller.

    In the result, `refinement` describes the iterations, `inference_seconds` includes their time and that of the trials
    that chose the smoothing, and `probe` holds the probe if it was refined. Without a network nothing was stitched:
    weighting and placement are ``none``. Patterns that a trial of the iterations did not see have a part in the verdict
    of the misfit, see `ptychonnx.harness.iterative.held_out`.
    """
    algorithm = algorithm or Algorithm()
    check_iterative(scan)
    origin = "vacuum" if reconstruction is None else "the object of the network"
    began = time.perf_counter()
    trial = run_trial(scan, None if reconstruction is None else reconstruction.stitched, algorithm)
    choosing = time.perf_counter() - began if trial.algorithm != algorithm else 0.0
    if (
        epochs == "auto"
        and reconstruction is not None
        and _leaves_noise_alone(reconstruction.misfit)
        and not trial.algorithm.smoothing
    ):
        return replace(
            reconstruction,
            refinement=f"0 epochs of {algorithm.name}: the object of the network explains the patterns down to their "
            "noise",
        )
    start = reconstruction or Reconstruction(vacuum(scan), "none", len(scan), 0.0, 0.0, placement="none")
    iterations = iterate(
        scan,
        epochs,
        start.stitched,
        trial.algorithm,
        watch=lambda epoch, image: progress.update(epoch),
        until=until,
    )
    explained = scan
    if algorithm.refine_probe:
        explained = replace(scan, probe=iterations.probe, probe_estimated=False)
    # Iterations fill what no patch covers with vacuum; an object is empty there.
    stitched = iterations.stitched
    stitched = replace(stitched, object=np.where(stitched.covered, stitched.object, 0))
    return replace(
        start,
        stitched=stitched,
        inference_seconds=start.inference_seconds + choosing + sum(iterations.seconds),
        refinement=f"{iterations.text}, from {origin}; relative misfit of the amplitudes {iterations.misfit[-1]:.2g}",
        probe=iterations.probe if algorithm.refine_probe else None,
        # The positions are the same; iterations have no patches of their own.
        misfit=forward_misfit(explained, stitched, start.agreement, trial.held_out),
    )


def _leaves_noise_alone(misfit: Misfit | None) -> bool:
    return misfit is not None and misfit.value == 0 and misfit.scattered == 0
