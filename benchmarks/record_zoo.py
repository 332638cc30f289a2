"""Measure the networks of the zoo and write `zoo/zoo.json` and the tables of `zoo/README.md`.

    python -m benchmarks.record_zoo RUNS

RUNS holds a run folder for each network that was trained again; entries of the other networks stay as they are, and
only files that changed are measured.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ptychonnx.harness.evaluation.evaluate import evaluate
from ptychonnx.harness.simulate.family import FamilyConfig
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, build_lines
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.inference import Session
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.registry import get_architecture
from ptychonnx.train.run import read_run

ZOO = Path(__file__).parents[1] / "zoo"
# Files by name, which is their label and, if several have it, N.
FILES = {
    "pinn_cnn": "pinn_cnn",
    "pinn_fno": "pinn_fno",
    "pinn_hybrid": "pinn_hybrid",
    "pinn_hybrid_grid2": "pinn_hybrid_grid2",
    "baseline": "baseline",
    "pinn_hybrid_any": "any_64",
    "pinn_hybrid_any_128": "any_128",
    "pinn_hybrid_any_256": "any_256",
    "pinn_hybrid_grid2_any": "any_64_grid2",
    "pinn_hybrid_grid2_any_128": "any_128_grid2",
    "pinn_hybrid_grid2_any_256": "any_256_grid2",
}
# Training scans, by their folder in the recipe.
TRAINING = {
    "data": LinesConfig(train_grid=64),
    "data_large": LinesConfig(train_grid=128),
    "family": FamilyConfig(scans=192, grid=12, max_modes=2),
}
TRAINED_ON = {name: "family" if file.startswith("any_") else "data_large" for name, file in FILES.items()}
TRAINED_ON["pinn_hybrid_grid2"] = "data"
# The same weights serve patterns of another size.
_SIZE = re.compile(r"(?<=any_)\d+")
RUNS = {name: _SIZE.sub("64", file) for name, file in FILES.items()}
EXPORT_OPTIONS = {
    name: {"64": "", "128": " --n 128", "256": " --n 256 --final-steps 12"}[size[0]] + " --general"
    for name, file in FILES.items()
    if (size := _SIZE.search(file))
}
RUN_FIELDS = ("architecture", "network", "training", "parameters", "minutes")
SCANS = {
    "test": LinesConfig(train_grid=2),
    "quick": LinesConfig(train_grid=2, test_grid=9),
    "amplitude_only": LinesConfig(train_grid=2, phase_shift=0),
}


def at_size(config: LinesConfig, n: int) -> LinesConfig:
    """The same scan for patterns of n pixels, with as much overlap; a shorter one above 128 pixels."""
    grid = config.test_grid if n <= 128 else max(4, config.test_grid // 4)
    return replace(config, n=n, step=config.step * n // config.n, test_grid=grid)


def metrics_on(config: LinesConfig, artifact: Path) -> dict[str, dict[str, Any]]:
    """Metrics of an artifact on the test scan of a simulated dataset."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = build_lines(config, Path(folder))
        (row,) = evaluate([artifact], [dataset.test], Path(folder) / "report").as_json()["rows"].values()
    return {
        quantity: {name: row[quantity][name] for name in ("mae", "psnr", "ssim", "ms_ssim", "pearson")}
        for quantity in ("amplitude", "phase")
    }


def run_entries(folder: Path) -> dict[str, Any]:
    """The entries of a network that only its run folder holds: `RUN_FIELDS`."""
    run = read_run(folder)
    return {
        "architecture": run.architecture,
        "network": asdict(run.network),
        "training": asdict(run.training),
        "parameters": run.parameters,
        "minutes": round(run.seconds / 60, 1),
    }


def training_options(entry: dict[str, Any]) -> str:
    """Options of `ptychonnx train` that differ from the defaults of the architecture, and the seed."""
    architecture = get_architecture(entry["architecture"])
    defaults = asdict(NetworkConfig()) | asdict(TrainingConfig()) | dict(architecture.defaults)
    settings = entry["network"] | entry["training"]
    changed = {
        key: value for key, value in settings.items() if value != defaults[key] and key != "tensorboard"
    }
    return " ".join(
        f"--{key.replace('_', '-')} {value}" for key, value in {**changed, "seed": settings["seed"]}.items()
    )


def record(runs: Path) -> dict[str, Any]:
    """The content of `zoo.json`."""
    known = json.loads((ZOO / "zoo.json").read_text(encoding="utf-8"))["artifacts"]
    entries = {}
    for name, file in FILES.items():
        artifact = ZOO / f"{file}.onnx"
        content, contract = artifact.read_bytes(), Session(artifact, "cpu").contract
        parity, sha256 = contract.parity, hashlib.sha256(content).hexdigest()
        before = known.get(name, {})
        entries[name] = {
            "file": artifact.name,
            "label": contract.label,
            "n": contract.n,
            "trained_on": TRAINED_ON[name],
            "sha256": sha256,
            "bytes": len(content),
            **(
                run_entries(runs / RUNS[name])
                if (runs / RUNS[name]).is_dir()
                else {key: before[key] for key in RUN_FIELDS}
            ),
            "parity": None if parity is None else parity.max_relative_error,
            "metrics": before["metrics"]
            if before.get("sha256") == sha256
            else {scan: metrics_on(at_size(config, contract.n), artifact) for scan, config in SCANS.items()},
        }
    return {
        "version": 2,
        "training_scans": {name: asdict(config) for name, config in TRAINING.items()},
        "test_scans": {name: asdict(config) for name, config in SCANS.items()},
        "artifacts": entries,
    }


def tables(artifacts: dict[str, Any]) -> dict[str, str]:
    """The generated parts of `README.md`, by the name of their marker."""
    figures = [
        "| network | parameters | amplitude SSIM | amplitude Pearson | phase SSIM | phase Pearson "
        "| amplitude only: SSIM | parity | epochs | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    recipe = ["<!-- not run: trains for hours -->", "```shell"]
    recipe += [_simulation(folder, config) for folder, config in TRAINING.items()]
    hashes = ["| file | MB | sha256 |", "|---|---|---|"]
    for label, entry in artifacts.items():
        test, plain, training = (
            entry["metrics"]["test"],
            entry["metrics"]["amplitude_only"],
            entry["training"],
        )
        figures.append(
            f"| `{label}` | {entry['parameters']:,} "
            f"| {test['amplitude']['ssim']:.3f} | {test['amplitude']['pearson']:.3f} "
            f"| {test['phase']['ssim']:.3f} | {test['phase']['pearson']:.3f} | {plain['amplitude']['ssim']:.3f} "
            f"| {entry['parity']:.0e} | {training['epochs']} | {entry['minutes']:g} |"
        )
        run, file = RUNS[label], FILES[label]
        if run == file:
            recipe.append(
                f"ptychonnx train {entry['architecture']} --data {entry['trained_on']} --out runs/{run} "
                f"{training_options(entry)}"
            )
        recipe.append(f"ptychonnx export runs/{run} --out zoo/{file}.onnx{EXPORT_OPTIONS.get(label, '')}")
        hashes.append(f"| `{entry['file']}` | {entry['bytes'] / 1e6:.1f} | `{entry['sha256']}` |")
    recipe += ["python -m benchmarks.record_zoo runs", "```"]
    return {"figures": "\n".join(figures), "recipe": "\n".join(recipe), "hashes": "\n".join(hashes)}


def _simulation(folder: str, config: LinesConfig | FamilyConfig) -> str:
    if isinstance(config, FamilyConfig):
        return (
            f"ptychonnx simulate family --scans {config.scans} --grid {config.grid} --max-modes {config.max_modes} "
            f"--out {folder}"
        )
    return f"ptychonnx simulate lines --train-grid {config.train_grid} --out {folder}"


def main(runs: Path) -> None:
    """Write `zoo.json` and `README.md`."""
    content = record(runs)
    write_text(ZOO / "zoo.json", json.dumps(content, indent=1) + "\n")
    page = (ZOO / "README.md").read_text(encoding="utf-8")
    for name, table in tables(content["artifacts"]).items():
        before, rest = page.split(f"<!-- {name} -->\n")
        page = f"{before}<!-- {name} -->\n{table}\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}"
    write_text(ZOO / "README.md", page)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
