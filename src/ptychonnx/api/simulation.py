"""`ptychonnx.simulate_lines`."""

from __future__ import annotations

import numpy as np

from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.harness.simulate.probes import ProbeKind
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.validation import checked

__all__ = ["simulate_lines"]


def simulate_lines(
    grid: int = 20,
    *,
    n: int = 64,
    probe: ProbeKind = "zone-plate",
    photons: float = 1e9,
    step: int = 6,
    jitter: int = 1,
    absorption: float = 0.5,
    phase_shift: float = 1.2,
    seed: int = 0,
    name: str = "test",
) -> Scan:
    """Simulate a raster scan of a known object: random lines, with Poisson noise.

    The scan equals `test.npz` of ``ptychonnx simulate lines`` with the same parameters.

    Parameters
    ----------
    grid
        The scan has grid x grid positions.
    n
        Side of a diffraction pattern in pixels.
    probe
        ``zone-plate``, a focused X-ray probe, or ``disk``, an idealised one.
    photons
        Mean photons in the pattern of a transparent object.
    step, jitter
        Raster step, and largest random shift of each position, in whole pixels of the object.
    absorption
        Amplitude contrast of the object, 0 to 1.
    phase_shift
        Phase contrast of the object in radians, 0 to 3.1.
    seed
        Seed of the object, the positions and the noise. The object differs from that of the training scan of this seed.
    name
        Name of the scan in messages and reports.

    Returns
    -------
    Scan
        With ``grid**2`` patterns [n, n], the probe, and the true object as `Scan.reference`.

    Raises
    ------
    InputError
        If a parameter is out of range.

    Examples
    --------
    >>> import ptychonnx
    >>> scan = ptychonnx.simulate_lines(grid=5, photons=1e6)
    >>> scan.diffraction.shape, scan.positions.shape, scan.probe.shape
    ((25, 64, 64), (25, 2), (1, 64, 64))
    """
    values = {
        "n": n,
        "probe": probe,
        "photons": photons,
        "step": step,
        "jitter": jitter,
        "test_grid": grid,
        "absorption": absorption,
        "phase_shift": phase_shift,
        "seed": seed,
    }
    config = checked(LinesConfig, values)
    # The second stream of the seed, as in `build_lines`: the first one is that of the training scan.
    return simulate_scan(config, config.test_grid, np.random.SeedSequence([config.seed, 1]), name)
