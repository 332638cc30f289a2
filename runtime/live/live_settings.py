"""How a live series is reconstructed, and what cannot be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError, UnsupportedError
from ptychonnx.runtime.formats.read_options import ReadOptions
from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.reconstruction.stitching import patch_weight

__all__ = ["LiveSettings", "check_network"]


@dataclass(frozen=True)
class LiveSettings:
    """How a series is reconstructed."""

    # Conventions of frames and positions; those that are left out are defaults: counts, the direct beam in the centre,
    # and (row, column).
    reading: ReadOptions
    stitching: ReconstructOptions  # as for a finished scan
    probe: NDArray[np.complex64] | None = None  # complex64 [modes, N, N] of any power, or None
    mask: NDArray[np.bool_] | None = None  # bool [rows, columns] of the detector, True = valid, or None
    batch: int = DEFAULT_BATCH  # patterns in a run of the network
    interpolate: bool = False  # whether missing positions are interpolated
    source: str = "frames"  # of the frames, for messages


def check_network(network: Predictor, settings: LiveSettings) -> None:
    """Refuse networks and settings that cannot work, before anything is received.

    Raises UnsupportedError if the network takes groups of neighbouring patterns, which are known only at the end.
    Raises InputError if the network or the weighting needs a probe and there is none.
    """
    contract = network.contract
    if contract.gridsize != 1:
        raise UnsupportedError(
            f"{network.name}: takes groups of {contract.channels} neighbouring patterns, which are known only when the "
            "scan is complete, expected a network of gridsize 1"
        )
    if contract.general and settings.probe is None:
        raise InputError(f"{network.name}: is general and needs the probe of the beam, expected --probe FILE")
    stitching = settings.stitching.resolved(contract)
    patch_weight(stitching.weighting, contract.n, settings.probe, stitching.window)
