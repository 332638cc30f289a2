"""What a network does not know about a scan, in lines for the person at the beamline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptychonnx.runtime.contract import Contract, Range
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import MappedAmplitudes
from ptychonnx.runtime.scan.beam_arrays import sampled_flux
from ptychonnx.runtime.scan.probe_distance import FAR, probe_distance, probe_of_thumbnail
from ptychonnx.runtime.scan.probe_geometry import (
    IN_FOCUS,
    defocus,
    fresnel_number,
    overlap_of,
    probe_diameter,
)

__all__ = ["beam_warnings", "brightened", "brightness_factor"]

# An artifact with a fixed scale gives an object whose amplitude is off by the square root of the ratio of the photons.
_BRIGHTNESS = 1.25

# A range of photons in the contract is that of training: noise changes by 40 % over this factor.
_OUTSIDE = 2.0

# The same for Fresnel numbers, which a probe determines to some ten percent.
_DEFOCUSED = 1.5


def beam_warnings(scan: Scan, contract: Contract, *, scaled: bool = True) -> list[str]:
    """One line for each property of the scan that the artifact does not know; empty if it knows all of them.

    `scaled`: whether the network receives the patterns times `brightness_factor`.
    """
    return [
        line
        for line in (
            _probe(scan, contract),
            _size(contract),
            _photons(scan, contract, scaled),
            _overlap(scan, contract),
            _oversampling(scan, contract),
            _defocus(scan, contract),
        )
        if line
    ]


def _probe(scan: Scan, contract: Contract) -> str:
    trained = contract.probe
    if contract.general:
        return ""
    kind = "was specialised for" if contract.specialised_from else "holds"
    if scan.probe is None:
        return f"probe: the scan has none, so whether it is the one that the artifact {kind} is unknown"
    if trained.thumbnail is not None:
        distance = probe_distance(scan.probe, probe_of_thumbnail(trained.thumbnail))
        if distance <= FAR:
            return ""
        return (
            f"probe: the scan has another beam than the artifact {kind} (distance {distance:.2f}, expected at most "
            f"{FAR:g}): use a general artifact, or specialise one for this scan"
        )
    if trained.sha256 is None or trained.sha256 == scan.settled().probe_sha256():
        return ""
    return (
        f"probe: that of the scan is not the one that the artifact {kind}, and the contract has no copy to measure how "
        "different they are"
    )


def _size(contract: Contract) -> str:
    known = contract.trained_for
    if known is None or not known.n or contract.n in known.n:
        return ""
    return (
        f"N: the network was trained on patterns of {' and '.join(map(str, known.n))} pixels, and the same weights are "
        f"used for {contract.n}"
    )


def _photons(scan: Scan, contract: Contract, scaled: bool) -> str:
    flux = sampled_flux(scan)
    if not contract.general:
        trained = contract.probe.flux
        if trained / _BRIGHTNESS <= flux <= trained * _BRIGHTNESS:
            return ""
        text = f"photons: {flux:.3g} in a pattern, the artifact has a fixed scale for {trained:.3g}: "
        factor = brightness_factor(scan, contract) if scaled else 1
        return text + (
            "amplitudes are off" if factor == 1 else f"patterns are multiplied by {factor:.3g} for it"
        )
    known = contract.trained_for
    if known is None or known.photons is None:
        return ""
    low, high = known.photons
    if low / _OUTSIDE <= flux <= high * _OUTSIDE:
        return ""
    words = "fewer" if flux < low else "more"
    return f"photons: {flux:.3g} in a pattern, {words} than the network was trained for ({_range(known.photons)})"


def brightness_factor(scan: Scan, contract: Contract) -> float:
    """Factor that brings the amplitudes of a scan to the photons for which an artifact has a fixed scale.

    It is 1 if the photons are about as many. It is 1 too for artifacts that take counts, which are whole numbers, and
    for foreign networks, whose number of photons nobody verified.
    """
    if contract.general or contract.input.domain == "counts" or contract.provenance.framework == "foreign":
        return 1.0
    flux = sampled_flux(scan)
    ratio = contract.probe.flux / flux if flux else 1.0
    return 1.0 if 1 / _BRIGHTNESS <= ratio <= _BRIGHTNESS else float(np.sqrt(ratio))


def brightened(scan: Scan, factor: float) -> Scan:
    """The scan with amplitudes multiplied by a factor when they are read."""
    if factor == 1:
        return scan
    scale = np.float32(factor)
    amplitudes = MappedAmplitudes(scan.diffraction, lambda patterns: patterns * scale)
    return replace(scan, diffraction=amplitudes)


def _overlap(scan: Scan, contract: Contract) -> str:
    known = contract.trained_for
    if known is None or known.overlap is None or (overlap := overlap_of(scan)) is None:
        return ""
    low, high = known.overlap
    if overlap >= low - 0.05:
        return ""
    return (
        f"overlap: {100 * overlap:.0f} %, less than the network was trained for ({100 * low:.0f} to "
        f"{100 * high:.0f} %)"
    )


def _oversampling(scan: Scan, contract: Contract) -> str:
    known = contract.trained_for
    # Other artifacts hold a beam, to which `_probe` compares that of the scan.
    if not contract.general or known is None or known.oversampling is None or scan.probe is None:
        return ""
    ratio = scan.size / probe_diameter(scan.probe)
    low, high = known.oversampling
    if 0.9 * low <= ratio <= 1.1 * high:
        return ""
    return (
        f"oversampling: the pattern is {ratio:.1f} times as wide as the probe, the network was trained for "
        f"{_range(known.oversampling)}"
    )


def _defocus(scan: Scan, contract: Contract) -> str:
    known = contract.trained_for
    if not contract.general or known is None or known.fresnel_number is None or scan.probe is None:
        return ""
    number = fresnel_number(scan.probe)
    low, high = known.fresnel_number
    if low / _DEFOCUSED <= number <= high * _DEFOCUSED:
        return ""
    place = "in focus" if number == IN_FOCUS else f"out of focus with a Fresnel number of {number:.2g}"
    if number < IN_FOCUS and scan.pixel_size and scan.wavelength:
        place += f" ({1e6 * abs(defocus(scan.probe)) * scan.pixel_size**2 / scan.wavelength:.3g} µm)"
    trained = _range(known.fresnel_number)
    return f"defocus: the beam is {place}, the network was trained for Fresnel numbers of {trained}"


def _range(values: Range) -> str:
    low, high = values
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
