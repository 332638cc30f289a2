"""When a network pays: networks, networks followed by iterations, and iterations from vacuum, over kinds of scan.

Simulated scans with the zone plate of `simulate lines`, an exact probe and exact positions, over the raster step, the
photons per pattern and the kind of object, with several seeds. On every scan all methods run in turn, in an order that
changes with the seed, on one thread: each network, each network followed by rPIE, and rPIE and ePIE from vacuum. After
some of the epochs the object is compared with the known one. The score is the mean of the SSIM of amplitude and phase.

    python -m benchmarks.regimes --out docs/results/regimes.json --picture docs/images/regimes.png

Scans that the file has already, under the same conditions, are not measured again, so an interrupted run goes on. With
`--only-draw` nothing is measured.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ptychonnx.harness.evaluation.judge import summarise
from ptychonnx.harness.iterative.rpie import ALPHA, iterate, vacuum
from ptychonnx.harness.metrics.comparison import compare
from ptychonnx.harness.simulate.measurement import measure
from ptychonnx.harness.simulate.objects import make_object
from ptychonnx.harness.simulate.probes import make_probe
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.machine import processor
from ptychonnx.runtime.reconstruction import Reconstruction, reconstruct
from ptychonnx.runtime.reconstruction.stitching import Stitched, StitchedTiles
from ptychonnx.runtime.scan import Reference, Scan

STEPS = (6, 12, 24, 32, 40)
# Raster steps by photons: all of them where photons do not limit.
PHOTONS = {1e9: STEPS, 1e6: (12, 24, 32), 1e4: (12, 24, 32)}
# The first is a kind that general networks were trained on.
OBJECTS = ("lines", "star", "photographs")
# Epochs after which objects are judged.
JUDGED = (1, 2, 3, 5, 10, 20, 30, 60, 100, 300)
# Times allowed, in epochs of rPIE: a ratio within one run, which depends less on other work than seconds do.
TIMES = (3, 10, 20, 100)
# A method that iterates must have run for this part of a time, or the scan is left out of its row.
_FILLED = 0.6
EPIE = 1.0
_COLOURS = {
    "any_64": "#56b4e9",
    "any_64_grid2": "#0072b2",
    "pinn_hybrid": "#cc79a7",
    "any_64 + rPIE": "#8fd6b8",
    "any_64_grid2 + rPIE": "#009e73",
    "pinn_hybrid + rPIE": "#e7b8d2",
    "rPIE": "#d55e00",
    "ePIE": "#e69f00",
}

Row = dict[str, Any]


def simulate(kind: str, step: int, photons: float, seed: int, n: int, grid: int) -> Scan:
    """A jittered raster over an object of its own."""
    rng = np.random.default_rng([seed, step, OBJECTS.index(kind)])
    image = make_object(kind, (n + (grid - 1) * step + 2,) * 2, rng)
    axis = n // 2 + 1 + step * np.arange(grid)
    raster = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    positions = (raster + rng.integers(-1, 2, raster.shape)).astype(np.float64)
    probe = make_probe("zone-plate", n) * np.float32(np.sqrt(photons))
    return Scan(
        measure(image, positions, probe, rng), positions, probe, reference=Reference(image), name=kind
    )


class Judge:
    """Scores of objects of one scan, all on the same region."""

    def __init__(self, scan: Scan) -> None:
        self._empty = Reconstruction(vacuum(scan), "none", len(scan), 0.0, 0.0)
        self._summary = summarise(scan, [self._empty], None)

    def row(self, image: NDArray[np.complex64], epochs: int, seconds: float) -> Row:
        assert self._summary.reference is not None
        compared = compare(image, self._summary.reference, self._summary.region)
        ssim = [part.ssim or 0.0 for part in (compared.amplitude, compared.phase)]
        return {
            "epochs": epochs,
            "seconds": round(seconds, 3),
            "amplitude": round(ssim[0], 4),
            "phase": round(ssim[1], 4),
        }


def iterated(
    scan: Scan,
    judge: Judge,
    epochs: int,
    start: Stitched | StitchedTiles | None,
    before: float,
    alpha: float,
) -> list[Row]:
    """Scores along iterations that begin `before` seconds after the start."""
    images: dict[int, NDArray[np.complex64]] = {}

    def watch(epoch: int, image: Callable[[], NDArray[np.complex64]]) -> None:
        if epoch in JUDGED or epoch == epochs:
            images[epoch] = image().copy()

    result = iterate(scan, epochs, start, alpha=alpha, watch=watch)
    seconds = before + np.cumsum(result.seconds)
    return [judge.row(image, epoch, float(seconds[epoch - 1])) for epoch, image in images.items()]


def measured(
    scan: Scan, sessions: dict[str, Session], epochs: int, refinement: int, epie: int, seed: int
) -> dict[str, list[Row]]:
    """Scores of every method on a scan."""
    judge, rows = Judge(scan), {}

    def network(name: str) -> None:
        began = time.perf_counter()
        result = reconstruct(sessions[name], scan)
        seconds = time.perf_counter() - began
        rows[name] = [judge.row(result.object, 0, seconds)]
        rows[f"{name} + rPIE"] = iterated(scan, judge, refinement, result.stitched, seconds, ALPHA)

    def from_vacuum(name: str, count: int, alpha: float) -> None:
        rows[name] = iterated(scan, judge, count, None, 0.0, alpha)

    runs: list[Callable[[], None]] = [lambda name=name: network(name) for name in sessions]
    runs += [lambda: from_vacuum("rPIE", epochs, ALPHA), lambda: from_vacuum("ePIE", epie, EPIE)]
    for index in range(len(runs)):
        runs[(index + seed) % len(runs)]()
    return rows


def best_within(rows: dict[str, list[Row]], epochs: float) -> dict[str, float]:
    """The best score of each method in the time of some epochs of rPIE; methods without an object then are left out.

    None at all if a method that iterates was stopped long before.
    """
    scores: dict[str, float] = {}
    last = rows["rPIE"][-1]
    # The time of a sum of epochs is not exactly theirs.
    seconds = 1.05 * epochs * last["seconds"] / last["epochs"]
    if any(points[-1]["seconds"] < _FILLED * seconds for name, points in rows.items() if "rPIE" in name):
        return scores
    for name, points in rows.items():
        within = [
            (point["amplitude"] + point["phase"]) / 2 for point in points if point["seconds"] <= seconds
        ]
        if within:
            scores[name] = max(within)
    return scores


def summary(scans: list[Row], epochs: float) -> dict[str, tuple[float, float]]:
    """Mean score of each method over the seeds that ran so long, and half of their range."""
    of_seeds = [scores for scan in scans if (scores := best_within(scan["methods"], epochs))]
    names = set.intersection(*(set(scores) for scores in of_seeds)) if of_seeds else set()
    result = {}
    for name in sorted(names):
        values = [scores[name] for scores in of_seeds]
        result[name] = (float(np.mean(values)), float(np.ptp(values)) / 2)
    return result


def draw(document: Row, path: Path) -> None:
    """One panel per kind of object and brightness: the best method by raster step and time."""
    scans = document["scans"]
    objects = [kind for kind in OBJECTS if any(scan["object"] == kind for scan in scans)]
    brightness = sorted({scan["photons"] for scan in scans}, reverse=True)
    steps = sorted({scan["step"] for scan in scans})
    figure = Figure(
        figsize=(1.5 + 0.72 * len(steps) * len(objects), 0.9 + 2.3 * len(brightness)), layout="constrained"
    )
    axes = figure.subplots(len(brightness), len(objects), squeeze=False)
    used = set()
    last = [scan["methods"]["rPIE"][-1] for scan in scans]
    epoch = float(np.median([point["seconds"] / point["epochs"] for point in last]))
    for (line, photons), (column, kind) in itertools.product(enumerate(brightness), enumerate(objects)):
        panel = np.ones((len(TIMES), len(steps), 3))
        axis = axes[line, column]
        for (row, epochs), (place, step) in itertools.product(enumerate(TIMES), enumerate(steps)):
            cell = [
                scan
                for scan in scans
                if (scan["object"], scan["photons"], scan["step"]) == (kind, photons, step)
            ]
            scores = summary(cell, epochs) if cell else {}
            if not scores:
                continue
            name = max(scores, key=lambda name: scores[name][0])
            used.add(name)
            panel[row, place] = to_rgb(_COLOURS.get(name, "#999999"))
            mean, spread = scores[name]
            text = f"{mean:.2f}" + (f"\n±{spread:.2f}" if spread else "")
            axis.text(place, row, text, ha="center", va="center", fontsize=7)
        axis.imshow(panel, origin="lower", aspect="auto")
        axis.set_xticks(range(len(steps)), [str(step) for step in steps])
        axis.set_yticks(
            range(len(TIMES)),
            [f"{epochs} ({epochs * epoch:.2g} s)" for epochs in TIMES] if column == 0 else [],
        )
        axis.set_title(f"{kind}, {photons:.0e} photons".replace("e+0", "e"), fontsize=10)
        if column == 0:
            axis.set_ylabel("time allowed (epochs of rPIE)")
        if line == len(brightness) - 1:
            axis.set_xlabel("raster step (pixels)")
    patches = [axes[0, 0].bar(0, 0, color=_COLOURS.get(name, "#999999"), label=name) for name in sorted(used)]
    axes[0, 0].set_xlim(-0.5, len(steps) - 0.5)
    axes[0, 0].set_ylim(-0.5, len(TIMES) - 0.5)
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(used), 6), frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append", help="default: zoo:any_64 and zoo:any_64_grid2")
    parser.add_argument("--step", type=int, action="append", help="default: those of the photons")
    parser.add_argument("--photons", type=float, action="append", help=f"default: {tuple(PHOTONS)}")
    parser.add_argument("--object", choices=OBJECTS, action="append")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--grid", type=int, default=5, help="side of each scan, in positions")
    parser.add_argument("--epochs", type=int, default=60, help="of rPIE from vacuum")
    parser.add_argument("--epie", type=int, default=10, help="epochs of ePIE from vacuum")
    parser.add_argument("--refinement", type=int, default=10, help="epochs from the object of a network")
    parser.add_argument(
        "--alone", action="store_true", help="nothing else runs on the machine: times are its own"
    )
    parser.add_argument("--most", type=int, help="scans to measure in this run")
    parser.add_argument("--only-draw", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    document = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.is_file() else {}
    if not arguments.only_draw:
        document = run(arguments, document)
    if arguments.picture is not None:
        draw(document, arguments.picture)


def run(arguments: argparse.Namespace, before: Row) -> Row:
    """Measure what the file lacks and write it after each scan."""
    paths = {
        Path(str(name).removeprefix("zoo:")).stem: artifact_path(name)
        for name in arguments.network or ["zoo:any_64", "zoo:any_64_grid2"]
    }
    conditions = {
        "networks": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()},
        "patterns": arguments.grid**2,
        "processor": processor(),
        "threads": 1,
        "alone": arguments.alone,
    }
    kept = before["scans"] if before.get("conditions") == conditions else []
    document: Row = {"conditions": conditions, "scans": kept}
    sessions = {name: Session(path, "cpu", 1) for name, path in paths.items()}
    n = next(iter(sessions.values())).contract.n
    # Scans with fewer epochs than are wanted now are measured again.
    rows = {(scan["object"], scan["step"], scan["photons"], scan["seed"]): scan for scan in kept}
    done = {
        key
        for key, scan in rows.items()
        if all(
            points[-1]["epochs"] >= (arguments.epochs if name == "rPIE" else arguments.refinement)
            for name, points in scan["methods"].items()
            if "rPIE" in name
        )
    }
    # Seeds come last, so that an interrupted run has every kind of scan once.
    grid = [
        (kind, step, photons, seed)
        for seed in range(arguments.seeds)
        for photons in arguments.photons or PHOTONS
        for kind in arguments.object or OBJECTS
        for step in arguments.step or PHOTONS.get(photons, STEPS)
    ]
    missing = [key for key in grid if key not in done][: arguments.most]
    if missing:
        # Code is compiled in the first run.
        warm = simulate(OBJECTS[0], STEPS[0], max(PHOTONS), 0, n, 3)
        for session in sessions.values():
            iterate(warm, 1, reconstruct(session, warm).stitched)
    for kind, step, photons, seed in missing:
        scan = simulate(kind, step, photons, seed, n, arguments.grid)
        methods = measured(scan, sessions, arguments.epochs, arguments.refinement, arguments.epie, seed)
        row = {"object": kind, "step": step, "photons": photons, "seed": seed, "methods": methods}
        rows[kind, step, photons, seed] = row
        document["scans"] = list(rows.values())
        write_text(arguments.out, json.dumps(document) + "\n")
        scores = {name: round(mean, 3) for name, (mean, _) in summary([row], TIMES[2]).items()}
        print(kind, step, f"{photons:g}", seed, scores, flush=True)
    return document


if __name__ == "__main__":
    main()
