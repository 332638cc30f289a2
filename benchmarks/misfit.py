"""Forward misfit against true error, over simulated beams and artifacts; and the cost of a beam that is an input.

`python -m benchmarks.misfit GENERAL.onnx [ARTIFACT.onnx ...]` reconstructs lines in 20 beams drawn with a seed, and
writes `benchmarks/results/misfit.json`. A few minutes on one core.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from ptychonnx.harness.evaluation.evaluate import evaluate
from ptychonnx.harness.simulate.objects import lines_object
from ptychonnx.harness.simulate.probes import disk_probe, zone_plate_probe
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.machine import processor
from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward

RESULTS = Path(__file__).parent / "results" / "misfit.json"
BEAMS = 20
BATCHES = (1, 16, 256)
REPEATS = 5


def beam(rng: np.random.Generator, size: int) -> tuple[str, np.ndarray]:
    """A zone plate with or without central stop at some defocus, or a disk."""
    kind = rng.choice(["zone plate", "no stop", "disk"])
    if kind == "disk":
        radius = rng.uniform(size / 8, size / 3)
        return f"disk of radius {radius:.0f}", disk_probe(size, radius=radius)
    defocus = rng.uniform(40e-6, 120e-6)
    stop = 0 if kind == "no stop" else 1 / 3
    name = f"{kind}, defocus {1e6 * defocus:.0f} um"
    return name, zone_plate_probe(size, defocus=defocus, central_stop=stop)


def scan_of(index: int, size: int) -> tuple[str, Scan]:
    """Lines in a beam that follows from the index alone."""
    rng = np.random.default_rng([2026, index])
    name, probe = beam(rng, size)
    photons = 10 ** rng.uniform(6, 9.5)
    probe = (probe * np.sqrt(photons)).astype(np.complex64)
    step = rng.integers(5, 12)
    grid = np.stack(np.meshgrid(np.arange(9), np.arange(9), indexing="ij"), axis=-1).reshape(-1, 2)
    positions = grid * float(step) + size // 2
    image = lines_object((size + 9 * step, size + 9 * step), rng)
    amplitude = np.sqrt(rng.poisson(forward(cut_windows(image, positions, size), probe) ** 2))
    label = f"{index}: {name}, {photons:.1e} photons, step {step}"
    reference = Reference(image.astype(np.complex64))
    return label, Scan(amplitude.astype(np.float32), positions, probe, reference=reference, name=label)


def campaign(artifacts: list[Session]) -> list[dict[str, Any]]:
    """Misfit, verdict and errors of every artifact on every beam."""
    rows = []
    for index in range(BEAMS):
        label, scan = scan_of(index, artifacts[0].contract.n)
        evaluation = evaluate(artifacts, scan)
        for row in evaluation.rows:
            result = row.results[scan.name]
            comparison = result.comparison
            assert result.misfit is not None
            assert comparison is not None
            rows.append(
                {
                    "scan": label,
                    "artifact": row.name,
                    "misfit": result.misfit.value,
                    "verdict": result.misfit.verdict,
                    "amplitude_ssim": comparison.amplitude.ssim,
                    "phase_ssim": comparison.phase.ssim,
                    "amplitude_mae": comparison.amplitude.mae,
                    "phase_mae": comparison.phase.mae,
                }
            )
            print(rows[-1], flush=True)
    return rows


def cost_of_the_beam(general: Session) -> dict[str, dict[str, float]]:
    """Milliseconds of a call with a beam that is fed, and with the default; interleaved, the shortest of several."""
    _, scan = scan_of(0, general.contract.n)
    fed = general.beam(scan)
    times: dict[str, dict[str, float]] = {}
    for batch in BATCHES:
        patterns = np.resize(np.asarray(scan.diffraction)[:, None], (batch, 1, scan.size, scan.size))
        shortest = {"call": np.inf}
        for _ in range(REPEATS):
            start = time.perf_counter()
            general.predict(patterns, beam=fed)
            shortest["call"] = min(shortest["call"], time.perf_counter() - start)
        times[str(batch)] = {
            "call_ms": 1e3 * shortest["call"],
            "pattern_ms": 1e3 * shortest["call"] / batch,
        }
    return times


def main() -> None:
    """Run both parts and write the results."""
    artifacts = [Session(path, "cpu", threads=1) for path in sys.argv[1:]]
    rows = campaign(artifacts)
    misfit = [row["misfit"] for row in rows]
    worse = [min(row["amplitude_ssim"] or 0, row["phase_ssim"] or 0) for row in rows]
    correlation = {
        "amplitude_mae": float(spearmanr(misfit, [row["amplitude_mae"] for row in rows]).statistic),
        "phase_mae": float(spearmanr(misfit, [row["phase_mae"] for row in rows]).statistic),
        "worse_ssim": -float(spearmanr(misfit, worse).statistic),
    }
    results = {
        "processor": processor(),
        "rank_correlation": correlation,
        "cost": cost_of_the_beam(artifacts[0]),
        "rows": rows,
    }
    write_text(RESULTS, json.dumps(results, indent=2) + "\n")
    print(json.dumps(correlation), json.dumps(results["cost"]))


if __name__ == "__main__":
    main()
