"""Do iterations reveal a wrong scan? The verdict on their object, with and without patterns that were held out.

    python -m benchmarks.held_out --out docs/results/held_out.json

Simulated scans in several beams are read rightly, and with one fault each: positions with exchanged or reversed axes,
steps that are too long, positions at random or of other patterns, turned patterns, another defocus. Each is
reconstructed from vacuum and after the general network, both with as many epochs as `auto` takes. What FILE holds
already is not measured again. Ten to twenty minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.unseen_beams import family_scans, large_steps, quality
from ptychonnx.harness.iterative.refinement import refine
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.machine import processor
from ptychonnx.runtime.reconstruction import Reconstruction, reconstruct
from ptychonnx.runtime.scan import Scan

SEED, GRID = 20261129, 8
# Places in the tables of `benchmarks.unseen_beams`.
STEPS = (0, 1, 2, 3, 6, 8, 13, 17)
BEAMS = (0, 1, 2, 3, 4, 6, 9, 12, 15, 19)

Row = dict[str, Any]


def scans() -> Iterator[tuple[str, Scan]]:
    """Steps of 24 to 36 pixels, and other beams at 40 to 80 % overlap."""
    for place, (row, scan) in enumerate(large_steps(64, GRID, SEED)):
        if place in STEPS:
            yield f"{row['object']}, steps of {row['step']}", scan
    for place, (row, scan) in enumerate(family_scans(64, 20, GRID, SEED)):
        if place in BEAMS:
            yield f"{row['object']}, {row['beam']}", scan


def readings(scan: Scan) -> Iterator[tuple[str, Scan]]:
    """The scan as it is, and with one fault each."""
    positions, patterns = scan.positions, np.asarray(scan.diffraction[:])
    middle, random = positions.mean(axis=0), np.random.default_rng(1)
    k = np.fft.fftfreq(scan.size)
    defocus = np.exp(-160j * np.pi * (k[:, None] ** 2 + k**2))
    yield "right", scan
    for fault, moved in (
        ("axes exchanged", np.ascontiguousarray(positions[:, ::-1])),
        ("rows reversed", (2 * middle - positions) * (1, 0) + positions * (0, 1)),
        ("steps 10 % too long", middle + 1.1 * (positions - middle)),
        ("3 pixels of noise", positions + random.normal(0, 3, positions.shape)),
        ("of other patterns", positions[random.permutation(len(positions))]),
    ):
        yield f"positions: {fault}", replace(scan, positions=moved)
    yield (
        "patterns exchange their axes",
        replace(scan, diffraction=np.ascontiguousarray(patterns.transpose(0, 2, 1))),
    )
    if scan.probe is not None:
        probe = np.fft.ifft2(np.fft.fft2(scan.probe) * defocus).astype(np.complex64)
        yield "probe at another defocus", replace(scan, probe=probe)


def measure(scan: Scan, made: Reconstruction, network: Reconstruction) -> Row:
    """Verdicts on an object, and its SSIM with the true one."""
    misfit = made.misfit
    assert misfit is not None
    assert misfit.held_out is not None
    found = quality(made.stitched.object, scan, network)
    return {
        "epochs": int(made.refinement.split()[0]),
        "misfit": misfit.value,
        "scattered": misfit.scattered,
        "held_out": misfit.held_out.misfit.value,
        "held_out_scattered": misfit.held_out.misfit.scattered,
        "shared": misfit.held_out.shared,
        "verdict": misfit.verdict,
        "verdict_of_all_patterns": replace(misfit, held_out=None).verdict,
        "amplitude_ssim": found["amplitude_ssim"],
        "phase_ssim": found["phase_ssim"],
    }


def verdicts(rows: list[Row], key: str) -> dict[str, dict[str, int]]:
    """How many objects of right and of wrong readings got each verdict."""
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        name = f"{'right' if row['reading'] == 'right' else 'wrong'}, {row['start']}"
        of_kind = counts.setdefault(name, {})
        of_kind[row[key]] = of_kind.get(row[key], 0) + 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifact", type=Path, default=Path("zoo/any_64_grid2.onnx"))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    session = Session(arguments.artifact, "cpu", threads=1)
    rows: list[Row] = []
    if arguments.out.is_file():
        rows = json.loads(arguments.out.read_text(encoding="utf-8"))["rows"]
    known = {(row["scan"], row["reading"]) for row in rows}
    for name, scan in scans():
        for reading, read in readings(scan):
            if (name, reading) in known:
                continue
            network = reconstruct(session, read)
            for label, start in (("vacuum", None), (session.path.stem, network)):
                made = refine(read, start, "auto")
                if made.refinement.startswith("0 epochs"):
                    continue  # `auto` leaves it as it is
                row = measure(scan, made, network)
                rows.append({"scan": name, "reading": reading, "start": label, **row})
            document = {
                "processor": processor(),
                "with_held_out": verdicts(rows, "verdict"),
                "all_patterns_alone": verdicts(rows, "verdict_of_all_patterns"),
                "rows": rows,
            }
            write_text(arguments.out, json.dumps(document, indent=1) + "\n")
            print(name, reading, flush=True)


if __name__ == "__main__":
    main()
