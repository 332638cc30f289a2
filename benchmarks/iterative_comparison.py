"""Time to a given resolution: a network alone, iterations from vacuum, and iterations from the network's object.

The resolution is the spatial frequency in cycles per pixel at which the Fourier ring correlation with the reference
falls below 0.5, or 0.5 (Nyquist) if it never does. Iterations are measured after each epoch, so a target that is
reached within the first epoch is reached earlier than stated.

All methods run once in each round, in an order that changes from round to round. Times are medians over the rounds
without reading and comparison; ratios are those of times within one round.

    python benchmarks/iterative_comparison.py models/*.onnx --scan data/test.npz \
        --out benchmarks/results/iterative_comparison.json --figure docs/images/iterative.png
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.evaluation.judge import summarise
from ptychonnx.harness.evaluation.results import ScanSummary
from ptychonnx.harness.iterative.algorithm import Algorithm
from ptychonnx.harness.iterative.iterations import iterate, vacuum
from ptychonnx.harness.metrics.comparison import compare
from ptychonnx.harness.report.figure_style import COLOURS, DASHES, as_png, blank_figure
from ptychonnx.runtime.atomic import atomic_path, write_text
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.reconstruction import Reconstruction, reconstruct
from ptychonnx.runtime.scan import Scan

NYQUIST = 0.5
TARGETS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, NYQUIST)
VACUUM = "vacuum"


@dataclass
class Method:
    """A starting point, its time in each round, and the iterations from it."""

    session: Session | None
    start_seconds: list[float] = field(default_factory=list)
    epoch_seconds: list[tuple[float, ...]] = field(default_factory=list)
    quality: list[dict[str, float]] = field(default_factory=list)

    def times(self) -> list[list[float]]:
        """Time to the start and to the end of each epoch, for each round."""
        return [
            list(np.cumsum([start, *epochs]))
            for start, epochs in zip(self.start_seconds, self.epoch_seconds, strict=True)
        ]


def quality(image: NDArray[np.complex64], summary: ScanSummary) -> dict[str, float]:
    assert summary.reference is not None
    compared = compare(image, summary.reference, summary.region)
    found: dict[str, float] = {}
    for name, metrics in (("amplitude", compared.amplitude), ("phase", compared.phase)):
        frc = metrics.frc
        cutoff = 0.0 if frc is None else frc.cutoff_half
        found[f"{name}_cutoff"] = NYQUIST if cutoff is None else cutoff
        found[f"{name}_mae"] = float("nan") if metrics.mae is None else metrics.mae
    return found


def run(
    method: Method, scan: Scan, epochs: int, algorithm: Algorithm
) -> tuple[Reconstruction, list[NDArray]]:
    """One round of a method; returns the start and the object after each epoch."""
    began = time.perf_counter()
    if method.session is None:
        made = Reconstruction(vacuum(scan), "none", len(scan), 0.0, 0.0)
        method.start_seconds.append(0.0)
    else:
        made = reconstruct(method.session, scan)
        method.start_seconds.append(time.perf_counter() - began)
    images = [made.stitched.object]
    done = iterate(
        scan,
        epochs,
        made.stitched,
        algorithm,
        watch=lambda epoch, image: images.append(image().copy()),
    )
    method.epoch_seconds.append(done.seconds)
    return made, images


def time_to(method: Method, quantity: str, network_seconds: list[float]) -> dict[str, Any]:
    """Time to each target in seconds and relative to the network, or None if it is not reached."""
    found: dict[str, Any] = {}
    for target in TARGETS:
        reached = [index for index, each in enumerate(method.quality) if each[f"{quantity}_cutoff"] >= target]
        if not reached:
            found[f"{target:g}"] = None
            continue
        times = [each[reached[0]] for each in method.times()]
        found[f"{target:g}"] = {
            "epochs": reached[0],
            "seconds": statistics.median(times),
            "over_network": statistics.median(a / b for a, b in zip(times, network_seconds, strict=True)),
        }
    return found


def measure(artifacts: Sequence[Path], scan: Scan, arguments: argparse.Namespace) -> dict[str, Any]:
    methods = {path.stem: Method(Session(path, "cpu", arguments.threads)) for path in artifacts}
    methods[VACUUM] = Method(None)
    algorithm = Algorithm(arguments.alpha, arguments.momentum)
    shuffled = random.Random(0)
    for method in methods.values():  # not timed: first runs also allocate and import
        run(method, scan.subset(slice(0, min(32, len(scan)))), 1, algorithm)
        method.start_seconds.clear(), method.epoch_seconds.clear()
    summary = None
    for number in range(arguments.rounds):
        order = list(methods)
        shuffled.shuffle(order)
        for name in order:
            made, images = run(methods[name], scan, arguments.epochs, algorithm)
            if number == 0:
                summary = summary or summarise(scan, [made], None)
                methods[name].quality = [quality(image, summary) for image in images]
    found = {}
    for name, method in methods.items():
        network = method.start_seconds
        if method.session is None:  # against the first network
            network = next(iter(methods.values())).start_seconds
        entry: dict[str, Any] = {
            "start_seconds": statistics.median(method.start_seconds),
            "epoch_seconds": statistics.median(each for one in method.epoch_seconds for each in one),
            "times": [statistics.median(each) for each in zip(*method.times(), strict=True)],
            "quality": method.quality,
        }
        if len(methods) > 1:
            entry["time_to_frc"] = {each: time_to(method, each, network) for each in ("amplitude", "phase")}
        found[name] = entry
    return found


def draw(methods: dict[str, Any], iterations: str, title: str) -> bytes:
    """Cut-off and error of the phase against time; a circle marks the network alone."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = blank_figure(9.0, 4.1, "constrained")
    lines: dict[str, Any] = {}
    for index, (key, label) in enumerate(
        (("phase_cutoff", "phase FRC cut-off at 0.5 (cycles per pixel)"), ("phase_mae", "phase MAE (rad)"))
    ):
        axes = figure.add_subplot(1, 2, index + 1)
        for number, (name, entry) in enumerate(methods.items()):
            colour = COLOURS[number % len(COLOURS)]
            values, times = [each[key] for each in entry["quality"]], entry["times"]
            from_network = name != VACUUM
            skip = 0 if from_network else 1  # vacuum is no reconstruction
            (line,) = axes.plot(
                times[skip:],
                values[skip:],
                color=colour,
                linestyle=DASHES[number % len(DASHES)],
                linewidth=1.4,
                marker=".",
                markersize=4,
            )
            lines[f"{name}, then {iterations}" if from_network else f"{iterations} from vacuum"] = line
            if from_network:
                (point,) = axes.plot(
                    times[0], values[0], "o", color=colour, markersize=8, markerfacecolor="white"
                )
                lines[f"{name} alone"] = point
        axes.set(xscale="log", xlabel="time (s)", title=label)
        if key == "phase_cutoff":
            axes.set_ylim(0, NYQUIST * 1.04)
        else:
            axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis) if key == "phase_mae" else (axes.xaxis,):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        lines.values(), lines.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    figure.suptitle(title, fontsize=11)
    return as_png(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifacts", nargs="*", type=Path, help="may be none: iterations from vacuum alone")
    parser.add_argument("--scan", type=Path, required=True)
    parser.add_argument("--reference", type=Path, help="object to compare with, if the scan has none")
    parser.add_argument("--probe", type=Path, help="NPZ whose probe replaces that of the scan")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--alpha", type=float, help="1 is ePIE; default: from the photons")
    parser.add_argument("--momentum", type=float, help="0 is rPIE; 0.8 by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    scan = read_scan(arguments.scan, reference=arguments.reference, probe=arguments.probe)
    methods = measure(arguments.artifacts, scan, arguments)
    for name, entry in methods.items():
        print(f"{name}: start {entry['start_seconds']:.2f} s, an epoch {entry['epoch_seconds']:.2f} s")
        for epoch, (took, each) in enumerate(zip(entry["times"], entry["quality"], strict=True)):
            if epoch in (0, 1, 2, 3, 5, 10) or epoch == arguments.epochs:
                print(
                    f"  {epoch:>3} epochs {took:8.2f} s  FRC amplitude {each['amplitude_cutoff']:.3f} "
                    f"phase {each['phase_cutoff']:.3f}  MAE {each['amplitude_mae']:.4f} {each['phase_mae']:.4f}"
                )
    document = {
        "scan": scan.name,
        "patterns": len(scan),
        "n": scan.size,
        "epochs": arguments.epochs,
        "algorithm": Algorithm(momentum=arguments.momentum).name,
        "alpha": arguments.alpha,
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("onnxruntime-gpu", "scipy", "numpy")},
        "methods": methods,
    }
    if arguments.out:
        write_text(arguments.out, json.dumps(document, indent=1, allow_nan=False) + "\n")
    if arguments.figure:
        title = f"{scan.name}: {len(scan)} patterns of {scan.size} x {scan.size} pixels"
        with atomic_path(arguments.figure) as partial:
            partial.write_bytes(draw(methods, Algorithm(momentum=arguments.momentum).name, title))


if __name__ == "__main__":
    main()
