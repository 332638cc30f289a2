"""Findings about the patterns of a scan: units, photons, saturation, direct beam, bad pixels, drift."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

from ptychonnx.harness.check.finding import Finding, FindingVerdict
from ptychonnx.harness.check.pattern_statistics import PatternStatistics
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.conversion.direct_beam import estimate_direct_beam
from ptychonnx.runtime.formats.conversion.saturation import SATURATION_REMEDY, saturates
from ptychonnx.runtime.formats.conversion.stored_frames import StoredFrames
from ptychonnx.runtime.reconstruction.counting_noise import dose, noise_level
from ptychonnx.runtime.reconstruction.stitching import canvas_layout
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import illumination
from ptychonnx.runtime.scan.probe_geometry import probe_diameter

__all__ = ["pattern_findings"]

# Fewer photons in a pattern leave too little to any method; fewer than the second, to most.
_HOPELESS, _FEW = 100.0, 3000.0
# A pixel counts up to this multiple of its brightest neighbour.
_HOT = 4.0
_HOT_SIGMA = 10.0
# A dead pixel would have this many counts if it were like its dimmest neighbour.
_DEAD = 25.0
_MUCH_MASKED = 0.3
_OFF_CENTRE_PX, _OFF_CENTRE = 2.0, 1 / 8
_DRIFT, _SEGMENTS = 0.3, 10
_LOST = 0.2
# Objects of more are not looked at.
_MOST_PIXELS = 2**26
_NEIGHBOURS = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)


def pattern_findings(scan: Scan, statistics: PatternStatistics, read: list[str]) -> Iterator[Finding]:
    """Findings in the order in which a person would look.

    `read`: lines of the reader: how it understood the file.
    """
    yield _units(statistics, read)
    yield _photons(scan, statistics)
    yield _saturation(statistics)
    yield _direct_beam(scan)
    yield _bad_pixels(scan, statistics)
    yield _drift(statistics)
    yield _repetition(statistics)


def _units(statistics: PatternStatistics, read: list[str]) -> Finding:
    understood = [line for line in read if line.startswith(("unit:", "axes:", "quantity:", "dc:"))]
    text = "; ".join(understood) or "amplitudes and pixels, as our own files state"
    values = {"counts_are_whole": str(statistics.whole_counts).lower(), "reader": "; ".join(read)}
    if statistics.whole_amplitudes and statistics.highest > 16:
        text = "all amplitudes are whole numbers: they are counts (--quantity counts)"
        return Finding("units", "wrong", text, values)
    if statistics.whole_fourth_powers and not statistics.whole_counts:
        text = "the squares of all counts are whole numbers: they are amplitudes (--quantity amplitude)"
        return Finding("units", "wrong", text, values)
    if doubts := [line for line in read if line.endswith("?")]:
        return Finding("units", "doubtful", "; ".join(doubts), values)
    return Finding("units", "good", text, values)


def _photons(scan: Scan, statistics: PatternStatistics) -> Finding:
    mean = float(statistics.photons.mean())
    values = {
        "mean": mean,
        "lowest": float(statistics.photons.min()),
        "highest": float(statistics.photons.max()),
        "per_um2": None,
        "object_noise": None,
    }
    text = f"{mean:.3g} in a pattern ({values['lowest']:.3g} to {values['highest']:.3g})"
    if scan.probe is not None and scan.pixel_size is not None:
        area = np.pi / 4 * (probe_diameter(scan.probe) * scan.pixel_size * 1e6) ** 2
        values["per_um2"] = fluence = mean / area
        text += f", {fluence:.3g} per square micrometre and exposure"
    if noise := _object_noise(scan, mean):
        values["object_noise"] = noise
        text += f", noise of {noise:.2g} or more in a pixel of the object"
    verdict: FindingVerdict = "wrong" if mean < _HOPELESS else "doubtful" if mean < _FEW else "good"
    if verdict != "good":
        text += ": expose longer, or sum frames"
    return Finding("photons", verdict, text, values)


def _object_noise(scan: Scan, photons: float) -> float | None:
    """Noise of a pixel of the object, whatever the unit of the probe is; None without a probe, or for a huge object."""
    if scan.probe is None or not photons:
        return None
    try:
        origin, shape = canvas_layout(scan.positions, scan.size)
    except InputError:  # the positions have a finding of their own
        return None
    power = float(illumination(scan.probe).sum())
    if shape[0] * shape[1] > _MOST_PIXELS or not power:
        return None
    return noise_level(dose(scan, shape, origin)) * float(np.sqrt(power / photons))


def _saturation(statistics: PatternStatistics) -> Finding:
    highest, times = statistics.highest, statistics.times_highest
    values = {"highest": highest, "times": times, "pixels": statistics.pixels_highest}
    if saturates(highest, times, statistics.pixels_highest):
        text = (
            f"{times} patterns end at the same {highest:.4g} counts, in {statistics.pixels_highest} pixels: the "
            f"detector saturates ({SATURATION_REMEDY})"
        )
        return Finding("saturation", "wrong", text, values)
    return Finding("saturation", "good", f"none seen: at most {highest:.4g} counts", values)


def _direct_beam(scan: Scan) -> Finding:
    beam = estimate_direct_beam(StoredFrames(scan.diffraction, scan.mask, scan.name))
    centre = scan.size // 2
    off = max(abs(place - centre) for place in beam.pixel)
    row, column = beam.nearest
    values = {"row": float(beam.pixel[0]), "column": float(beam.pixel[1]), "expected": centre}
    text = f"at [{row}, {column}], expected at [{centre}, {centre}]"
    if beam.place == "corner":
        return Finding("direct beam", "wrong", f"{text}: in the corner (--dc corner)", values)
    if beam.place is None:
        return Finding("direct beam", "unknown", "the mean pattern has no centre", values)
    if off > _OFF_CENTRE * scan.size:
        text += ": --crop with --crop-centre moves it"
        return Finding("direct beam", "wrong", text, values)
    if off > _OFF_CENTRE_PX:
        text += ": an offset becomes a phase ramp in the object (--crop with --crop-centre)"
    verdict: FindingVerdict = "doubtful" if off > _OFF_CENTRE_PX else "good"
    return Finding("direct beam", verdict, text, values)


def _bad_pixels(scan: Scan, statistics: PatternStatistics) -> Finding:
    valid = scan.valid_pixels
    counts = statistics.mean * len(statistics.index)
    brightest = maximum_filter(np.where(valid, counts, 0), footprint=_NEIGHBOURS, mode="wrap")
    dimmest = minimum_filter(np.where(valid, counts, 0), footprint=_NEIGHBOURS, mode="wrap")
    # The direct beam of a wide probe is a peak of few pixels.
    middle = scan.size // 2
    elsewhere = valid.copy()
    elsewhere[middle - 1 : middle + 2, middle - 1 : middle + 2] = False
    hot = elsewhere & (counts > _HOT * brightest + _HOT_SIGMA * np.sqrt(brightest + 1))
    dead = valid & (counts == 0) & (dimmest > _DEAD)
    masked = 1 - float(valid.mean())
    values = {"masked_share": masked, "hot": int(hot.sum()), "dead": int(dead.sum())}
    text = f"{100 * masked:.3g} % masked, {hot.sum()} hot and {dead.sum()} dead outside the mask"
    if hot.any() or dead.any():
        places = [f"[{row}, {column}]" for row, column in np.argwhere(hot | dead)[:4]]
        text += f" ({', '.join(places)}{', ...' if (hot | dead).sum() > 4 else ''}): mask them"
        return Finding("bad pixels", "wrong", text, values)
    verdict: FindingVerdict = "doubtful" if masked > _MUCH_MASKED else "good"
    return Finding("bad pixels", verdict, text, values)


def _drift(statistics: PatternStatistics) -> Finding:
    photons = statistics.photons
    median = float(np.median(photons))
    lost = statistics.index[photons < _LOST * median].tolist()
    parts = [float(part.mean()) for part in np.array_split(photons, min(_SEGMENTS, len(photons)))]
    spread = (max(parts) - min(parts)) / median if median else 0.0
    text = f"the mean of a tenth of the scan varies by {100 * spread:.0f} %"
    values = {"spread": spread, "lost": lost}
    if len(lost) > max(1, 0.05 * len(photons)):
        text += f", and {len(lost)} patterns have almost no light (first {lost[0]}): leave them out (--min-photons)"
        return Finding("intensity", "wrong", text, values)
    if lost or spread > _DRIFT:
        where = f", and patterns {', '.join(map(str, lost[:4]))} have almost no light" if lost else ""
        text += f"{where}: an absorbing object, or a beam that drifts"
        return Finding("intensity", "doubtful", text, values)
    return Finding("intensity", "good", text, values)


def _repetition(statistics: PatternStatistics) -> Finding:
    repeated = statistics.repeated
    values = {"repeated": list(repeated)}
    if repeated:
        text = f"{len(repeated)} equal an earlier one (first {repeated[0]}): the detector repeated frames"
        return Finding("frames", "wrong", text, values)
    return Finding("frames", "good", "all differ", values)
