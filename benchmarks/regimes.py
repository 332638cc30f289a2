"""When a network pays: networks, networks followed by iterations, and iterations from vacuum, over kinds of scan.

Simulated scans with the zone plate of `simulate lines`, an exact probe and exact positions, over the raster step, the
photons per pattern and the kind of object, with several seeds. On every scan all methods run in turn, in an order that
changes with the seed, on one thread: each network, each network followed by mPIE, and mPIE, rPIE and ePIE from vacuum.
After some of the epochs the object is compared with the known one. The score is the mean of the SSIM of amplitude and
phase.

    python -m benchmarks.regimes --out docs/results/regimes.json
    python -m benchmarks.regimes --n 128 --seeds 1 --photons 1e9 --step 12 --step 24 --step 32 \
        --refinement 20 --out docs/results/regimes_128.json
    python -m benchmarks.regimes --draw docs/images/regimes.png docs/results/regimes.json docs/results/regimes_128.json

Scans that the file has already, under the same conditions, are not measured again, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ptychonnx.harness.evaluation.judge import summarise
from ptychonnx.harness.iterative.algorithm import Algorithm
from ptychonnx.harness.iterative.iterations import iterate, vacuum
from ptychonnx.harness.metrics.comparison import compare
from ptychonnx.harness.simulate.measurement import simulate_raster
from ptychonnx.harness.simulate.objects import make_object
from ptychonnx.harness.simulate.probes import make_probe
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.machine import processor
from ptychonnx.runtime.reconstruction import Reconstruction, reconstruct
from ptychonnx.runtime.reconstruction.stitching import Stitched, StitchedTiles
from ptychonnx.runtime.scan import Scan

STEPS = (6, 12, 24, 32, 40)
# Raster steps by photons: all of them where photons do not limit. The beam is as wide for all sizes of pattern.
PHOTONS = {1e9: STEPS, 1e6: (12, 24, 32), 1e4: (12, 24, 32)}
# The first is a kind that general networks were trained on.
OBJECTS = ("lines", "star", "photographs")
# Epochs after which objects are judged.
JUDGED = (1, 2, 3, 5, 10, 20, 30, 60, 100, 200, 300, 600, 1000, 2000)
# Times allowed, in epochs of mPIE: a ratio within one run, which depends less on other work than seconds do.
TIMES = (3, 10, 20, 60, 100, 600)
# A method that iterates must have run for this part of a time, or the scan is left out of its row.
_FILLED = 0.6
# Settings of the iterations, by name; mPIE has the defaults.
SETTINGS = {
    "mPIE": Algorithm(),
    "rPIE": Algorithm(alpha=0.3, momentum=0.0),
    "ePIE": Algorithm(alpha=1.0, momentum=0.0),
}
# Networks of the zoo for any beam by the number of patterns that they take, whatever the size of these.
_COLOURS = {
    "any": "#56b4e9",
    "any_grid2": "#0072b2",
    "pinn_hybrid": "#cc79a7",
    "any + mPIE": "#8fd6b8",
    "any_grid2 + mPIE": "#009e73",
    "pinn_hybrid + mPIE": "#e7b8d2",
    "mPIE": "#d55e00",
    "rPIE": "#f0b48a",
    "ePIE": "#e69f00",
}

Row = dict[str, Any]


def simulate(kind: str, step: int, photons: float, seed: int, n: int, grid: int) -> Scan:
    """A jittered raster over an object of its own."""
    rng = np.random.default_rng([seed, step, OBJECTS.index(kind)])
    return raster_scan(kind, step, photons, n, grid, rng)


def raster_scan(kind: str, step: int, photons: float, n: int, grid: int, rng: np.random.Generator) -> Scan:
    """A jittered raster in the zone plate of `simulate lines`."""
    return simulate_raster(
        partial(make_object, kind, rng=rng),
        make_probe("zone-plate", n) * np.float32(np.sqrt(photons)),
        grid=grid,
        step=step,
        jitter=1,
        position_rng=rng,
        noise_rng=rng,
        name=kind,
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
    algorithm: str = "mPIE",
) -> list[Row]:
    """Scores along iterations that begin `before` seconds after the start."""
    images: dict[int, NDArray[np.complex64]] = {}

    def watch(epoch: int, image: Callable[[], NDArray[np.complex64]]) -> None:
        if epoch in JUDGED or epoch == epochs:
            images[epoch] = image().copy()

    result = iterate(scan, epochs, start, SETTINGS[algorithm], watch=watch)
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
        rows[f"{name} + mPIE"] = iterated(scan, judge, refinement, result.stitched, seconds)

    def from_vacuum(name: str, count: int) -> None:
        rows[name] = iterated(scan, judge, count, None, 0.0, name)

    runs: list[Callable[[], None]] = [lambda name=name: network(name) for name in sessions]
    runs += [
        lambda: from_vacuum("mPIE", epochs),
        lambda: from_vacuum("rPIE", epochs),
        lambda: from_vacuum("ePIE", epie),
    ]
    for index in range(len(runs)):
        runs[(index + seed) % len(runs)]()
    return rows


def best_within(rows: dict[str, list[Row]], epochs: float) -> dict[str, float]:
    """The best score of each method in the time of some epochs of mPIE; methods without an object then are left out.

    None at all if a method that iterates was stopped long before.
    """
    scores: dict[str, float] = {}
    last = rows["mPIE"][-1]
    # The time of a sum of epochs is not exactly theirs.
    seconds = 1.05 * epochs * last["seconds"] / last["epochs"]
    if any(
        points[-1]["seconds"] < _FILLED * seconds
        for name, points in rows.items()
        if "PIE" in name and name != "ePIE"
    ):
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


def draw(documents: Sequence[Row], path: Path) -> None:
    """One panel per kind of object, brightness and size of pattern: the best method by raster step and time."""
    lines = [
        (document, photons)
        for document in documents
        for photons in sorted({scan["photons"] for scan in document["scans"]}, reverse=True)
    ]
    # Times that no scan of a line has reached are left out.
    times = [
        [
            epochs
            for epochs in TIMES
            if any(
                best_within(scan["methods"], epochs)
                for scan in document["scans"]
                if scan["photons"] == photons
            )
        ]
        for document, photons in lines
    ]
    heights = [len(rows) + 1 for rows in times]
    figure = Figure(figsize=(13.0, 1.0 + 0.42 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(lines), len(OBJECTS), squeeze=False, height_ratios=heights)
    used: set[str] = set()
    for (line, (document, photons)), (column, kind) in itertools.product(
        enumerate(lines), enumerate(OBJECTS)
    ):
        axis = axes[line, column]
        scans = [scan for scan in document["scans"] if (scan["object"], scan["photons"]) == (kind, photons)]
        used |= _panel(axis, scans, sorted({scan["step"] for scan in document["scans"]}), times[line])
        axis.set_title(
            f"{kind}, {photons:.0e} photons, N = {document['conditions']['n']}".replace("e+0", "e"),
            fontsize=10,
        )
        last = [scan["methods"]["mPIE"][-1] for scan in document["scans"]]
        epoch = float(np.median([point["seconds"] / point["epochs"] for point in last]))
        axis.set_yticks(
            range(len(times[line])),
            [f"{epochs} ({epochs * epoch:.2g} s)" for epochs in times[line]] if column == 0 else [],
        )
        if column == 0:
            axis.set_ylabel("time allowed\n(epochs of mPIE)")
        if line == len(lines) - 1:
            axis.set_xlabel("raster step (pixels)")
    patches = [Patch(color=_COLOURS.get(name, "#999999"), label=name) for name in sorted(used)]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(used), 6), frameon=False)
    figure.savefig(path, dpi=120)


def _panel(axis: Axes, scans: Sequence[Row], steps: Sequence[int], times: Sequence[int]) -> set[str]:
    """Fill a panel with the best method of each raster step and time; the names of these methods."""
    used = set()
    panel = np.ones((len(times), len(steps), 3))
    for (row, epochs), (place, step) in itertools.product(enumerate(times), enumerate(steps)):
        scores = summary([scan for scan in scans if scan["step"] == step], epochs)
        if not scores:
            continue
        best = max(scores, key=lambda name: scores[name][0])
        name = re.sub(r"^any_\d+", "any", best)
        used.add(name)
        panel[row, place] = to_rgb(_COLOURS.get(name, "#999999"))
        mean, spread = scores[best]
        text = f"{mean:.2f}" + (f"\n±{spread:.2f}" if spread else "")
        axis.text(place, row, text, ha="center", va="center", fontsize=7)
    axis.imshow(panel, origin="lower", aspect="auto")
    axis.set_xticks(range(len(steps)), [str(step) for step in steps])
    return used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=64, help="pixels of a pattern along an axis")
    parser.add_argument("--network", action="append", help="default: zoo:any_N and zoo:any_N_grid2")
    parser.add_argument("--step", type=int, action="append", help="default: those of the photons")
    parser.add_argument("--photons", type=float, action="append", help=f"default: {tuple(PHOTONS)}")
    parser.add_argument("--object", choices=OBJECTS, action="append")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--grid", type=int, default=5, help="side of each scan, in positions")
    parser.add_argument("--epochs", type=int, default=60, help="of mPIE and rPIE from vacuum")
    parser.add_argument("--epie", type=int, default=10, help="epochs of ePIE from vacuum")
    parser.add_argument("--refinement", type=int, default=10, help="epochs from the object of a network")
    parser.add_argument(
        "--alone", action="store_true", help="nothing else runs on the machine: times are its own"
    )
    parser.add_argument("--most", type=int, help="scans to measure in this run")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--draw", type=Path, help="picture of the files, without a measurement")
    parser.add_argument("files", type=Path, nargs="*")
    arguments = parser.parse_args()
    if arguments.out is not None:
        run(arguments)
    if arguments.draw is not None:
        draw([json.loads(path.read_text(encoding="utf-8")) for path in arguments.files], arguments.draw)


def run(arguments: argparse.Namespace) -> None:
    """Measure what the file lacks and write it after each scan."""
    out: Path = arguments.out
    before = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    n = arguments.n
    paths = {
        Path(str(name).removeprefix("zoo:")).stem: artifact_path(name)
        for name in arguments.network or [f"zoo:any_{n}", f"zoo:any_{n}_grid2"]
    }
    sessions = {name: Session(path, "cpu", 1) for name, path in paths.items()}
    conditions = {
        "n": n,
        # The weights, not the file: another export of them computes the same.
        "networks": {
            name: session.contract.weights.checkpoint_sha256
            for name, session in sessions.items()
            if session.contract.weights is not None
        },
        "patterns": arguments.grid**2,
        "processor": processor(),
        "threads": 1,
        "alone": arguments.alone,
    }
    kept = before["scans"] if before.get("conditions") == conditions else []
    document: Row = {"conditions": conditions, "scans": kept}
    # Scans with fewer epochs than are wanted now are measured again.
    rows = {(scan["object"], scan["step"], scan["photons"], scan["seed"]): scan for scan in kept}
    done = {
        key
        for key, scan in rows.items()
        if all(
            points[-1]["epochs"] >= (arguments.epochs if name in ("mPIE", "rPIE") else arguments.refinement)
            for name, points in scan["methods"].items()
            if "PIE" in name and name != "ePIE"
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
        write_text(out, json.dumps(document) + "\n")
        scores = {name: round(mean, 3) for name, (mean, _) in summary([row], TIMES[1]).items()}
        print(kind, step, f"{photons:g}", seed, scores, flush=True)


if __name__ == "__main__":
    main()
