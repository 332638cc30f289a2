"""What a run says about the beams and scans that its network was trained for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.contract import Range, TrainedBeams
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.probe_geometry import defocus, fresnel_number, probe_diameter
from ptychonnx.train.run import Family, RunRecord

__all__ = ["trained_beams"]


def trained_beams(
    record: RunRecord, trained_n: int, held_out: Sequence[Scan], family: Family | None
) -> TrainedBeams:
    """The beams of a run, for its contract.

    They follow from the side of the patterns of training, and from held-out patterns of each of its scans; the
    simulated family of the training, if there is one, names beams and objects.
    """
    photons = [trained.photons for trained in record.scans] or [record.flux]
    known = TrainedBeams(n=[trained_n], photons=(min(photons), max(photons)))
    if family is not None:
        names = {"families": "beam", "objects": "object"}
        members = family.scans.values()
        known = known.model_copy(
            update={key: sorted({getattr(member, name) for member in members}) for key, name in names.items()}
        )
    probes = [scan.probe for scan in held_out if scan.probe is not None]
    if len(probes) < len(held_out):
        return known
    modes = [len(probe) for probe in probes]
    return known.model_copy(
        update={
            "modes": (min(modes), max(modes)),
            "oversampling": _range(trained_n / probe_diameter(probe) for probe in probes),
            "overlap": _overlap(record, probes),
            "fresnel_number": _range(map(fresnel_number, probes)),
            "defocus": _range(
                abs(defocus(scan.probe)) * scan.pixel_size**2 / scan.wavelength
                for scan in held_out
                if scan.probe is not None and scan.pixel_size and scan.wavelength
            ),
        }
    )


def _overlap(record: RunRecord, probes: Sequence[NDArray[np.complex64]]) -> Range | None:
    """Of several scans; that of a single one is no range."""
    if len(record.scans) < 2:
        return None
    pairs = zip(record.scans, probes, strict=True)
    return _range(max(0.0, 1 - trained.step / probe_diameter(probe)) for trained, probe in pairs)


def _range(values: Iterable[float]) -> Range | None:
    """Smallest and largest value in three digits; None without values."""
    rounded = [float(f"{value:.3g}") for value in values]
    return (min(rounded), max(rounded)) if rounded else None
