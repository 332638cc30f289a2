"""Reconstructions of one scan under the symmetries of the far field, and how much they differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.metrics.alignment import fit_factor
from ptychonnx.harness.metrics.reference_placement import reference_on_canvas
from ptychonnx.harness.metrics.region import declare_region
from ptychonnx.harness.uncertainty.symmetry import SYMMETRIES, Symmetry
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import Predictor
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.reconstruction import Reconstruction, reconstruct
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.probe_distance import probe_difference

__all__ = ["MEMBERS", "Spread", "members", "spread_of", "symmetries_of"]

# Sixteen reconstructions tell hardly more than four (docs/results/uncertainty.md).
MEMBERS = 4

# A beam that differs less from itself, as a part of its amplitude, is the same to a network that holds one beam.
_SAME_BEAM = 0.1


@dataclass(frozen=True)
class Spread:
    """Mean of the members, and how much they differ.

    * `object`: complex64 [rows, columns], mean of the members, rotated to the global phase of the first.
    * `amplitude`, `phase`: float64 [rows, columns], standard deviations over the members.
    * `region`: bool [rows, columns], where there is enough light to say anything.
    """

    object: NDArray[np.complex64]
    amplitude: NDArray[np.float64]
    phase: NDArray[np.float64]
    region: NDArray[np.bool_]


def symmetries_of(network: Predictor, scan: Scan) -> tuple[Symmetry, ...]:
    """The first `MEMBERS` symmetries of the far field that the network allows, the identity first.

    A general network takes the turned beam as an input. One that holds a beam allows the symmetries of this beam.

    Raises InputError if the network allows the identity alone, or the scan has no probe.
    """
    if scan.probe is None:
        raise InputError(f"{scan.name}: --uncertainty takes a scan with a probe, expected --probe FILE")
    if network.contract.general:
        return SYMMETRIES[:MEMBERS]
    probe = scan.probe
    allowed = tuple(
        symmetry for symmetry in SYMMETRIES if probe_difference(probe, symmetry.probe(probe)) < _SAME_BEAM
    )
    if len(allowed) < 2:
        raise InputError(
            f"--uncertainty: {network.name} holds one beam, and that of {scan.name} has no symmetry: expected a "
            "general network, such as zoo:any_64"
        )
    return allowed[:MEMBERS]


def members(
    network: Predictor,
    scan: Scan,
    first: Reconstruction,
    symmetries: Sequence[Symmetry],
    stitching: ReconstructOptions,
    batch: int,
    progress: Progress = SILENT,
) -> Iterator[NDArray[np.complex64]]:
    """Objects complex64 [rows, columns] on the canvas of `first`, which is that of the first symmetry, the identity."""
    stitched = first.stitched
    yield stitched.object
    for number, symmetry in enumerate(symmetries[1:], start=2):
        progress.stage(
            f"Reconstructing {scan.name}, symmetry {number} of {len(symmetries)}", len(scan), "patterns"
        )
        turned = reconstruct(network, symmetry.scan(scan), stitching, batch, progress).stitched
        yield reference_on_canvas(symmetry.back(turned), stitched.shape, stitched.origin)[0]


def spread_of(objects: Iterable[NDArray[np.complex64]], scan: Scan, first: Reconstruction) -> Spread:
    """Mean and spread of the members of a scan, of which `first` is the first; they are not kept."""
    stitched = first.stitched
    fixed, shape = stitched.object, stitched.shape
    region, _ = declare_region(scan, stitched.covered, stitched.origin)
    count, total = np.zeros(shape), np.zeros(shape, dtype=np.complex128)
    # Sums of amplitudes and of phases relative to the first, and of their squares.
    sums = np.zeros((2, 2, *shape))
    for image in objects:
        # A factor by least squares would darken the members by how much they differ.
        aligned = image * np.exp(1j * np.angle(fit_factor(image, fixed, region)))
        # At the border, which has hardly any light, windows of turned scans differ by a pixel.
        count += image != 0
        total += aligned
        for place, values in enumerate((np.abs(aligned), np.angle(aligned * fixed.conj()))):
            sums[place, 0] += values
            sums[place, 1] += values**2
    count = np.maximum(count, 1)
    means, squares = sums[:, 0] / count, sums[:, 1] / count
    # Of a sample, so that it does not depend on the number of members.
    amplitude, phase = np.sqrt(np.maximum(squares - means**2, 0) * count / np.maximum(count - 1, 1))
    return Spread(
        object=(total / count).astype(np.complex64),
        amplitude=amplitude,
        phase=phase,
        region=region,
    )
