"""Smaller networks compared with their parent at equal quality.

`python -m benchmarks.smaller_networks OUT` trains a parent as `make demo` does, then its students: smaller settings
trained on the patterns as usual, the same settings distilled (trained on the patches that the parent predicts for the
same patterns), and pruned (the channels of largest norm of the parent, trained for one more epoch). Each student is
exported and verified. The precision gate (decision 6) compares its reconstruction of the test scan with that of the
parent, and it is timed interleaved with the parent in its own framework. The results go to
`benchmarks/results/smaller_networks.json` and to a table in `docs/results/tables.json`. Trained networks are kept in
OUT, so that a second call only measures. One training takes about a minute on one core.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pruning import pruned_source
from benchmarks.single_pattern_bounds import FIGURES, record_table, test_scan
from ptychonnx.export.artifact.export_options import ExportOptions
from ptychonnx.export.artifact.export_run import export_run
from ptychonnx.export.artifact.reduce_artifact import reduce_artifact
from ptychonnx.harness.bench.interleaved import interleaved_times
from ptychonnx.harness.bench.measuring_process import LoadedVariants, MeasuringProcess
from ptychonnx.harness.bench.native_variants import load_native, load_onnx
from ptychonnx.harness.bench.speed import ALLOWED_ERROR
from ptychonnx.harness.evaluation.precision_gate import AllowedDecrease, PrecisionGate, excessive_decreases
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import VerificationError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.machine import processor, vector_instructions
from ptychonnx.runtime.scan import Scan
from ptychonnx.train.fitting import settings_for, train
from ptychonnx.train.registry import get_architecture

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "smaller_networks.json"
ROUNDS, BATCH = 30, 16
# Twice the default: the distilled student of `fno` differs by 1.07e-4 on very bright patterns.
TOLERANCE = 2e-4

Row = dict[str, Any]


@dataclass(frozen=True)
class Student:
    """A smaller network.

    Attributes
    ----------
    settings
        What differs from the parent.
    way
        ``physics``: trained on the patterns, as the parent was; ``distilled``; or ``pruned``.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    way: str = "physics"

    @property
    def name(self) -> str:
        return "_".join([self.way, *(f"{name}{value}" for name, value in self.settings.items())])

    @property
    def words(self) -> str:
        options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.settings.items())
        return f"{self.way}: `{options}`"


PARENT = Student()
STUDENTS = {
    "cnn": (
        Student({"width": 8}),
        Student({"width": 8}, "distilled"),
        Student({"width": 8}, "pruned"),
    ),
    "fno": (
        Student({"blocks": 1}),
        Student({"blocks": 1}, "distilled"),
    ),
}


def trained(architecture: str, student: Student, scan: Scan, out: Path) -> Path:
    """The run folder of a student, or of the parent; trained unless it is there."""
    chosen, folder = get_architecture(architecture), out / architecture / student.name
    parent = out / architecture / PARENT.name
    settings = {**student.settings, "n": scan.size}
    options: dict[str, Any] = {}
    if student.way == "distilled":
        session = Session(parent.with_suffix(".onnx"), "cpu", 1)
        groups = np.arange(len(scan))[:, None]
        options["labels"] = np.concatenate([patches[:, 0] for _, patches in session.batches(scan, groups)])
    network, training = settings_for(chosen, settings)
    if student.way == "pruned":
        options["initial_weights"] = pruned_source(
            parent, network, out / architecture / f"{student.name}.start"
        )
        network, training = settings_for(chosen, {**settings, "epochs": 1, "learning_rate": 5e-4})
    train(scan, chosen, network, training, folder, resume=True, **options)
    return folder


def exported(architecture: str, student: Student, out: Path) -> Path:
    """The artifact of a student."""
    folder = out / architecture / student.name
    artifact = folder.with_suffix(".onnx")
    if not artifact.exists():
        export_run(folder, artifact, ExportOptions(tolerance=TOLERANCE))
    return artifact


def judged(architecture: str, out: Path) -> Iterator[tuple[Row, dict[str, bytes]]]:
    """Each network with its figures and what the gate says; and its graphs, the 8-bit one if the gate accepts it."""
    scan = test_scan(LinesConfig())
    parent = exported(architecture, PARENT, out)
    gate, allowed = (
        PrecisionGate(scan, AllowedDecrease(pearson=2, ssim=2, frc_cutoff=1)),
        asdict(AllowedDecrease()),
    )
    for student in (PARENT, *STUDENTS[architecture]):
        artifact = exported(architecture, student, out)
        row, graphs = {"network": architecture, "student": student.words}, {}
        for precision in ("fp32", "int8"):
            candidate = artifact
            try:
                if precision == "int8":
                    # Its layers are chosen by what they cost the student; then it is compared with the parent.
                    candidate = artifact.with_suffix(".int8.onnx")
                    reduce_artifact(artifact, candidate, "int8", scan, PrecisionGate(scan))
                quality = gate.judge(parent, Session(candidate, "cpu"))
            except VerificationError as error:
                row[precision] = {"refused": str(error)}
                continue
            limits = {name: allowed[name.partition("_")[2]] for name in quality.parent}
            reasons = excessive_decreases(quality.model_copy(update={"allowed_fall": limits}))
            row[precision] = {"refused": "; ".join(reasons) or None, **quality.artifact}
            graphs[precision] = candidate.read_bytes()
        yield row, graphs


def measured(architecture: str, out: Path, threads: int) -> Iterator[Row]:
    """Each network with its figures, and how many times as fast it is as the best compiled form of the parent."""
    rows, graphs = [], {}
    for number, (row, found) in enumerate(judged(architecture, out)):
        rows.append(row)
        graphs |= {f"{number} {precision}": data for precision, data in found.items()}
    inputs = [np.ascontiguousarray(test_scan(LinesConfig()).diffraction[:BATCH, None], dtype=np.float32)]
    with (
        MeasuringProcess(
            partial(_native, out / architecture / PARENT.name, inputs, threads), threads
        ) as framework,
        MeasuringProcess(partial(load_onnx, graphs, inputs, threads), threads) as artifacts,
    ):
        owner = {form: worker for worker in (framework, artifacts) for form in worker.outputs}
        times = interleaved_times(
            {form: partial(worker.time, form) for form, worker in owner.items()}, ROUNDS
        )
        native = framework.outputs
    largest = np.abs(native["eager"]).max()
    right = [
        form
        for form, output in native.items()
        if form != "eager" and np.abs(output - native["eager"]).max() <= ALLOWED_ERROR * largest
    ]
    best = min(right, key=lambda form: float(np.median(times[form])))
    for number, row in enumerate(rows):
        for precision in ("fp32", "int8"):
            seconds = times.get(f"{number} {precision}")
            if seconds is not None:
                row[precision]["milliseconds"] = float(1e3 * np.median(seconds) / BATCH)
                row[precision]["speedup_compiled"] = float(np.median(times[best] / seconds))
        yield row | {"compiled_form": best}


def _native(run: Path, inputs: Sequence[np.ndarray], threads: int) -> LoadedVariants:
    return LoadedVariants(load_native(run, inputs, threads).variants)


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [f"| network | {' | '.join(FIGURES.values())} | gate | float32 | 8 bits |", "|---" * 8 + "|"]
    for row in rows:
        exact, small = row["fp32"], row["int8"]
        cells = [f"{exact[name]:.3f}" for name in FIGURES]
        is_parent = row["student"] == PARENT.words
        label = "as it is" if is_parent else row["student"]
        verdict = "the parent" if is_parent else "passes" if exact["refused"] is None else "refused"
        accepted = small["refused"] is None
        eight = f"{small['speedup_compiled']:.2f}" if accepted else "refused"
        speed = f"{exact['speedup_compiled']:.2f}"
        lines.append(f"| `{row['network']}`, {label} | {' | '.join(cells)} | {verdict} | {speed} | {eight} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for what is trained")
    parser.add_argument("--train", action="store_true", help="train and export, measure nothing")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--networks", default=",".join(STUDENTS))
    arguments = parser.parse_args()
    config = LinesConfig()
    scan = simulate_scan(config, config.train_grid, np.random.SeedSequence([config.seed, 0]), "train")
    threads = arguments.threads
    rows: list[Row] = []
    for architecture in arguments.networks.split(","):
        for student in (PARENT, *STUDENTS[architecture]):
            trained(architecture, student, scan, arguments.out)
            exported(architecture, student, arguments.out)
        if not arguments.train:
            rows += measured(architecture, arguments.out, threads)
    if arguments.train:
        return
    content = {
        "processor": processor(),
        "vector_instructions": vector_instructions(),
        "threads": threads,
        "batch": BATCH,
        "rounds": ROUNDS,
        "networks": rows,
    }
    write_text(RESULTS, json.dumps(content, indent=1) + "\n")
    record_table("less", table(rows))


if __name__ == "__main__":
    main()
