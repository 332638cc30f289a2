"""Coverage of the intervals of `reconstruct --uncertainty` on beams and objects that their calibration did not see.

Scans of `simulate family` of every family of beams and kind of object with two seeds; those of each seed are tested
with a calibration on the other. Each is reconstructed under the symmetries of the far field; errors are those against
the known object after the global complex factor. The families of beams are divided into four parts: each part of the
test is judged by a calibration on the scans of the other families. The same with the kinds of object.

    python -m benchmarks.calibration --work FOLDER --out docs/results/calibration.json

The folder keeps pixels of each scan, from which an interrupted run goes on. `--fit` with the path of the installed
`harness/uncertainty/calibration.json` also writes the calibration on all scans.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from benchmarks.unseen_beams import UNSEEN_BEAMS
from ptychonnx.harness.metrics.alignment import fit_factor
from ptychonnx.harness.metrics.image_similarity import wrap
from ptychonnx.harness.metrics.reference_placement import reference_on_canvas
from ptychonnx.harness.simulate.beams import BeamFamily
from ptychonnx.harness.simulate.family import FamilyConfig, draw_parameters, simulate_member
from ptychonnx.harness.simulate.objects import ObjectKind
from ptychonnx.harness.uncertainty.calibration import FEATURES, LEVELS, QUANTITIES, features
from ptychonnx.harness.uncertainty.spread import members, spread_of, symmetries_of
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.machine import processor
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.reconstruction.misfit import forward_misfit
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.reconstruction.stitching import Stitched
from ptychonnx.runtime.scan import Scan

# Pixels of a scan that are kept.
PIXELS = 1000
# Of the calibration and of the test.
SEEDS = (1, 2)
_PARTS = 4
_ROUNDS = 25
Row = dict[str, Any]


def family(n: int, grid: int, seed: int, scans: int) -> FamilyConfig:
    """Every family of beams and every kind of object, equally often."""
    return FamilyConfig(
        n=n, scans=scans, grid=grid, seed=seed, beam=get_args(BeamFamily), object=get_args(ObjectKind)
    )


def measured(session: Session, scan: Scan, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features [quantities, features, m] and errors [quantities, m] of some pixels of a scan."""
    first = reconstruct(session, scan)
    objects = members(session, scan, first, symmetries_of(session, scan), ReconstructOptions(), 16)
    spread = spread_of(objects, scan, first)
    stitched = Stitched(spread.object, first.stitched.weight, first.stitched.origin)
    misfit = forward_misfit(scan, stitched)
    assert misfit is not None
    assert scan.reference is not None
    truth, known, _ = reference_on_canvas(scan.reference, stitched.shape, stitched.origin)
    region = spread.region & known
    image = stitched.object * fit_factor(stitched.object, truth, region)
    errors = np.abs(image) - np.abs(truth), wrap(np.angle(image) - np.angle(truth))
    pixels = np.flatnonzero(region)
    chosen = np.random.default_rng(seed).choice(pixels, min(PIXELS, len(pixels)), replace=False)
    values = [features(spread, quantity, misfit.value).reshape(len(FEATURES), -1) for quantity in QUANTITIES]
    return (
        np.stack([part[:, chosen] for part in values]),
        np.stack([np.abs(part).ravel()[chosen] for part in errors]),
    )


def collect(session: Session, config: FamilyConfig, name: str, work: Path) -> list[Row]:
    """Pixels of every scan of a family, from the folder if they are there."""
    rows = []
    for number in range(config.scans):
        file = work / f"{Path(session.name).stem}_{name}_{number:03d}.npz"
        if not file.is_file():
            values, errors = measured(session, simulate_member(config, number), number)
            partial = file.with_suffix(".partial.npz")
            np.savez(partial, values=values, errors=errors)
            partial.replace(file)
            print(file.name, np.round(np.quantile(errors, LEVELS[0], axis=1), 4), flush=True)
        with np.load(file) as stored:
            member = draw_parameters(config, number)
            rows.append({"member": asdict(member), "values": stored["values"], "errors": stored["errors"]})
    return rows


def quantile_regression(values: NDArray, targets: NDArray, level: float) -> NDArray[np.float64]:
    """Coefficients c [features] that minimise the pinball loss of c . values - targets, by reweighted least squares."""
    coefficients = np.linalg.lstsq(values.T, targets, rcond=None)[0]
    for _ in range(_ROUNDS):
        residual = targets - coefficients @ values
        weight = np.where(residual > 0, level, 1 - level) / np.maximum(np.abs(residual), 1e-4)
        coefficients = np.linalg.solve((values * weight) @ values.T, (values * weight) @ targets)
    return coefficients


def fitted(rows: Sequence[Row]) -> dict[str, dict[str, list[float]]]:
    """Coefficients for each quantity and level, which hold that share of the errors of these scans."""
    result: dict[str, dict[str, list[float]]] = {}
    for place, quantity in enumerate(QUANTITIES):
        values = np.concatenate([row["values"][place] for row in rows], axis=1)
        targets = np.log(np.concatenate([row["errors"][place] for row in rows]) + 1e-9)
        result[quantity] = {}
        for level in LEVELS:
            coefficients = quantile_regression(values, targets, level)
            # What the iterations leave of the first, a factor.
            coefficients[0] += np.quantile(targets - coefficients @ values, level)
            result[quantity][f"{level:g}"] = [round(float(value), 4) for value in coefficients]
    return result


def coverage(row: Row, calibration: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Share of the errors of a scan inside each interval."""
    shares = {}
    for place, quantity in enumerate(QUANTITIES):
        for level in LEVELS:
            widths = np.exp(np.array(calibration[quantity][f"{level:g}"]) @ row["values"][place])
            shares[f"{quantity} {level:g}"] = float(np.mean(row["errors"][place] <= widths))
    return shares


def held_out(calibration: Sequence[Row], test: Sequence[Row], attribute: str) -> list[dict[str, float]]:
    """Coverage of each scan of the test, by a calibration without its family of beams (or kind of object)."""
    kinds = sorted({row["member"][attribute] for row in (*calibration, *test)})

    def part(row: Row) -> int:
        return kinds.index(row["member"][attribute]) % _PARTS

    fits = [fitted([row for row in calibration if part(row) != left_out]) for left_out in range(_PARTS)]
    return [coverage(row, fits[part(row)]) for row in test]


def table(test: Sequence[Row], shares: Sequence[dict[str, float]], attribute: str) -> Row:
    """Mean coverage over all scans and over those of each kind, and the standard deviation over scans."""

    def mean(chosen: Sequence[dict[str, float]]) -> dict[str, float]:
        return {name: round(float(np.mean([share[name] for share in chosen])), 3) for name in shares[0]}

    kinds = [row["member"][attribute] for row in test]
    return {
        "coverage": mean(shares),
        "deviation_over_scans": {
            name: round(float(np.std([share[name] for share in shares])), 3) for name in shares[0]
        },
        "kinds": {
            kind: mean([share for share, other in zip(shares, kinds, strict=True) if other == kind])
            for kind in sorted(set(kinds))
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="zoo:any_64")
    parser.add_argument("--work", type=Path, required=True, help="folder for the pixels of each scan")
    parser.add_argument("--scans", type=int, default=36, help="of each seed")
    parser.add_argument("--grid", type=int, default=5, help="side of each scan, in positions")
    parser.add_argument("--fit", type=Path, help="file for the calibration")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    session = Session(artifact_path(arguments.network), "cpu", 1)
    first, second = (
        collect(
            session,
            family(session.contract.n, arguments.grid, seed, arguments.scans),
            str(seed),
            arguments.work,
        )
        for seed in SEEDS
    )
    if arguments.fit is not None:
        assert session.contract.weights is not None
        identity = {"n": session.contract.n, "checkpoint_sha256": session.contract.weights.checkpoint_sha256}
        stored = json.loads(arguments.fit.read_text(encoding="utf-8")) if arguments.fit.is_file() else {}
        stored[Path(session.name).stem] = {**identity, **fitted([*first, *second])}
        write_text(arguments.fit, json.dumps(stored, indent=2) + "\n")
    # Each seed is tested with a calibration on the other.
    ways = ((first, second), (second, first))
    document: Row = {
        "network": session.name,
        "scans": arguments.scans,
        "patterns": arguments.grid**2,
        "processor": processor(),
    }
    for name, attribute in (("unseen_beams", "beam"), ("unseen_objects", "object")):
        shares = [held_out(calibration, test, attribute) for calibration, test in ways]
        document[name] = table([*second, *first], [*shares[0], *shares[1]], attribute)
        document[name]["each_way"] = [
            table(test, part, attribute)["coverage"] for (_, test), part in zip(ways, shares, strict=True)
        ]
    new, shares_of_new = [], []
    for calibration, test in ways:
        fit = fitted([row for row in calibration if row["member"]["beam"] not in UNSEEN_BEAMS])
        rows = [row for row in test if row["member"]["beam"] in UNSEEN_BEAMS]
        new += rows
        shares_of_new += [coverage(row, fit) for row in rows]
    document["trained_to_untrained_beams"] = table(new, shares_of_new, "beam")
    # One file has the coverage of several networks.
    before = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.is_file() else {}
    write_text(arguments.out, json.dumps(before | {Path(session.name).stem: document}, indent=1) + "\n")
    for name in ("unseen_beams", "unseen_objects", "trained_to_untrained_beams"):
        print(name, document[name]["coverage"], document[name]["deviation_over_scans"])


if __name__ == "__main__":
    main()
