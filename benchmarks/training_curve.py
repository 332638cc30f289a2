"""What `hybrid_resnet` at N = 128 reaches after more and more training, on the lines dataset.

`python -m benchmarks.training_curve OUT` trains it from nothing several times, each time for a longer schedule of the
learning rate, on one thread, and judges each network on the test scan: as in `ptychonnx evaluate`, with patches
synchronised, and in the metrics of PtychoPINN. Each training is a folder in OUT, so that a second call continues. The
table goes into `docs/results/tables.json`, the figures into `quality.json`. 15 epochs take about 90 minutes.
With `--gridsize 2` the network sees four neighbouring patterns at a time, and is judged with several numbers of steps
after it; these rows have a table of their own.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.single_pattern_bounds import figures, record, stitched_rectangles, test_scan
from ptychonnx.harness.metrics.ptychopinn_profile import compare_as_ptychopinn
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.machine import processor
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import group_neighbours, group_offsets
from ptychonnx.train.fitting import settings_for, train
from ptychonnx.train.registry import get_architecture
from ptychonnx.train.run import NativeNetwork, read_run
from ptychonnx.train.trained_network import load_network

EPOCHS = (1, 2, 4, 8)
LINES = LinesConfig(n=128, step=12, train_grid=40, test_grid=12)
PART = "training_curve"
BATCH = 16

Row = dict[str, Any]


def measure(
    epochs: int, options: Mapping[str, Any], scan: Scan, out: Path, final_steps: Sequence[int]
) -> Iterator[Row]:
    """Train for a number of epochs, unless that is done, and judge the network on the test scan.

    One row for each number of steps after the network, which hold no weights.
    """
    architecture = get_architecture("hybrid_resnet")
    chosen, training = settings_for(architecture, {"n": scan.size, "epochs": epochs, **options})
    train(scan, architecture, chosen, training, out, resume=True)
    recorded, test = read_run(out), test_scan(LINES)
    for steps in final_steps:
        began = time.perf_counter()
        patches = predicted(load_network(out, recorded.with_final_steps(steps)), test, chosen.gridsize)
        seconds = time.perf_counter() - began
        image, reference = stitched_rectangles(test, patches, synchronise=True)
        theirs = compare_as_ptychopinn(image, reference)
        yield {
            "epochs": epochs,
            "gridsize": chosen.gridsize,
            "width": chosen.width,
            "final_steps": steps,
            "parameters": recorded.parameters,
            "patterns": len(scan),
            "minutes": round(recorded.seconds / 60, 1),
            "seconds_to_predict": round(seconds, 1),
            "validation_loss": recorded.validation_loss,
            "as_is": figures(test, patches),
            "synchronised": figures(test, patches, synchronise=True),
            "ptychopinn": {"amplitude_ssim": theirs.amplitude.ssim, "phase_ssim": theirs.phase.ssim},
            "processor": processor(),
        }


def predicted(native: NativeNetwork, scan: Scan, gridsize: int) -> NDArray[np.complex64]:
    """The patch [n, N, N] of each pattern; one in the middle of its neighbours if the network sees several."""
    groups = group_neighbours(scan.positions, gridsize)
    found = []
    for start in range(0, len(groups), BATCH):
        group = groups[start : start + BATCH]
        given = [scan.diffraction[group].astype(np.float32)]
        if gridsize > 1:
            given.append(group_offsets(scan.positions, group))
        found.append(native.predict(*given))
    parts = np.concatenate(found)
    own: NDArray[np.float32] = np.moveaxis(parts, 3, 1)[groups == np.arange(len(groups))[:, None]]
    return own[..., 0] + 1j * own[..., 1]


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown; cells hold SSIM of amplitude / phase."""
    lines = [
        "| epochs | minutes | steps after | as is | synchronised | synchronised, metrics of PtychoPINN |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        pairs = (
            f"{row[how]['amplitude_ssim']:.3f} / {row[how]['phase_ssim']:.3f}"
            for how in ("as_is", "synchronised", "ptychopinn")
        )
        lines.append(
            f"| {row['epochs']} | {row['minutes']:.0f} | {row['final_steps']} | {' | '.join(pairs)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the runs")
    parser.add_argument("--epochs", type=int, nargs="+", default=EPOCHS, help="length of each training")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--gridsize", type=int, default=1, help="2: four patterns at a time")
    parser.add_argument("--final-steps", type=int, nargs="+", default=(12,), help="steps after the network")
    arguments = parser.parse_args()
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    scan = simulate_scan(LINES, LINES.train_grid, np.random.SeedSequence([LINES.seed, 0]), "train")
    part = PART if arguments.gridsize == 1 else f"{PART}_{arguments.gridsize**2}"
    options = {"width": arguments.width, "gridsize": arguments.gridsize}
    rows: list[Row] = []
    for epochs in arguments.epochs:
        for row in measure(
            epochs, options, scan, arguments.out / f"epochs_{epochs:02d}", arguments.final_steps
        ):
            rows.append(row)
            record(part, rows, table(rows))
            print(row, flush=True)


if __name__ == "__main__":
    main()
