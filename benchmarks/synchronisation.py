"""What synchronising the phases of patches costs: against plain stitching, and against other solvers of its equations.

*Stitching.* Patches of N x N complex64 on a raster, 10 pixels apart, at fractions of a pixel, come in batches and end
as an object, with synchronised phases and without, in an order that changes from round to round. The ratio is the
median over the rounds of the ratio within one round. Patches beyond 64 MiB are written to a temporary file and read
back about three times.

*Equations.* The normal equations of the phases on a raster of neighbours, with the weights of pairs spread over a
factor of five and 0.1 rad of noise, by the factorisation that is used (minimum degree of A^T + A), by that of SciPy's
default ordering (COLAMD) and by conjugate gradients with the diagonal as a preconditioner to 1e-10, in turns.

    python -m benchmarks.synchronisation --out benchmarks/results/synchronisation.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.sparse.csgraph import laplacian
from scipy.sparse.linalg import cg, splu

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.reconstruction.stitching import Stitcher, patch_weight
from ptychonnx.runtime.reconstruction.stitching.synchronisation import neighbours, phases_of_pairs

STEP = 10
BATCH = 256


def raster(patches: int) -> np.ndarray:
    across = int(np.ceil(np.sqrt(patches)))
    fractions = np.random.default_rng(0).uniform(0, 1, (patches, 2))
    return STEP * np.stack(np.divmod(np.arange(patches), across), axis=1) + fractions


def in_turns(forms: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each form in each round."""
    shuffled, times = random.Random(0), {name: [] for name in forms}
    for _ in range(rounds):
        order = list(forms)
        shuffled.shuffle(order)
        for name in order:
            began = time.perf_counter()
            forms[name]()
            times[name].append(time.perf_counter() - began)
    return times


def ratios(times: dict[str, list[float]], reference: str) -> dict[str, float]:
    return {
        name: statistics.median(own / other for own, other in zip(values, times[reference], strict=True))
        for name, values in times.items()
    }


def measure_stitching(patches: int, size: int, rounds: int) -> dict[str, Any]:
    positions = raster(patches)
    rng = np.random.default_rng(1)
    row, column = np.mgrid[:size, :size] - size // 2
    probe = np.exp(-(row**2 + column**2) / (size / 2) ** 2).astype(np.complex64)[None]
    weight = patch_weight("probe", size, probe)
    batch = rng.standard_normal((BATCH, size, size, 2), dtype=np.float32).view(np.complex64)[..., 0] + 3

    def run(synchronise: bool) -> None:
        stitcher = Stitcher(positions, weight, synchronise=synchronise)
        for start in range(0, patches, BATCH):
            some = positions[start : start + BATCH]
            stitcher.add(batch[: len(some)], some)
        stitcher.result()

    times = in_turns({"plain": lambda: run(False), "synchronised": lambda: run(True)}, rounds)
    return {
        "patches": patches,
        "size": size,
        "over_plain": ratios(times, "plain")["synchronised"],
        "microseconds_a_patch": {
            name: 1e6 * statistics.median(values) / patches for name, values in times.items()
        },
    }


def measure_equations(patches: int, rounds: int) -> dict[str, Any]:
    pairs = neighbours(raster(patches), (64, 64))
    rng = np.random.default_rng(2)
    given = rng.uniform(-np.pi, np.pi, patches)
    weights = rng.uniform(0.2, 1, len(pairs))
    noise = rng.normal(0, 0.1, len(pairs))
    products = weights * np.exp(1j * (given[pairs[:, 0]] - given[pairs[:, 1]] + noise))
    graph = csr_array((weights, pairs.T), shape=(patches, patches))
    matrix = laplacian(graph + graph.T).tocsc()[:, 1:][1:]
    slope = (
        np.bincount(pairs[:, 0], weights * noise, patches)
        - np.bincount(pairs[:, 1], weights * noise, patches)
    )[1:]
    jacobi = diags_array(1 / matrix.diagonal())
    steps: list[int] = []

    def iterate() -> None:
        steps.clear()
        cg(matrix, slope, rtol=1e-10, M=jacobi, maxiter=100_000, callback=lambda _: steps.append(1))

    factors = {}

    def factorise(name: str, **options: Any) -> None:
        factors[name] = splu(matrix, **options)
        factors[name].solve(slope)

    used = "minimum degree"
    times = in_turns(
        {
            used: lambda: factorise(
                used,
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            ),
            "COLAMD": lambda: factorise("COLAMD"),
            "conjugate gradients": iterate,
            "all that is done": lambda: phases_of_pairs(patches, pairs, products),
        },
        rounds,
    )
    found, _ = phases_of_pairs(patches, pairs, products)
    apart = np.exp(1j * (found - given))
    return {
        "patches": patches,
        "pairs": len(pairs),
        "over_minimum_degree": ratios(times, used),
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "bytes_of_factors_a_patch": {
            name: 12 * (kept.L.nnz + kept.U.nnz) / patches for name, kept in factors.items()
        },
        "conjugate_gradient_steps": len(steps),
        "rms_error_rad": float(np.sqrt(np.mean(np.angle(apart / apart.mean()) ** 2))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=20_000, help="that are stitched")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--nodes", type=int, default=100_000, help="whose equations are solved")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    document = {
        "machine": platform.processor() or platform.machine(),
        "load": os.getloadavg()[0],
        "rounds": arguments.rounds,
        "versions": {name: version(name) for name in ("numpy", "scipy")},
        "stitching": measure_stitching(arguments.patches, arguments.size, arguments.rounds),
        "equations": measure_equations(arguments.nodes, arguments.rounds),
    }
    print(json.dumps(document, indent=2))
    if arguments.out:
        write_text(arguments.out, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
