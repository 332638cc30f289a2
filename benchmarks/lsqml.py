"""LSQML of pty-chi next to rPIE, from vacuum, on scans of `benchmarks/regimes.py`: scores by epochs and seconds.

pty-chi runs in an environment of its own, in turn with rPIE, on one thread.

    make .ptychi/installed
    python -m benchmarks.lsqml .ptychi/bin/python --out docs/results/lsqml.json

Scans that the file has are not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.regimes import Judge, Row, iterated, simulate
from ptychonnx.harness.iterative.iterations import iterate, vacuum
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.machine import processor
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import window_corners

OBJECTS = ("lines", "star")
STEPS = (12, 24, 32)
PHOTONS = 1e9
EPOCHS = (1, 3, 10, 30)
WORKER = Path(__file__).with_name("lsqml_worker.py")


def lsqml(python: Path, scan: Scan, judge: Judge, batch: int, epochs: tuple[int, ...]) -> list[Row]:
    """Scores along the iterations of pty-chi."""
    canvas = vacuum(scan)
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "scan.npz", Path(name) / "objects.npz"
        np.savez(
            source,
            patterns=np.square(np.asarray(scan.diffraction)),
            corners=window_corners(scan.positions, scan.size) - canvas.origin,
            probe=scan.probe,
            shape=canvas.shape,
        )
        command = [python, WORKER, source, target, ",".join(map(str, epochs)), str(batch)]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        with np.load(target) as file:
            return [
                judge.row(image, epoch, float(seconds))
                for image, epoch, seconds in zip(file["objects"], epochs, file["seconds"], strict=True)
            ]


def main() -> None:
    """Measure, and write the record after each scan."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("python", type=Path, help="interpreter of an environment with pty-chi")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=5, help="patterns between two updates of LSQML")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    versions = subprocess.run(
        [arguments.python, "-m", "pip", "list", "--format", "json"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    packages = {package["name"]: package["version"] for package in json.loads(versions)}
    document: Row = {"processor": processor(), "threads": 1, "patterns": 25, "photons": PHOTONS, "scans": []}
    if arguments.out.is_file():
        document = json.loads(arguments.out.read_text(encoding="utf-8"))
    document["versions"] = {name: packages[name] for name in ("ptychi", "torch", "torchvision")}
    done = {(row["object"], row["step"], row["seed"], row["batch"]) for row in document["scans"]}
    # Code is compiled in the first run.
    iterate(simulate("lines", 12, PHOTONS, 0, 64, 3), 1)
    for seed, kind, step in itertools.product(range(arguments.seeds), OBJECTS, STEPS):
        if (kind, step, seed, arguments.batch) in done:
            continue
        scan = simulate(kind, step, PHOTONS, seed, 64, 5)
        judge = Judge(scan)
        row = {"object": kind, "step": step, "seed": seed, "batch": arguments.batch}
        row["LSQML"] = lsqml(arguments.python, scan, judge, arguments.batch, EPOCHS)
        row["rPIE"] = iterated(scan, judge, EPOCHS[-1], None, 0.0, "rPIE")
        document["scans"].append(row)
        write_text(arguments.out, json.dumps(document, indent=1) + "\n")
        print(kind, step, seed, row["LSQML"][-1], row["rPIE"][-1], flush=True)


if __name__ == "__main__":
    main()
