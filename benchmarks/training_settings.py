"""Effect of each training setting: one setting changed at a time, on the lines dataset.

`python -m benchmarks.training_settings OUT` trains `cnn`, `fno`, `hybrid` and `baseline` for as many epochs as `make
demo` does, with the defaults and with each setting of `SETTINGS`, one after the other on one core, and judges their
reconstructions of the test scan. Each result is a file in OUT, so that a second call continues; `--table` writes the
results into `docs/results/quality.json`, from which the documentation makes its tables; rows of other settings, which
were measured with changes to the code, stay there. One training takes about two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.single_pattern_bounds import RESULTS, figures, record, test_scan
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.atomic import write_text
from ptychonnx.train.fitting import settings_for, train
from ptychonnx.train.registry import get_architecture
from ptychonnx.train.run import read_run
from ptychonnx.train.trained_network import load_network

PATTERNS = 1600


@dataclass(frozen=True)
class Setting:
    """One thing that differs from the defaults.

    Attributes
    ----------
    options
        Of `ptychonnx train`.
    patterns
        Of the training scan, a square number.
    """

    words: str
    options: Mapping[str, Any] = field(default_factory=dict)
    patterns: int = PATTERNS


AS_IT_IS = Setting("as it is")
SEEDS = (Setting("seed 1", {"seed": 1}), Setting("seed 2", {"seed": 2}))
WIDE = Setting("width 32 (four times the parameters)", {"width": 32})
THREE_HALVINGS = {"blocks": 3}
PHYSICS = (
    Setting("learning rate 1e-3", {"learning_rate": 1e-3}),
    Setting("learning rate 4e-3", {"learning_rate": 4e-3}),
    Setting("groups of 1: each pattern by itself", {"overlap": 1}),
    Setting("4,761 patterns, 1 epoch (as many steps)", {"epochs": 1}, patterns=4761),
    Setting("400 patterns, 12 epochs (as many steps)", {"epochs": 12}, patterns=400),
    Setting("Poisson loss", {"loss": "poisson"}),
    Setting("1 first step: a linear guess as input", {"first_steps": 1}),
)
SETTINGS: dict[str, tuple[Setting, ...]] = {
    "cnn": (
        AS_IT_IS,
        *SEEDS,
        WIDE,
        Setting("3 halvings", THREE_HALVINGS),
        *(
            replace(
                setting,
                words=f"3 halvings; {setting.words}",
                options={**THREE_HALVINGS, **setting.options},
            )
            for setting in (*SEEDS, *PHYSICS)
        ),
    ),
    "fno": (
        AS_IT_IS,
        *SEEDS,
        WIDE,
        Setting("8 modes", {"modes": 8}),
        Setting("32 modes", {"modes": 32}),
        *PHYSICS,
        Setting("2 blocks", {"blocks": 2}),
    ),
    "hybrid": (AS_IT_IS, *SEEDS),
    "baseline": (AS_IT_IS, *SEEDS, WIDE),
}


def measure(network: str, setting: Setting, out: Path) -> dict[str, Any]:
    """Train with one setting and judge the network on the test scan."""
    config = replace(LinesConfig(), train_grid=round(setting.patterns**0.5))
    scan = simulate_scan(config, config.train_grid, np.random.SeedSequence([config.seed, 0]), "train")
    architecture = get_architecture(network)
    chosen, training = settings_for(architecture, {"n": scan.size, **setting.options})
    started, used = time.monotonic(), _core_seconds()
    train(scan, architecture, chosen, training, out, resume=True)
    minutes, core_minutes = (time.monotonic() - started) / 60, (_core_seconds() - used) / 60
    native, test = load_network(out, read_run(out)), test_scan(config)
    given = test.diffraction[:, None].astype(np.float32)
    parts = np.concatenate([native.predict(given[start : start + 50]) for start in range(0, len(given), 50)])
    patches = parts[:, :, :, 0, 0] + 1j * parts[:, :, :, 0, 1]
    together = figures(test, patches, synchronise=True)
    return {
        "setting": setting.words,
        "network": _budget(network),
        "seed": training.seed,
        "epochs": training.epochs,
        "patterns": setting.patterns,
        "minutes_at_most": round(minutes, 2),
        "core_minutes": round(core_minutes, 2),
        **figures(test, patches),
        "phase_ssim_synchronised": together["phase_ssim"],
    }


def _core_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _budget(network: str) -> str:
    _, training = settings_for(get_architecture(network), {})
    return f"{network}, {training.epochs} epochs of {PATTERNS:,} patterns"


def jobs(networks: list[str]) -> Iterator[tuple[str, int, Setting]]:
    """Every setting of these networks, in turns, so that an interrupted call has something of each."""
    for number in range(max(len(SETTINGS[network]) for network in networks)):
        for network in networks:
            if number < len(SETTINGS[network]):
                yield network, number, SETTINGS[network][number]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the runs and their figures")
    parser.add_argument("--networks", default=",".join(SETTINGS))
    parser.add_argument("--table", action="store_true", help="write the tables, train nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    networks = arguments.networks.split(",")
    if arguments.one is not None:
        network, number = arguments.one.split(":")
        run = arguments.out / f"{network}_{number}"
        row = measure(network, SETTINGS[network][int(number)], run)
        write_text(run.with_suffix(".json"), json.dumps(row, indent=1) + "\n")
    elif arguments.table:
        write_tables(networks, arguments.out)
    else:
        train_all(networks, arguments.out)


def train_all(networks: list[str], out: Path) -> None:
    """Train what has no figures yet, each in a process of its own, which uses one thread."""
    out.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    for network, number, setting in jobs(networks):
        if not (out / f"{network}_{number}.json").exists():
            print(f"{network}, {setting.words}", flush=True)
            one = [
                sys.executable,
                "-m",
                "benchmarks.training_settings",
                str(out),
                "--one",
                f"{network}:{number}",
            ]
            subprocess.run(one, env=environment, check=True)


def write_tables(networks: list[str], out: Path) -> None:
    """Replace the rows of each network that were measured again, and add those that are new."""
    for network in networks:
        part = f"settings_{network}"
        found = [
            json.loads((out / f"{network}_{number}.json").read_text(encoding="utf-8"))
            for number in range(len(SETTINGS[network]))
            if (out / f"{network}_{number}.json").exists()
        ]
        names = {row["setting"] for row in found}
        earlier = json.loads(RESULTS.read_text(encoding="utf-8")).get(part, [])
        rows = found + [row for row in earlier if row["setting"] not in names]
        record(part, rows)


if __name__ == "__main__":
    main()
