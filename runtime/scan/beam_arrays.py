"""The beam of a scan as the arrays that a general network takes: probe, mask and scale."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan.amplitudes import photons, sample_of
from ptychonnx.runtime.scan.scan import Scan

__all__ = ["beam_arrays", "check_probe_known", "probe_arrays", "sampled_flux", "strongest_modes"]

_logger = logging.getLogger("ptychonnx.runtime.beam")

# A mask that hides more of the probe's own far field than this leaves too few counts to tell anything.
_LEAST_COUNTS = 0.5

# Patterns that are read to estimate the brightness.
_SAMPLE = 256


def beam_arrays(scan: Scan, modes: int | None = None) -> dict[str, NDArray[np.float32]]:
    """Probe float32 [modes, N, N, 2], mask float32 [N, N] and scale float32 [] of a scan.

    Raises InputError if the scan has no probe, or the probe, the patterns or the mask cannot be used.

    `modes`: number of modes that the network takes: missing ones are empty, and of too many the strongest are kept.
    None if it takes any number.
    """
    check_probe_known(scan)
    assert scan.probe is not None
    flux = sampled_flux(scan)
    if not flux > 0:
        raise InputError(f"{scan.name}: the patterns hold no photons, expected some")
    probe = scan.probe
    if scan.probe_estimated:
        probe = probe * np.float32(np.sqrt(flux / np.sum(np.abs(probe.astype(np.complex128)) ** 2)))
    return probe_arrays(probe, scan.mask, flux, modes, scan.name)


def check_probe_known(scan: Scan) -> None:
    """Refuse a scan without a probe for a general network.

    Raises InputError if the scan has no probe.
    """
    if scan.probe is None:
        raise InputError(
            f"{scan.name}: has no probe, which a general network needs, expected one in the scan or --probe FILE "
            "(`ptychonnx reconstruct --estimate-probe` estimates one)"
        )


def sampled_flux(scan: Scan) -> float:
    """Mean photons in a pattern; of patterns that are still in their file, those of a sample, evenly spread."""
    if isinstance(scan.diffraction, np.ndarray) or len(scan) <= _SAMPLE:
        return scan.flux
    return float(np.mean(photons(np.asarray(scan.diffraction[sample_of(len(scan), _SAMPLE)]))))


def probe_arrays(
    probe: NDArray[np.complexfloating],
    mask: NDArray[np.bool_] | None,
    photons: float,
    modes: int | None,
    name: str,
) -> dict[str, NDArray[np.float32]]:
    """`beam_arrays` of a probe complex [modes, N, N] and the mean photons in a pattern; `name` is for messages.

    Raises InputError if the probe is not finite or zero, or the mask leaves under half of the counts of the probe's own
    pattern.
    """
    if not np.isfinite(probe).all():
        raise InputError(
            f"{name}: the probe has {np.count_nonzero(~np.isfinite(probe))} values that are not finite, expected none"
        )
    if not np.any(probe):
        raise InputError(f"{name}: the probe is zero everywhere, expected an illumination")
    size, modes = probe.shape[-1], modes or len(probe)
    kept, lost = strongest_modes(probe, modes)
    if lost:
        _logger.warning(
            "%s: the probe has %d modes, the network takes %d: the strongest are kept, %.1f %% of the power is lost",
            name,
            len(probe),
            modes,
            100 * lost,
        )
    valid = np.ones((size, size), dtype=bool) if mask is None else mask
    far_field = np.fft.fftshift(np.fft.fft2(kept, norm="ortho"), axes=(-2, -1))
    counts = np.sum(np.abs(far_field) ** 2, axis=0)
    share = float(counts[valid].sum() / counts.sum())
    if share < _LEAST_COUNTS:
        raise InputError(
            f"{name}: the mask leaves {100 * share:.0f} % of the counts of the empty beam, expected at least "
            f"{100 * _LEAST_COUNTS:.0f} %"
        )
    complete = np.zeros((modes, size, size), dtype=np.complex64)
    complete[: len(kept)] = kept
    return {
        "probe": np.stack([complete.real, complete.imag], axis=-1),
        "mask": valid.astype(np.float32),
        "scale": np.asarray(size / np.sqrt(photons), dtype=np.float32),
    }


def strongest_modes(
    probe: NDArray[np.complexfloating], modes: int
) -> tuple[NDArray[np.complexfloating], float]:
    """At most `modes` modes with the most power, strongest first, and the share of the power that is lost."""
    if len(probe) <= modes:
        return probe, 0.0
    power = np.sum(np.abs(probe.astype(np.complex128)) ** 2, axis=(-2, -1))
    order = np.argsort(power)[::-1]
    return probe[order[:modes]], float(power[order[modes:]].sum() / power.sum())
