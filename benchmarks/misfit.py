"""Forward misfit against true error, for all sizes of pattern; and the cost of a beam that is an input.

    python -m benchmarks.misfit zoo/any_*.onnx zoo/pinn_hybrid.onnx --out benchmarks/results/misfit.json

Each network reconstructs lines in two beams, and some of the scans of `benchmarks.unseen_beams`, at its size of
pattern; three epochs of rPIE follow. Objects of 1, 3 and 10 epochs from vacuum are other wrong ones. What FILE holds
already is not measured again, and `--minutes` ends early. Ten minutes on one core; `--cost` measures the cost instead.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.regimes import SETTINGS
from benchmarks.unseen_beams import Row, family_scans, quality
from ptychonnx import simulate_lines
from ptychonnx.harness.iterative.iterations import iterate, vacuum
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.machine import processor
from ptychonnx.runtime.reconstruction import Reconstruction, reconstruct
from ptychonnx.runtime.reconstruction.misfit import Misfit, forward_misfit
from ptychonnx.runtime.reconstruction.stitching import Stitched
from ptychonnx.runtime.scan import Scan

SEED = 20261129
# Side of the scans in positions, by the size of the patterns.
GRIDS = {64: 8, 128: 6, 256: 5}
# Places among the 20 scans of `family_scans`: all kinds of object, known and unknown beams, 3e5 to 1e10 photons.
PLACES = (0, 1, 2, 3, 4, 7, 9, 12, 14, 17)
EPOCHS = (1, 3, 10)
BATCHES = (1, 16, 256)
REPEATS = 5


def scans_of_size(n: int) -> Iterator[tuple[str, Scan]]:
    """Lines in a zone plate and in a disk, and scans of the family."""
    grid = GRIDS[n]
    for probe in ("zone-plate", "disk"):
        yield f"lines, {probe}", simulate_lines(grid=grid, n=n, probe=probe, step=6 * n // 64)
    for place, (row, scan) in enumerate(family_scans(n, 20, grid, SEED)):
        if place in PLACES:
            yield f"{place}: {row['object']}, {row['beam']}", scan


def figures(scan: Scan, like: Reconstruction, stitched: Stitched, misfit: Misfit | None) -> Row:
    """Misfit and SSIM of an object, in the region of another reconstruction."""
    misfit = misfit or forward_misfit(scan, stitched)
    assert misfit is not None
    ssim = {
        name: value for name, value in quality(stitched.object, scan, like).items() if name.endswith("ssim")
    }
    return {
        "misfit": misfit.value,
        "scattered": misfit.scattered,
        "vacuum": misfit.vacuum,
        "verdict": misfit.verdict,
        **ssim,
    }


def network_rows(session: Session, scan: Scan) -> dict[str, Row]:
    """A network alone, and three epochs after it."""
    made = reconstruct(session, scan)
    assert isinstance(made.stitched, Stitched)
    name = session.path.stem
    return {
        name: figures(scan, made, made.stitched, made.misfit),
        f"{name}, then 3 epochs": figures(
            scan, made, iterate(scan, 3, made.stitched, SETTINGS["rPIE"]).stitched, None
        ),
    }


def vacuum_rows(scan: Scan) -> dict[str, Row]:
    """A few epochs of rPIE from vacuum."""
    start, rows = vacuum(scan), {}
    assert isinstance(start, Stitched)
    like = Reconstruction(start, "none", len(scan), 0.0, 0.0)

    def watch(epoch: int, image: Callable[[], NDArray[np.complex64]]) -> None:
        if epoch in EPOCHS:
            stitched = Stitched(image().copy(), start.weight, start.origin)
            rows[f"rPIE, {epoch} epochs"] = figures(scan, like, stitched, None)

    iterate(scan, max(EPOCHS), start, SETTINGS["rPIE"], watch=watch)
    return rows


def rank_correlations(rows: list[Row]) -> dict[str, float]:
    """Of both misfits with the smaller SSIM of amplitude and phase, without collapsed objects."""
    known = [row for row in rows if row["amplitude_ssim"] is not None and row["phase_ssim"] is not None]
    worse = [min(row["amplitude_ssim"], row["phase_ssim"]) for row in known]
    return {
        name: -float(spearmanr([row[name] for row in known], worse).statistic)
        for name in ("misfit", "scattered")
    }


def verdicts(rows: list[Row]) -> dict[str, list[float]]:
    """The smaller SSIM of amplitude and phase, 0 for collapsed objects, in order, by verdict."""
    result: dict[str, list[float]] = {}
    for row in rows:
        worse = min(row["amplitude_ssim"] or 0, row["phase_ssim"] or 0)
        result.setdefault(row["verdict"], []).append(round(worse, 3))
    return {verdict: sorted(values) for verdict, values in result.items()}


def cost_of_the_beam(general: Session) -> dict[str, dict[str, float]]:
    """Milliseconds of a call with a beam that is fed; interleaved, the shortest of several."""
    scan = simulate_lines(grid=3, n=general.contract.n)
    fed = general.beam(scan)
    times: dict[str, dict[str, float]] = {}
    for batch in BATCHES:
        patterns = np.resize(np.asarray(scan.diffraction)[:, None], (batch, 1, scan.size, scan.size))
        shortest = np.inf
        for _ in range(REPEATS):
            start = time.perf_counter()
            general.predict(patterns, beam=fed)
            shortest = min(shortest, time.perf_counter() - start)
        times[str(batch)] = {"call_ms": 1e3 * shortest, "pattern_ms": 1e3 * shortest / batch}
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--minutes", type=float, default=np.inf)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    ends = time.monotonic() + 60 * arguments.minutes
    document: dict[str, Any] = (
        json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.is_file() else {"rows": []}
    )
    sessions = sorted(
        (Session(path, "cpu", threads=1) for path in arguments.artifacts),
        key=lambda session: session.contract.n,
    )
    if arguments.cost:
        document["cost"] = cost_of_the_beam(sessions[0])
    rows: list[Row] = document["rows"]
    known = {(row["n"], row["scan"], row["method"]) for row in rows}
    for n, members in groupby(() if arguments.cost else sessions, key=lambda session: session.contract.n):
        networks = list(members)
        for label, scan in scans_of_size(n):
            measurements: dict[str, Callable[[], dict[str, Row]]] = {
                session.path.stem: partial(network_rows, session, scan) for session in networks
            }
            measurements["rPIE, 1 epochs"] = partial(vacuum_rows, scan)
            for first, measure in measurements.items():
                if (n, label, first) in known or time.monotonic() > ends:
                    continue
                for method, row in measure().items():
                    rows.append({"n": n, "scan": label, "method": method, **row})
                    print(rows[-1], flush=True)
                document["rank_correlation"] = rank_correlations(rows)
                document["verdicts"] = verdicts(rows)
                document["processor"] = processor()
                write_text(arguments.out, json.dumps(document, indent=2) + "\n")
    print(document["rank_correlation"])


if __name__ == "__main__":
    main()
