"""General networks on beams and objects that training never saw, next to mPIE and rPIE.

Three tables over simulated scans: beams of a seed that training never used, the last quarter of them from families that
it never saw, with objects of unseen kinds; the kinds of object that it learned and that it did not; and large raster
steps. SSIM of amplitude and phase with the known object, of the network alone, of the network followed by ten epochs of
mPIE, and of iterations from vacuum; times are those of one run each.

    python -m benchmarks.unseen_beams zoo/any_64.onnx --grid 10 --out docs/results/unseen_beams.json

What FILE holds already is not measured again; `--only` and `--row` measure a part, such as `--vacuum rPIE 300`
of one table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.regimes import SETTINGS, raster_scan
from ptychonnx.harness.evaluation.judge import summarise
from ptychonnx.harness.iterative.iterations import Epochs, iterate, vacuum
from ptychonnx.harness.iterative.refinement import refine
from ptychonnx.harness.metrics.comparison import compare
from ptychonnx.harness.simulate.family import FamilyConfig, draw_parameters, simulate_member
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.machine import processor
from ptychonnx.runtime.paths import file_sha256
from ptychonnx.runtime.reconstruction import Reconstruction, reconstruct
from ptychonnx.runtime.scan import Scan

UNSEEN_BEAMS = ("gaussian", "vortex", "axicon", "cubic", "triangle")
UNSEEN_OBJECTS = ("spheres", "labyrinth", "leaves", "photographs", "star")
SEEN_OBJECTS = ("lines", "cells", "grains", "circuits", "spokes", "smooth", "natural")
STEPS = (24, 30, 36)
LOW_OVERLAP_OBJECTS = ("lines", "cells", "star", "photographs", "grains", "circuits")
REFINEMENT = 10

Row = dict[str, Any]


def family_scans(n: int, count: int, grid: int, seed: int) -> Iterator[tuple[Row, Scan]]:
    """Scans of known families of beams, then a quarter as many of unseen ones; objects of unseen kinds."""
    unseen = count // 4
    known = FamilyConfig(n=n, scans=count - unseen, grid=grid, object=UNSEEN_OBJECTS, seed=seed)
    new = replace(known, scans=max(unseen, 1), beam=UNSEEN_BEAMS, seed=seed + 1)
    for config, number_of in ((known, count - unseen), (new, unseen)):
        for number in range(number_of):
            parameters = asdict(draw_parameters(config, number))
            yield {**parameters, "family_seen": config is known}, simulate_member(config, number)


def kinds_of_object(n: int, grid: int, seed: int) -> Iterator[tuple[Row, Scan]]:
    """One defocused zone plate, 1e9 photons, and every kind of object at 60 % overlap."""
    for kind in (*SEEN_OBJECTS, *UNSEEN_OBJECTS):
        config = FamilyConfig(
            n=n,
            scans=1,
            grid=grid,
            beam=("zone-plate",),
            object=(kind,),
            max_modes=1,
            min_photons=1e9,
            max_photons=1e9,
            min_overlap=0.6,
            max_overlap=0.6,
            seed=seed + 2,
        )
        yield {"object": kind, "object_seen": kind in SEEN_OBJECTS}, simulate_member(config, 0)


def large_steps(n: int, grid: int, seed: int) -> Iterator[tuple[Row, Scan]]:
    """The zone plate of `simulate lines` at large raster steps, 1e9 photons."""
    for step in STEPS:
        for kind in LOW_OVERLAP_OBJECTS:
            rng = np.random.default_rng([seed, step, LOW_OVERLAP_OBJECTS.index(kind)])
            yield {"object": kind, "step": step}, raster_scan(kind, step, 1e9, n, grid, rng)


def quality(image: NDArray[np.complex64], scan: Scan, made: Reconstruction) -> Row:
    summary = summarise(scan, [made], None)
    assert summary.reference is not None
    compared = compare(image, summary.reference, summary.region)
    return {
        f"{name}_{figure}": getattr(metrics, figure)
        for name, metrics in (("amplitude", compared.amplitude), ("phase", compared.phase))
        for figure in ("ssim", "pearson")
    }


def network_methods(name: str, session: Session, scan: Scan, epochs: Epochs) -> Row:
    """Quality and seconds of a network on a scan, alone and as the start of some epochs of mPIE."""
    started = time.perf_counter()
    made = reconstruct(session, scan)
    seconds = time.perf_counter() - started
    refined = refine(scan, made, epochs)
    more = refined.inference_seconds - made.inference_seconds
    misfit = None if made.misfit is None else made.misfit.value
    return {
        name: {**quality(made.stitched.object, scan, made), "seconds": round(seconds, 2), "misfit": misfit},
        f"{name}, then {epochs} of mPIE": {
            **quality(refined.stitched.object, scan, made),
            "seconds": round(seconds + more, 2),
            "epochs": int(refined.refinement.split()[0]),
        },
    }


def from_vacuum(algorithm: str, epochs: int, covering: Reconstruction, scan: Scan) -> Row:
    """Quality and seconds of iterations from vacuum, on the region that a network's patches cover."""
    alone = iterate(scan, epochs, vacuum(scan), SETTINGS[algorithm])
    figures = quality(alone.stitched.object, scan, covering)
    return {f"{algorithm}, {epochs} epochs": {**figures, "seconds": round(sum(alone.seconds), 2)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--scans", type=int, default=20)
    parser.add_argument("--grid", type=int, default=12)
    parser.add_argument(
        "--vacuum",
        nargs=2,
        action="append",
        metavar=("ALGORITHM", "EPOCHS"),
        help="iterations from vacuum; default: mPIE 30",
    )
    parser.add_argument(
        "--refinement",
        type=lambda text: "auto" if text == "auto" else int(text),
        default=REFINEMENT,
        help="epochs of mPIE after a network, or auto",
    )
    parser.add_argument("--seed", type=int, default=20261129, help="training uses seed 0")
    parser.add_argument("--only", choices=("beams", "objects", "steps"), action="append")
    parser.add_argument("--row", type=int, action="append", help="place in the table; all by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    sessions = {path.stem: Session(path, "cpu", arguments.threads) for path in arguments.artifacts}
    first = next(iter(sessions.values()))
    n, grid, seed = first.contract.n, arguments.grid, arguments.seed
    tables: dict[str, Callable[[], Iterator[tuple[Row, Scan]]]] = {
        "beams": lambda: family_scans(n, arguments.scans, grid, seed),
        "objects": lambda: kinds_of_object(n, grid, seed),
        "steps": lambda: large_steps(n, grid, seed),
    }
    conditions = {
        "artifacts": {path.stem: file_sha256(path) for path in arguments.artifacts},
        "seed": seed,
        "patterns": grid**2,
        "threads": arguments.threads,
    }
    document = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.is_file() else {}
    if document.get("conditions") != conditions:
        document = {"conditions": conditions}
    for table in arguments.only or tables:
        rows = document.setdefault(table, [])
        for number, (row, scan) in enumerate(tables[table]()):
            if number == len(rows):
                rows.append({**row, "methods": {}})
            if number not in (arguments.row or range(len(rows))):
                continue
            known = rows[number]["methods"]
            new: Row = {}
            covering: Reconstruction | None = None
            for name, session in sessions.items():
                if f"{name}, then {arguments.refinement} of mPIE" not in known:
                    new |= network_methods(name, session, scan, arguments.refinement)
            for algorithm, epochs in arguments.vacuum or [("mPIE", 30)]:
                if f"{algorithm}, {epochs} epochs" not in known:
                    covering = covering or reconstruct(first, scan)
                    new |= from_vacuum(algorithm, int(epochs), covering, scan)
            known |= {
                name: {**figures, "processor": processor()}
                for name, figures in new.items()
                if name not in known
            }
            write_text(arguments.out, json.dumps(document, indent=1) + "\n")
            print(table, number, flush=True)


if __name__ == "__main__":
    main()
