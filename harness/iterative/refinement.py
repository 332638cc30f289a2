"""Iterations in the form of a reconstruction: alone, or after a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ptychonnx.harness.iterative.rpie import ALPHA, iterate, vacuum
from ptychonnx.runtime.reconstruction.reconstruct import Reconstruction
from ptychonnx.runtime.scan import Scan

__all__ = ["ALGORITHM", "refine"]

ALGORITHM = "rPIE"


def refine(
    scan: Scan,
    reconstruction: Reconstruction | None,
    epochs: int,
    progress: Callable[[int], None] = lambda epoch: None,
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
        Of this scan; vacuum if None.
    progress
        Called after each epoch with its number.

    Returns
    -------
    The reconstruction, with what was done in its `refinement`, the time of the iterations in its `inference_seconds`,
    and the probe if it was refined. Without a network nothing was stitched: weighting and placement are ``none``.

    Raises
    ------
    InputError
        See `ptychonnx.harness.iterative.rpie.iterate`.
    """
    start = "vacuum" if reconstruction is None else "the object of the network"
    begin = reconstruction or Reconstruction(vacuum(scan), "none", len(scan), 0.0, 0.0, placement="none")
    done = iterate(
        scan,
        epochs,
        begin.stitched,
        refine_probe=refine_probe,
        alpha=alpha,
        watch=lambda epoch, image: progress(epoch),
    )
    return replace(
        begin,
        stitched=done.stitched,
        inference_seconds=begin.inference_seconds + sum(done.seconds),
        refinement=f"{done.text}, from {start}; relative misfit of the amplitudes {done.misfit[-1]:.2g}",
        probe=done.probe if refine_probe else None,
    )
