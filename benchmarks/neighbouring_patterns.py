"""How much information one pattern holds, and how much its neighbours would add.

Patterns are retrieved in groups of neighbours, without a network, and compared with the networks of the zoo, which
see one pattern or four. `python -m benchmarks.neighbouring_patterns` writes its part of `docs/results/quality.json`,
its tables in `docs/results/tables.json` and `docs/images/neighbours.png` in about five minutes on one core;
`--networks` measures the networks alone, in half a minute.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.joint_retrieval import retrieved_jointly
from benchmarks.single_pattern_bounds import DOCS, RESULTS, figures, record, test_scan
from ptychonnx.harness.report.figure_style import COLOURS, as_png, blank_figure
from ptychonnx.harness.simulate.lines_dataset import LinesConfig
from ptychonnx.runtime.atomic import atomic_path
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, illumination
from ptychonnx.runtime.scan.grouping import group_neighbours

ZOO = DOCS.parent / "zoo"
GOAL = 0.97
SEED, OTHER_SEEDS = 0, (101, 102)
STEPS = (12, 24, 48, 96)
MORE_STEPS = (384, 1536)  # of a single pattern
MEMBERS = (1, 2, 4, 9, 16, 25, 400)
REPEATED = (1, 4, 9)
PHASES = {
    "phase_ssim": "patches as they are",
    "phase_ssim_synchronised": "patches synchronised",
    "phase_ssim_true_phases": "each patch at its true global phase",
}

NETWORKS = -0.75  # horizontal position of the networks in the figure, left of one pattern

Row = dict[str, Any]


def judged(scan: Scan, patches: NDArray[np.complex64]) -> Row:
    """SSIM of the stitched patches; that of the phase also with two corrections of the phase of each patch."""
    known = cut_windows(scan.reference.object, scan.positions, scan.size)
    overlap = np.sum(illumination(scan.probe) * patches.conj() * known, axis=(1, 2), keepdims=True)
    plain = figures(scan, patches)
    phases = (
        plain["phase_ssim"],
        figures(scan, patches, synchronise=True)["phase_ssim"],
        figures(scan, patches * (overlap / np.abs(overlap)))["phase_ssim"],
    )
    return {"amplitude_ssim": plain["amplitude_ssim"], **dict(zip(PHASES, phases, strict=True))}


def predicted(scan: Scan, artifact: Path) -> NDArray[np.complex64]:
    """The patch of each pattern from a network that takes one pattern or a group of neighbours."""
    session = Session(artifact, "cpu", 1)
    session.check_scan(scan)
    groups = group_neighbours(scan.positions, session.contract.gridsize)
    patches = np.concatenate([patches for _, patches in session.batches(scan, groups)])
    return patches[groups == np.arange(len(scan))[:, None]]


def zoo_of_size(n: int) -> list[Path]:
    """The networks of the zoo for patterns of n pixels."""
    return [path for path in sorted(ZOO.glob("*.onnx")) if Session(path, "cpu", 1).contract.n == n]


def networks_measured() -> Iterator[Row]:
    """One row for each object and network."""
    for seed in (SEED, *OTHER_SEEDS):
        scan = test_scan(LinesConfig(seed=seed))
        for artifact in zoo_of_size(scan.size):
            yield {"seed": seed, "network": artifact.stem} | judged(scan, predicted(scan, artifact))


def retrieval_measured() -> Iterator[Row]:
    """One row for each object, number of patterns and number of steps."""
    for seed in (SEED, *OTHER_SEEDS):
        scan = test_scan(LinesConfig(seed=seed))
        for members in MEMBERS if seed == SEED else REPEATED:
            steps = STEPS + MORE_STEPS if seed == SEED and members == 1 else STEPS
            for number, patches in retrieved_jointly(scan, members, steps).items():
                yield {"seed": seed, "patterns": members, "steps": number} | judged(scan, patches)


def select(rows: Iterable[Row], **values: object) -> list[Row]:
    """The rows that have all of these values."""
    return [row for row in rows if all(row.get(key) == value for key, value in values.items())]


def networks_of(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["network"] for row in rows if "network" in row))


def tables(rows: Sequence[Row]) -> str:
    """Markdown tables: retrieval on the first object, and the networks on all objects."""
    steps = STEPS + MORE_STEPS
    heads = [f"{number:,}" for number in steps]
    lines = [f"| patterns | {heads[0]} steps | " + " | ".join(heads[1:]) + " | amplitude SSIM, 96 steps |"]
    lines.append("|---" * (len(steps) + 2) + "|")
    for members in MEMBERS:
        cells = []
        for number in steps:
            at = select(rows, seed=SEED, patterns=members, steps=number)
            cells.append(" / ".join(f"{at[0][name]:.3f}" for name in PHASES) if at else "")
        (last,) = select(rows, seed=SEED, patterns=members, steps=STEPS[-1])
        lines.append(f"| {_count(members)} | " + " | ".join(cells) + f" | {last['amplitude_ssim']:.3f} |")
    lines += [
        "",
        "| network of the zoo | " + " | ".join(PHASES.values()) + " |",
        "|---|---|---|---|",
    ]
    for network in networks_of(rows):
        values = [[row[name] for row in select(rows, network=network)] for name in PHASES]
        lines.append(f"| `{network}` | " + " | ".join(f"{min(v):.3f} to {max(v):.3f}" for v in values) + " |")
    return "\n".join(lines)


def _count(members: int) -> str:
    return "all" if members == MEMBERS[-1] else str(members)


def draw(rows: Sequence[Row]) -> bytes:
    """One panel per correction of the phases: networks, then phase SSIM against the number of patterns."""
    figure = blank_figure(11.0, 4.6, "constrained")
    axes = figure.subplots(1, len(PHASES), sharey=True)
    for panel, (name, title) in zip(axes, PHASES.items(), strict=True):
        panel.axhline(GOAL, color="black", linewidth=1, linestyle="--", label=f"goal, {GOAL:g}")
        _draw_networks(panel, rows, name)
        for steps, colour, marker in zip(STEPS, COLOURS, "os^D", strict=False):
            values = [select(rows, seed=SEED, patterns=members, steps=steps)[0][name] for members in MEMBERS]
            panel.plot(values, color=colour, marker=marker, markersize=5, label=f"{steps} steps")
            for members in REPEATED:
                over = [row[name] for row in select(rows, patterns=members, steps=steps)]
                # Side by side, because the ranges of several numbers of steps overlap.
                place = MEMBERS.index(members) + 0.11 * (STEPS.index(steps) + 1)
                panel.plot([place, place], [min(over), max(over)], color=colour, linewidth=1.5)
        for steps, marker in zip(MORE_STEPS, "P*", strict=True):
            (row,) = select(rows, seed=SEED, patterns=1, steps=steps)
            panel.plot(
                0, row[name], marker, color="black", markersize=7, label=f"{steps:,} steps, one pattern"
            )
        places = [NETWORKS, *range(len(MEMBERS))]
        panel.set_xticks(places, ["zoo", *(_count(each) for each in MEMBERS)])
        panel.set(title=title, xlim=(-2.9, len(MEMBERS) - 0.7), ylim=(0.43, 1.01))
        panel.set_xlabel("patterns that one object explains\n(zoo: one, or four where a name says x4)")
        panel.grid(axis="y", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("SSIM of the stitched phase")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    return as_png(figure)


def _draw_networks(panel: Any, rows: Sequence[Row], name: str) -> None:
    """A horizontal mark for each network, left of the retrieval, with its name."""
    marks = sorted((row[name], row["network"]) for row in select(rows, seed=SEED) if "network" in row)
    heights = [value for value, _ in marks]
    for _ in range(50):  # move overlapping names apart
        for index in range(1, len(heights)):
            missing = max(0.027 - (heights[index] - heights[index - 1]), 0) / 2
            heights[index - 1] -= missing
            heights[index] += missing
    for (value, network), height in zip(marks, heights, strict=True):
        panel.plot([NETWORKS - 0.25, NETWORKS + 0.25], [value, value], color="black", linewidth=2)
        words = network.removeprefix("pinn_").replace("_grid2", " x4")
        # In front of the line of the goal.
        clear = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        panel.annotate(words, (NETWORKS - 0.35, height), ha="right", va="center", fontsize=8, bbox=clear)
    panel.axvline(NETWORKS + 0.4, color="black", linewidth=0.5, alpha=0.5)


def show(rows: Sequence[Row]) -> None:
    """Write the rows, the tables and the figure."""
    with atomic_path(DOCS / "images" / "neighbours.png") as partial:
        partial.write_bytes(draw(rows))
    record("neighbours", rows, tables(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", action="store_true", help="measure only the networks of the zoo")
    again = parser.parse_args().networks
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows = [row for row in content["neighbours"] if "patterns" in row] if again else []
    for row in networks_measured() if again else chain(networks_measured(), retrieval_measured()):
        rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}
        print(rounded, flush=True)
        rows.append(row)
    show(rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
