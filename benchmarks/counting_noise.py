"""Noise that the photons of a scan allow, next to the true error of its object and the verdict.

    python -m benchmarks.counting_noise zoo/any_64_grid2.onnx --out docs/results/counting_noise.json

Simulated objects in one beam at more and more photons, each reconstructed as `ptychonnx reconstruct` does without an
artifact, and by the network alone. What FILE holds already is not measured again. Three minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.single_pattern_bounds import record_table
from benchmarks.unseen_beams import quality
from ptychonnx.harness.evaluation.judge import summarise
from ptychonnx.harness.iterative.refinement import refine
from ptychonnx.harness.simulate.family import FamilyConfig, simulate_member
from ptychonnx.harness.simulate.objects import ObjectKind
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.machine import processor
from ptychonnx.runtime.reconstruction import Reconstruction, reconstruct
from ptychonnx.runtime.scan import Scan

KINDS: tuple[ObjectKind, ...] = ("lines", "cells", "grains", "photographs", "leaves", "star")
PHOTONS = (1e4, 3e4, 1e5, 3e5, 1e6, 1e7, 1e8)
GRID, SEED = 8, 20261130

SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0, np.inf)

Row = dict[str, Any]


def scans(n: int) -> Iterator[tuple[str, float, Scan]]:
    """The same objects, beams and positions at different numbers of photons."""
    for place, kind in enumerate(KINDS):
        for photons in PHOTONS:
            config = FamilyConfig(
                n=n,
                scans=1,
                grid=GRID,
                object=(kind,),
                min_photons=photons,
                max_photons=photons,
                min_overlap=0.6,
                max_overlap=0.6,
                seed=SEED + place,
            )
            yield kind, photons, simulate_member(config, 0)


def judged(scan: Scan, made: Reconstruction, name: str) -> Row:
    """Expected noise, true error and SSIM of one object."""
    summary = summarise(scan, [made], None)
    assert made.misfit is not None
    assert made.misfit.noise is not None
    assert summary.reference is not None
    found = made.misfit.noise
    image, known = made.stitched.object[summary.region], summary.reference[summary.region]
    phase = np.vdot(image, known)
    error = float(np.sqrt(np.mean(np.abs(image * (phase / abs(phase)) - known) ** 2)))
    return {
        "method": name,
        "noise": found.level,
        "contrast": found.contrast,
        "error": error,
        "verdict": made.misfit.verdict,
        **{key: value for key, value in quality(made.stitched.object, scan, made).items() if "ssim" in key},
    }


def table(rows: list[Row]) -> str:
    """In Markdown: refined objects by their noise over their contrast."""
    lines = [
        "| noise over contrast | objects | photons of a pattern | error over noise | smaller SSIM, median (range) "
        "| called good |",
        "|---|---|---|---|---|---|",
    ]
    refined = [row for row in rows if row["method"] == "refined"]
    for low, high in pairwise(SHARES):
        part = [row for row in refined if low <= row["noise"] / row["contrast"] < high]
        errors = [row["error"] / row["noise"] for row in part]
        figures = [min(row["amplitude_ssim"], row["phase_ssim"]) for row in part]
        photons = [row["photons"] for row in part]
        lines.append(
            f"| {f'{low:g} to {high:g}' if np.isfinite(high) else f'above {low:g}'} | {len(part)} | "
            f"{min(photons):.0e} to {max(photons):.0e} | {min(errors):.1f} to {max(errors):.1f} | "
            f"{np.median(figures):.2f} ({min(figures):.2f} to {max(figures):.2f}) | "
            f"{sum(row['verdict'] == 'good' for row in part)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    session = Session(arguments.artifact, "cpu", 1)
    rows: list[Row] = (
        json.loads(arguments.out.read_text(encoding="utf-8"))["rows"] if arguments.out.is_file() else []
    )
    done = {(row["object"], row["photons"]) for row in rows}
    for kind, photons, scan in scans(session.contract.n):
        if (kind, photons) in done:
            continue
        network = reconstruct(session, scan)
        for made, name in ((network, "network"), (refine(scan, network, "auto"), "refined")):
            rows.append({"object": kind, "photons": photons, **judged(scan, made, name)})
            print(rows[-1], flush=True)
        write_text(arguments.out, json.dumps({"rows": rows, "processor": processor()}, indent=1) + "\n")
    record_table("counting_noise", table(rows))


if __name__ == "__main__":
    main()
