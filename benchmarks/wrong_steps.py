"""Verdicts of `ptychonnx check` on the length of the steps, for scans with right and wrong steps.

`python -m benchmarks.wrong_steps` prints the table of `docs/results/positions.md`: for each overlap, of 12 scans over
beams and kinds of object drawn with a seed, how many are good, doubtful, wrong and unknown. Three minutes on one core.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from ptychonnx.harness.check.step_test import step_finding
from ptychonnx.harness.simulate.family import FamilyConfig, simulate_member

SCANS = 12
OVERLAPS = (0.8, 0.6)
# Factors of rows and columns.
CHANGES = {
    "right": (1.0, 1.0),
    "0.8": (0.8, 0.8),
    "0.9": (0.9, 0.9),
    "1.1": (1.1, 1.1),
    "1.2": (1.2, 1.2),
    "1.2 along rows": (1.0, 1.2),
    "0.85 along columns": (0.85, 1.0),
}


def verdicts(overlap: float) -> dict[str, Counter[str]]:
    """Number of scans by the change of their positions and the verdict."""
    config = FamilyConfig(
        n=64,
        scans=99,
        grid=10,
        min_overlap=overlap,
        max_overlap=overlap,
        max_modes=1,
        min_photons=1e5,
        max_photons=1e8,
        seed=7,
    )
    found = {name: Counter[str]() for name in CHANGES}
    for number in range(SCANS):
        scan = simulate_member(config, number)
        for name, factors in CHANGES.items():
            moved = replace(scan, positions=scan.positions * np.array(factors), reference=None)
            found[name][step_finding(moved).verdict] += 1
    return found


def main() -> None:
    """Print the table."""
    print("| overlap | " + " | ".join(CHANGES) + " |\n| --- |" + " --- |" * len(CHANGES))
    for overlap in OVERLAPS:
        cells = (
            ", ".join(f"{verdict} {count}" for verdict, count in counts.most_common())
            for counts in verdicts(overlap).values()
        )
        print(f"| {100 * overlap:.0f} % | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
