"""Iterative refinement of a reconstruction, or an iterative reconstruction from vacuum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ptychonnx.harness.iterative.iteration_options import Epochs
from ptychonnx.harness.iterative.rpie import MOMENTUM, iterate, vacuum
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.reconstruction.misfit import forward_misfit
from ptychonnx.runtime.scan import Scan

__all__ = ["MOST_EPOCHS", "has_settled", "refine"]

# Of `auto`.
MOST_EPOCHS = 100
_LAST, _FALL = 3, 0.06


def refine(
    scan: Scan,
    reconstruction: Reconstruction | None,
    epochs: Epochs,
    progress: Progress = SILENT,
    *,
    refine_probe: bool = False,
    alpha: float | None = None,
    momentum: float = MOMENTUM,
    until: Callable[[Sequence[float]], bool] = lambda misfits: False,
) -> Reconstruction:
    """Iterate from the object of a reconstruction, or from vacuum.

    Raises InputError or VerificationError as `ptychonnx.harness.iterative.rpie.iterate`.

    Parameters
    ----------
    scan, refine_probe, alpha, momentum, until
        See `ptychonnx.harness.iterative.rpie.iterate`.
    epochs
        Number of epochs; ``auto``: until the misfit `has_settled`, and two more, at most 100.
    reconstruction
        Reconstruction of this scan to start from; vacuum if None.
    progress
        Updated after each epoch, within the stage of the caller.

    Returns
    -------
    Reconstruction
        `refinement` describes the iterations, `inference_seconds` includes their time, and `probe` holds the probe if
        it was refined. Without a network nothing was stitched: weighting and placement are ``none``.
    """
    origin = "vacuum" if reconstruction is None else "the object of the network"
    start = reconstruction or Reconstruction(vacuum(scan), "none", len(scan), 0.0, 0.0, placement="none")
    automatic = epochs == "auto"
    iterations = iterate(
        scan,
        MOST_EPOCHS if epochs == "auto" else epochs,
        start.stitched,
        refine_probe=refine_probe,
        alpha=alpha,
        momentum=momentum,
        watch=lambda epoch, image: progress.update(epoch),
        until=until,
        settled=lambda misfits: automatic and has_settled(misfits),
    )
    misfit = forward_misfit(
        replace(scan, probe=iterations.probe, probe_estimated=False) if refine_probe else scan,
        iterations.stitched,
        # The positions are the same; iterations have no patches of their own.
        start.agreement,
    )
    return replace(
        start,
        stitched=iterations.stitched,
        inference_seconds=start.inference_seconds + sum(iterations.seconds),
        refinement=f"{iterations.text}, from {origin}; relative misfit of the amplitudes {iterations.misfit[-1]:.2g}",
        probe=iterations.probe if refine_probe else None,
        misfit=misfit,
    )


def has_settled(misfits: Sequence[float]) -> bool:
    """Whether the last three epochs lowered the misfit by less than 6 % in all."""
    return len(misfits) > _LAST and misfits[-1] > (1 - _FALL) * misfits[-1 - _LAST]
