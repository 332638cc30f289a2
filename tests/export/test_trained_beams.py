"""What a contract says about the beams of training: the ranges over all scans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychonnx.export.artifact.trained_beams import trained_beams
from ptychonnx.harness.simulate.probes import PIXEL_SIZE, WAVELENGTH, disk_probe, zone_plate_probe
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.probe_geometry import probe_diameter
from ptychonnx.train.run import Family, RunRecord, TrainedScan

N = 32


def held_out(probe: np.ndarray) -> Scan:
    patterns = np.ones((2, N, N), np.float32)
    positions = np.array([[0.0, 0.0], [0.0, 9.0]])
    return Scan(patterns, positions, probe, pixel_size=PIXEL_SIZE, wavelength=WAVELENGTH)


def trained(photons: float, modes: int) -> TrainedScan:
    return TrainedScan(
        name="scan.npz",
        patterns=40,
        modes=modes,
        photons=photons,
        step=6,
        data_sha256="0" * 64,
        probe_sha256="0" * 64,
    )


def test_ranges_are_those_of_all_scans_of_the_training():
    disk = disk_probe(N, radius=9)
    plate = np.concatenate([zone_plate_probe(N, defocus=-40e-6), 0.1 * disk])
    record = RunRecord.model_construct(scans=(trained(1e5, 1), trained(1e8, 2)), flux=1e5)
    family = Family.model_validate(
        {"scans": {"a": {"beam": "disk", "object": "lines"}, "b": {"beam": "zone-plate", "object": "lines"}}}
    )
    scans = [held_out(disk), held_out(plate)]
    known = trained_beams(record, N, scans, family)
    assert (known.families, known.objects, known.n, known.modes) == (
        ["disk", "zone-plate"],
        ["lines"],
        [N],
        (1, 2),
    )
    assert known.photons == (1e5, 1e8)
    widths = sorted(map(probe_diameter, (disk, plate)))
    assert known.oversampling == pytest.approx((N / widths[1], N / widths[0]), rel=0.01)
    assert known.overlap == pytest.approx((1 - 6 / widths[0], 1 - 6 / widths[1]), rel=0.01)
    assert known.fresnel_number[0] < 10
    assert known.fresnel_number[1] == 1000
    assert known.defocus == pytest.approx((0, 40e-6), rel=0.15, abs=1e-7)
    metreless = [replace(scan, pixel_size=None) for scan in scans]
    assert trained_beams(record, N, metreless, None).defocus is None


def test_a_run_without_a_probe_says_nothing_about_beams():
    record = RunRecord.model_construct(scans=(), flux=1e5)
    known = trained_beams(record, N, [replace(held_out(disk_probe(N)), probe=None)], None)
    assert (known.photons, known.modes, known.overlap, known.fresnel_number) == ((1e5, 1e5), None, None, None)
