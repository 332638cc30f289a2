"""Findings about positions and probe of a scan: overlap, sampling, far field, outliers, modes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial import KDTree

from ptychonnx.harness.check.finding import NO_PROBE, Finding, FindingVerdict
from ptychonnx.harness.check.pattern_statistics import PatternStatistics
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.probe_geometry import overlap_of, probe_diameter

__all__ = ["geometry_findings"]

# Linear overlap that iterations need, below which no method connects the patterns, and above which nobody measures.
_OVERLAP, _LEAST_OVERLAP, _MOST_OVERLAP = 0.5, 0.2, 0.98
# A single pattern needs a window twice as wide as the probe; overlap makes up for less.
_SAMPLING, _LEAST_SAMPLING = 1.5, 1.1
_FRESNEL, _NEAR_FIELD = 0.1, 1.0
# A position this close to another, as a part of the usual step, was measured twice.
_TWICE = 0.1
_ISOLATED = 3.0
_MANY = 0.1
# The object lets at most this part of the light pass: more is another unit.
_TRANSMISSION, _OPAQUE = 1.2, 0.02


def geometry_findings(scan: Scan, statistics: PatternStatistics) -> Iterator[Finding]:
    """Findings in the order in which a person would look."""
    yield _positions(scan)
    yield _overlap(scan)
    yield _sampling(scan)
    yield _far_field(scan)
    yield _probe(scan, statistics)


def _positions(scan: Scan) -> Finding:
    if len(scan) < 3:
        return Finding("positions", "unknown", f"{len(scan)} patterns: too few to tell")
    nearest = KDTree(scan.positions).query(scan.positions, 2)[0][:, 1]
    step = float(np.median(nearest))
    twice = np.flatnonzero(nearest < _TWICE * step) if step else np.arange(len(scan))
    isolated = np.flatnonzero(nearest > _ISOLATED * step) if step else np.arange(0)
    values = {
        "step_px": step,
        "twice": twice.tolist(),
        "isolated": isolated.tolist(),
    }
    text = f"{step:.3g} pixels to the nearest neighbour"
    spans = np.ptp(scan.positions, axis=0)
    if not spans.all():
        text += f", all in one {'row' if spans[0] == 0 else 'column'}: is an axis missing?"
        return Finding("positions", "wrong", text, values)
    if not step:
        return Finding("positions", "wrong", "most positions were measured twice", values)
    verdict: FindingVerdict = "good"
    if len(twice) > _MANY * len(scan):
        text += f", {len(twice)} of {len(scan)} patterns share their place with another"
        verdict = "doubtful"
    if len(isolated):
        numbers = ", ".join(map(str, isolated[:4].tolist()))
        text += f", {len(isolated)} are far from all others (patterns {numbers}): outliers?"
        verdict = "doubtful"
    return Finding("positions", verdict, text, values)


def _overlap(scan: Scan) -> Finding:
    overlap = overlap_of(scan)
    if overlap is None:
        return Finding("overlap", "unknown", NO_PROBE)
    assert scan.probe is not None
    diameter = probe_diameter(scan.probe)
    values = {"overlap": overlap, "probe_diameter_px": diameter}
    text = f"{100 * overlap:.0f} % of a probe of {diameter:.3g} pixels"
    if overlap > _MOST_OVERLAP:
        text += ": almost no steps; are positions in another unit (--positions-unit)?"
        return Finding("overlap", "doubtful", text, values)
    if overlap >= _OVERLAP:
        return Finding("overlap", "good", text, values)
    if overlap >= _LEAST_OVERLAP:
        text += ": iterations need more, a network may do (smaller steps, or a wider probe)"
        return Finding("overlap", "doubtful", text, values)
    text += ": patterns are not connected; are positions in another unit (--positions-unit)?"
    return Finding("overlap", "wrong", text, values)


def _sampling(scan: Scan) -> Finding:
    if scan.probe is None:
        return Finding("sampling", "unknown", NO_PROBE)
    ratio = scan.size / probe_diameter(scan.probe)
    text = f"the window is {ratio:.2g} times as wide as the probe"
    values = {"oversampling": ratio}
    verdict: FindingVerdict = (
        "good" if ratio >= _SAMPLING else "doubtful" if ratio >= _LEAST_SAMPLING else "wrong"
    )
    if verdict != "good":
        text += f", expected {_SAMPLING:g} at least: move the detector away, or use a smaller probe"
    return Finding("sampling", verdict, text, values)


def _far_field(scan: Scan) -> Finding:
    known = (scan.pixel_size, scan.wavelength, scan.distance)
    if scan.probe is None or None in known:
        missing = ["pixel size", "wavelength", "distance"]
        names = [name for name, value in zip(missing, known, strict=True) if value is None]
        text = f"Fresnel number unknown: the scan has no {' and no '.join([*names, *['probe'] * (scan.probe is None)])}"
        return Finding("far field", "unknown", text)
    assert scan.pixel_size is not None
    assert scan.wavelength is not None
    assert scan.distance is not None
    radius = probe_diameter(scan.probe) / 2 * scan.pixel_size
    number = radius**2 / (scan.wavelength * scan.distance)
    verdict: FindingVerdict = "good" if number < _FRESNEL else "doubtful" if number < _NEAR_FIELD else "wrong"
    text = f"Fresnel number {number:.2g}"
    if verdict != "good":
        text += f", expected below {_FRESNEL:g}: patterns are no Fourier transforms"
    return Finding("far field", verdict, text, {"fresnel_number": number})


def _probe(scan: Scan, statistics: PatternStatistics) -> Finding:
    if scan.probe is None:
        return Finding("probe", "unknown", NO_PROBE)
    power = np.sum(np.abs(scan.probe.astype(np.complex128)) ** 2, axis=(1, 2))
    shares = np.sort(power / power.sum())[::-1]
    ratio = float(statistics.photons.mean() / power.sum())
    text = f"{len(power)} mode{'s' * (len(power) > 1)}, {100 * shares[0]:.0f} % of the power in the strongest"
    values = {"modes": len(power), "strongest_share": float(shares[0]), "transmission": ratio}
    if ratio > _TRANSMISSION:
        text += f", but the patterns hold {ratio:.3g} times its photons: it is in another unit (--probe scales it)"
        return Finding("probe", "wrong", text, values)
    if ratio < _OPAQUE:
        text += (
            f"; the object lets {100 * ratio:.2g} % of it pass: is it in another unit (--probe scales it)?"
        )
        return Finding("probe", "doubtful", text, values)
    return Finding("probe", "good", text, values)
