"""Iterative refinement of a reconstruction, or an iterative reconstruction from vacuum."""

from __future__ import annotations

from dataclasses import replace

from ptychonnx.harness.iterative.rpie import ALPHA, iterate, vacuum
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.reconstruction.misfit import forward_misfit
from ptychonnx.runtime.scan import Scan

__all__ = ["ALGORITHM", "refine"]

ALGORITHM = "rPIE"


def refine(
    scan: Scan,
    reconstruction: Reconstruction | None,
    epochs: int,
    progress: Progress = SILENT,
    *,
    refine_probe: bool = False,
    alpha: float = ALPHA,
) -> Reconstruction:
    """Iterate from the object of a reconstruction, or from vacuum.

    Parameters
    ----------
    scan, epochs, refine_probe, alpha
        See `ptychonnx.harness.iterative.rpie.iterate`.
    reconstruction
        Reconstruction of this scan to start from; vacuum if None.
    progress
        Updated after each epoch, within the stage of the caller.

    Returns
    -------
    Reconstruction
        `refinement` describes the iterations, `inference_seconds` includes their time, and `probe` holds the probe if
        it was refined. Without a network nothing was stitched: weighting and placement are ``none``.

    Raises
    ------
    InputError, VerificationError
        See `ptychonnx.harness.iterative.rpie.iterate`.
    """
    origin = "vacuum" if reconstruction is None else "the object of the network"
    start = reconstruction or Reconstruction(vacuum(scan), "none", len(scan), 0.0, 0.0, placement="none")
    iterations = iterate(
        scan,
        epochs,
        start.stitched,
        refine_probe=refine_probe,
        alpha=alpha,
        watch=lambda epoch, image: progress.update(epoch),
    )
    return replace(
        start,
        stitched=iterations.stitched,
        inference_seconds=start.inference_seconds + sum(iterations.seconds),
        refinement=f"{iterations.text}, from {origin}; relative misfit of the amplitudes {iterations.misfit[-1]:.2g}",
        probe=iterations.probe if refine_probe else None,
        misfit=forward_misfit(
            replace(scan, probe=iterations.probe, probe_estimated=False) if refine_probe else scan,
            iterations.stitched,
        ),
    )
