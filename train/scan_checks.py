"""Checks of a scan before the first epoch: what would train without an error, to a network that is worth nothing."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import photons, repeated_patterns
from ptychonnx.runtime.scan.forward_model import illumination

__all__ = ["check_probe_power", "check_repeated_patterns", "check_trainable", "without_dark_patterns"]

logger = logging.getLogger(__name__)

# Mean photons of a pattern over the power of the probe. Objects transmit less than everything; a thousandth is darker
# than any sample that is worth measuring, and ten leaves room for probes of another exposure.
_TRANSMISSION = (1e-3, 10)


def check_trainable(scan: Scan, size: int) -> None:
    """Refuse a scan that no network can be trained on.

    Raises InputError if the patterns have another size, there is no probe or no light, or all positions are the same.

    `size`: N of the network, pixels.
    """
    if scan.size != size:
        raise InputError(
            f"{scan.name}: patterns are {scan.size} x {scan.size} pixels, the network has n = {size}"
        )
    if scan.probe is None:
        raise InputError(f"{scan.name}: has no probe, which training needs for the physics and the weights")
    if scan.flux == 0:
        raise InputError(f"{scan.name}: every pattern is zero, expected photons")
    if len(scan) > 1 and not np.ptp(scan.positions, axis=0).any():
        row, column = scan.positions[0]
        raise InputError(
            f"{scan.name}: all {len(scan)} patterns have the same position ({row:g}, {column:g}), expected a scan "
            "whose windows overlap"
        )


def check_probe_power(scan: Scan) -> None:
    """Refuse patterns whose brightness contradicts the power of the probe, which the physics compares.

    Raises InputError if the mean pattern holds less than a thousandth or more than ten times the photons of the probe.
    """
    assert scan.probe is not None
    power = float(illumination(scan.probe.astype(np.complex128)).sum())
    transmission = scan.flux / power if power > 0 else np.inf
    least, most = _TRANSMISSION
    if not least <= transmission <= most:
        raise InputError(
            f"{scan.name}: the mean pattern holds {scan.flux:.3g} photons and the probe {power:.3g}, a ratio of "
            f"{transmission:.2g}, expected {least:g} to {most:g}: scale the probe to the patterns, as --probe does"
        )


def check_repeated_patterns(name: str, diffraction: NDArray[np.float32]) -> None:
    """Name patterns that equal an earlier one, as a detector leaves them that stopped in the middle of a scan.

    Raises InputError if all patterns of the scan `name` are the same; some are logged.

    `diffraction`: amplitudes [n, N, N].
    """
    repeated = np.flatnonzero(repeated_patterns(diffraction, set()))
    if not len(repeated):
        return
    if len(repeated) == len(diffraction) - 1:
        raise InputError(
            f"{name}: all {len(diffraction)} patterns are the same, expected a scan of an object"
        )
    logger.warning(
        "%s: %d of %d patterns equal an earlier one (pattern %d is the first): did the detector stop?",
        name,
        len(repeated),
        len(diffraction),
        repeated[0],
    )


def without_dark_patterns(scan: Scan) -> Scan:
    """The scan without patterns that hold no photon, which teach a network an empty object; their number is logged."""
    dark = photons(scan.diffraction) == 0
    if dark.all() or not dark.any():
        return scan
    logger.warning(
        "%s: %d of %d patterns hold no photon (pattern %d is the first) and are left out of the training",
        scan.name,
        dark.sum(),
        len(scan),
        np.argmax(dark),
    )
    return scan.subset(np.flatnonzero(~dark))
