"""The networks of the zoo on objects that were simulated after every setting was fixed.

`python -m benchmarks.new_objects` writes its part of `docs/results/quality.json` and its table in
`docs/results/tables.json`. About two minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.neighbouring_patterns import Row, predicted, select, zoo_of_size
from benchmarks.single_pattern_bounds import FIGURES, figures, record, test_scan
from ptychonnx.harness.simulate.lines_dataset import LinesConfig

SEEDS = (101, 102, 103)
PHASE_SHIFTS = {"complex": LinesConfig().phase_shift, "amplitude only": 0.0}


def measured() -> Iterator[Row]:
    """Metrics of each network on each object, with patches unchanged and synchronised."""
    for objects, phase_shift in PHASE_SHIFTS.items():
        for seed in SEEDS:
            scan = test_scan(LinesConfig(seed=seed, phase_shift=phase_shift))
            for artifact in zoo_of_size(scan.size):
                patches = predicted(scan, artifact)
                for synchronised in (False, True):
                    row = {"network": artifact.stem, "seed": seed, "objects": objects}
                    row |= {"synchronised": synchronised}
                    yield row | figures(scan, patches, synchronise=synchronised)


def table(rows: Sequence[Row]) -> str:
    """Markdown: ranges over the objects."""
    lines = ["| network | objects | " + " | ".join(FIGURES.values()) + " | phase SSIM, synchronised |"]
    lines.append("|---" * (len(FIGURES) + 3) + "|")
    for objects in PHASE_SHIFTS:
        for network in dict.fromkeys(row["network"] for row in rows):
            wanted = {"objects": objects, "network": network}
            plain, turned = (select(rows, **wanted, synchronised=either) for either in (False, True))
            cells = [_range(plain, name) for name in FIGURES]
            lines.append(
                f"| `{network}` | {objects} | " + " | ".join(cells) + f" | {_range(turned, 'phase_ssim')} |"
            )
    return "\n".join(lines)


def _range(rows: Sequence[Row], name: str) -> str:
    values = [row[name] for row in rows]
    return "–" if None in values else f"{min(values):.3f} to {max(values):.3f}"


def main() -> None:
    rows = []
    for row in measured():
        print(row, flush=True)
        rows.append(row)
    record("new_objects", rows, table(rows))


if __name__ == "__main__":
    main()
