"""What `hybrid_resnet` at N = 128 reaches after more and more training, on the lines dataset.

`python -m benchmarks.training_curve OUT` trains it from nothing several times, each time for a longer schedule of the
learning rate, on one thread, and judges each network on the test scan: as in `ptychonnx evaluate`, with patches
synchronised, and in the metrics of PtychoPINN. Each training is a folder in OUT, so that a second call continues. The
table goes into `docs/results/tables.json`, the figures into `quality.json`. 15 epochs take about 90 minutes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.single_pattern_bounds import figures, record, stitched_rectangles, test_scan
from ptychonnx.harness.metrics.ptychopinn_profile import compare_as_ptychopinn
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.machine import processor
from ptychonnx.runtime.scan import Scan
from ptychonnx.train.fitting import settings_for, train
from ptychonnx.train.registry import get_architecture
from ptychonnx.train.run import read_run
from ptychonnx.train.trained_network import load_network

EPOCHS = (1, 2, 4, 8)
LINES = LinesConfig(n=128, step=12, train_grid=40, test_grid=12)
PART = "training_curve"

Row = dict[str, Any]


def measure(epochs: int, options: Mapping[str, Any], scan: Scan, out: Path) -> Row:
    """Train for a number of epochs, unless that is done, and judge the network on the test scan."""
    architecture = get_architecture("hybrid_resnet")
    chosen, training = settings_for(architecture, {"n": scan.size, "epochs": epochs, **options})
    train(scan, architecture, chosen, training, out, resume=True)
    recorded = read_run(out)
    native, test = load_network(out, recorded), test_scan(LINES)
    given = test.diffraction[:, None].astype(np.float32)
    parts = np.concatenate([native.predict(given[start : start + 16]) for start in range(0, len(given), 16)])
    patches: NDArray[np.complex64] = parts[:, :, :, 0, 0] + 1j * parts[:, :, :, 0, 1]
    image, reference = stitched_rectangles(test, patches, synchronise=True)
    theirs = compare_as_ptychopinn(image, reference)
    return {
        "epochs": epochs,
        "width": chosen.width,
        "parameters": recorded.parameters,
        "patterns": len(scan),
        "minutes": round(recorded.seconds / 60, 1),
        "validation_loss": recorded.validation_loss,
        "as_is": figures(test, patches),
        "synchronised": figures(test, patches, synchronise=True),
        "ptychopinn": {"amplitude_ssim": theirs.amplitude.ssim, "phase_ssim": theirs.phase.ssim},
        "processor": processor(),
    }


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown; cells hold SSIM of amplitude / phase."""
    lines = [
        "| epochs | minutes | loss, held out | as is | synchronised | synchronised, metrics of PtychoPINN |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        pairs = (
            f"{row[how]['amplitude_ssim']:.3f} / {row[how]['phase_ssim']:.3f}"
            for how in ("as_is", "synchronised", "ptychopinn")
        )
        lines.append(
            f"| {row['epochs']} | {row['minutes']:.0f} | {row['validation_loss']:.4f} | {' | '.join(pairs)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the runs")
    parser.add_argument("--epochs", type=int, nargs="+", default=EPOCHS, help="length of each training")
    parser.add_argument("--width", type=int, default=16)
    arguments = parser.parse_args()
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    scan = simulate_scan(LINES, LINES.train_grid, np.random.SeedSequence([LINES.seed, 0]), "train")
    rows: list[Row] = []
    for epochs in arguments.epochs:
        rows.append(measure(epochs, {"width": arguments.width}, scan, arguments.out / f"epochs_{epochs:02d}"))
        record(PART, rows, table(rows))
        print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
