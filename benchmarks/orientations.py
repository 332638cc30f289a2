"""The networks of the zoo on patterns in all eight orientations, and with bounded amplitudes, without training.

The simulated probe is symmetric under the eight axis-aligned orientations (dihedral group D4), so that the pattern of a
transformed object is the transformed pattern. `python -m benchmarks.orientations` applies each network that takes one
pattern to the test scan in all orientations and transforms its patches back. It writes its part of
`docs/results/quality.json` and its table in `docs/results/tables.json`. About three minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.neighbouring_patterns import Row, zoo_of_size
from benchmarks.single_pattern_bounds import FIGURES, figures, record, test_scan
from ptychonnx.harness.simulate.lines_dataset import LinesConfig
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.scan import Scan

CHUNK = 50
TRANSPOSED = 4
ORIENTATIONS = range(8)
COLUMNS = FIGURES | {"phase_ssim_synchronised": "phase SSIM, synchronised"}


def turned(images: NDArray, orientation: int) -> NDArray:
    """Flip images [..., N, N] along rows (1) and columns (2) about pixel N // 2, then transpose (4).

    The first row or column, which has no mirror image, is not moved.
    """
    for bit, axis in ((1, -2), (2, -1)):
        if orientation & bit:
            images = np.roll(np.flip(images, axis), 1, axis)
    return images.swapaxes(-2, -1) if orientation & TRANSPOSED else images


def turned_back(images: NDArray, orientation: int) -> NDArray:
    """Inverse of `turned`."""
    if orientation & TRANSPOSED:
        images = images.swapaxes(-2, -1)
    return turned(images, orientation & ~TRANSPOSED)


def predicted(session: Session, scan: Scan, orientation: int) -> NDArray[np.complex64]:
    """Patches [n, N, N] predicted from transformed patterns, transformed back."""
    patterns = np.ascontiguousarray(turned(scan.diffraction, orientation))[:, None]
    found = [session.predict(patterns[start : start + CHUNK])[:, 0] for start in range(0, len(scan), CHUNK)]
    return np.ascontiguousarray(turned_back(np.concatenate(found), orientation))


def measured() -> Iterator[Row]:
    """Each network in each orientation, the mean of all eight, and with amplitudes of at most 1."""
    scan = test_scan(LinesConfig())
    for artifact in zoo_of_size(scan.size):
        session = Session(artifact, "cpu", 1)
        if session.contract.channels > 1:
            continue
        all_turned = [predicted(session, scan, orientation) for orientation in ORIENTATIONS]
        limited = all_turned[0] / np.maximum(np.abs(all_turned[0]), 1)
        ways = {
            **{f"orientation {number}": patches for number, patches in enumerate(all_turned)},
            "mean of eight": np.mean(all_turned, axis=0),
            "amplitude at most 1": limited,
        }
        for way, patches in ways.items():
            found = figures(scan, patches)
            found["phase_ssim_synchronised"] = figures(scan, patches, synchronise=True)["phase_ssim"]
            yield {"network": artifact.stem, "way": way} | found


def table(rows: Sequence[Row]) -> str:
    """Markdown table; the seven transformed scans as ranges."""
    lines = ["| network | patterns | " + " | ".join(COLUMNS.values()) + " |"]
    lines.append("|---" * (len(COLUMNS) + 2) + "|")
    names = {
        "as they are": ("orientation 0",),
        "turned, in seven ways": tuple(f"orientation {number}" for number in ORIENTATIONS[1:]),
        "mean of all eight (8 times the time)": ("mean of eight",),
        "as they are; amplitudes of the patches at most 1": ("amplitude at most 1",),
    }
    for network in dict.fromkeys(row["network"] for row in rows):
        for name, ways in names.items():
            wanted = [row for row in rows if row["network"] == network and row["way"] in ways]
            cells = [_range([row[column] for row in wanted]) for column in COLUMNS]
            lines.append(f"| `{network}` | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return low if len(values) == 1 else f"{low} to {high}"


def main() -> None:
    rows = []
    for row in measured():
        print(row, flush=True)
        rows.append(row)
    record("orientations", rows, table(rows))


if __name__ == "__main__":
    main()
