"""Tables of networks and iterations on simulated beams, objects and steps."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from markdown_tables import results, table, whole


def unseen_beams(part: str) -> str:
    """The table of general networks on beams, kinds of object or raster steps, and its medians."""
    rows = results("unseen_beams")[part]
    # The page has room for seven methods; the text has the rest.
    left_out = "then 10" if part == "steps" else "any_64,"
    methods = [method for method in rows[0]["methods"] if left_out not in method]
    methods.sort(
        key=lambda method: (not method.startswith("any"), method.startswith("rPIE"), "grid2" in method)
    )
    lines = [
        [_scan(row, place), *(_quality(row["methods"][method]) for method in methods)]
        for place, row in enumerate(rows)
    ]
    medians = []
    for method in methods:
        median = {
            key: statistics.median(row["methods"][method][key] or 0 for row in rows)
            for key in ("amplitude_ssim", "phase_ssim", "seconds")
        }
        medians.append(f"{_quality(median)}, {median['seconds']:.1f}\u00a0s")
    lines.append(["**median**", *medians])
    head = ", ".join(name for name in ("beam", "object", "photons", "step") if name in rows[0])
    return table([head, *methods], lines)


def fine_tuned_beams() -> str:
    """The general network of the zoo, its fine-tuned copies, and 300 epochs of iterations on the unseen beams."""
    rows = sorted(results("fine_tuned_beams")["beams"], key=lambda row: int(row["place"]))
    iterated = results("unseen_beams")["beams"]
    methods = [method for method in rows[0]["methods"] if not method.startswith("rPIE")]
    reference = "rPIE, 300 epochs"
    lines = []
    for row in rows:
        cells = [
            f"{_quality(row['methods'][method])}, {row['methods'][method]['seconds']:.0f}\u00a0s"
            for method in methods
        ]
        cells.append(_quality(iterated[row["place"]]["methods"][reference]))
        lines.append([_scan(row, row["place"]), *cells])
    medians = [
        _quality(
            {
                key: statistics.median(row["methods"][method][key] for row in rows)
                for key in ("amplitude_ssim", "phase_ssim")
            }
        )
        for method in methods
    ]
    lines.append(["**median**", *medians, ""])
    return table(["beam, object, photons, step", *methods, reference], lines)


def probe_modes() -> str:
    """Time of a pattern over that of `pinn_hybrid`, by batch and number of modes."""
    rows = results("probe_modes")["rows"]
    *names, fixed = [name for name in rows[0] if name != "batch"]
    lines = [[str(row["batch"]), *(f"{row[name] / row[fixed]:.2f}" for name in names)] for row in rows]
    return table(["batch", *names], lines)


def held_out() -> str:
    """How many iterated objects of right and of wrong scans get each verdict, with and without patterns held out."""
    rows = results("held_out")["rows"]
    judged = {"all patterns alone": "verdict_of_all_patterns", "with patterns held out": "verdict"}
    verdicts = ("good", "doubtful", "unknown", "wrong")
    lines = []
    for kind in ("right", "wrong"):
        for start in dict.fromkeys(row["start"] for row in rows):
            of_kind = [
                row
                for row in rows
                if row["start"] == start and (row["reading"] == "right") == (kind == "right")
            ]
            for name, key in judged.items():
                counts = [str(sum(row[key] == verdict for row in of_kind)) for verdict in verdicts]
                lines.append([f"{kind}, from {start.replace('any', 'zoo:any')}", name, *counts])
    return table(["scan, start", "judged by", *verdicts], lines)


def regimes(file: str = "regimes") -> str:
    """The table of methods over kinds of scan of a file: SSIM of amplitude and phase, means of the seeds.

    Some scans ran for longer than others: each method is shown after as many epochs as in all of them.
    """
    groups: dict[tuple[str, float, int], list[Any]] = {}
    for scan in results(file)["scans"]:
        groups.setdefault((scan["object"], scan["photons"], scan["step"]), []).append(scan["methods"])
    names = list(dict.fromkeys(name for scans in groups.values() for name in scans[0]))
    names.sort(key=lambda name: (name in ("rPIE", "ePIE"), name))
    epochs = {
        name: min(scan[name][-1]["epochs"] for scans in groups.values() for scan in scans) for name in names
    }
    lines = []
    for (kind, photons, step), scans in sorted(groups.items(), key=lambda group: (group[0][0], -group[0][1])):
        cells = {}
        for name in names:
            last = [next(point for point in scan[name] if point["epochs"] == epochs[name]) for scan in scans]
            cells[name] = {
                f"{part}_ssim": statistics.mean(point[part] for point in last)
                for part in ("amplitude", "phase")
            }
        best = max(cells, key=lambda name: sum(cells[name].values()))
        quality = [
            f"**{_quality(cells[name])}**" if name == best else _quality(cells[name]) for name in names
        ]
        lines.append([kind, f"{photons:.0e}".replace("e+0", "e"), str(step), *quality])
    heads = [f"{name} {epochs[name]}" if epochs[name] else name for name in names]
    return table(["object", "photons", "step", *heads], lines)


def lsqml() -> str:
    """LSQML of pty-chi next to rPIE: SSIM of amplitude and phase, and the time of an epoch."""
    shown, lines = (10, 30), []
    for scan in results("lsqml")["scans"]:
        cells = []
        for name in ("LSQML", "rPIE"):
            points = {point["epochs"]: point for point in scan[name]}
            cells += [
                whole(f"{points[count]['amplitude']:.3f} / {points[count]['phase']:.3f}") for count in shown
            ]
        last = [scan[name][-1]["seconds"] for name in ("LSQML", "rPIE")]
        lines.append([scan["object"], str(scan["step"]), *cells, f"{last[0] / last[1]:.2f}"])
    heads = [f"{name} {count}" for name in ("LSQML", "rPIE") for count in shown]
    return table(["object", "step", *heads, "time of LSQML / rPIE"], lines)


_CALIBRATION_PARTS = {
    "unseen_beams": "beams that the calibration did not see",
    "unseen_objects": "kinds of object that it did not see",
    "trained_to_untrained_beams": "calibrated on beams of the network's training alone, tested on others",
}


def calibration() -> str:
    """Coverage of the intervals of `reconstruct --uncertainty`: mean over scans, and range over kinds."""
    lines, names = [], []
    for network, document in results("calibration").items():
        for part, words in _CALIBRATION_PARTS.items():
            coverage = document[part]["coverage"]
            names = list(coverage)
            kinds = document[part]["kinds"].values()
            cells = [
                whole(
                    f"{100 * coverage[name]:.1f} ({100 * min(kind[name] for kind in kinds):.0f} to "
                    f"{100 * max(kind[name] for kind in kinds):.0f})"
                )
                for name in names
            ]
            lines.append([network, str(2 * document["scans"]), words, *cells])
    heads = [f"{name.split()[0]}, {100 * float(name.split()[1]):.0f} %" for name in names]
    return table(["network", "scans", "tested on", *heads], lines)


def _quality(figures: Mapping[str, Any]) -> str:
    """Amplitude and phase SSIM."""
    return whole(
        " / ".join(
            "–" if figures[name] is None else f"{figures[name]:.3f}"
            for name in ("amplitude_ssim", "phase_ssim")
        )
    )


def _scan(row: Mapping[str, Any], place: int) -> str:
    """The conditions of a scan: its beam, object, photons in a pattern and raster step, as far as they vary.

    Of the beams with their place, which the text refers to.
    """
    words = []
    if "beam" in row:
        words.append(f"{place}:")
        modes = f" ({row['modes']} modes)" if row["modes"] > 1 else ""
        words.append(f"{row['beam']}{modes}, {row['object']},")
        words.append(whole(f"{row['photons']:.0e}".replace("e+0", "e").replace("e+", "e") + ","))
    else:
        words.append(
            row["object"] + (", learned" if row.get("object_seen") else "") + ("," if "step" in row else "")
        )
    if "step" in row:
        words.append(whole(f"{row['step']} px"))
    return " ".join(words)
