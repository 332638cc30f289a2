"""`ptychonnx study`: whole experiments in one call."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from ptychonnx.harness.cli.config_file import resolved_yaml
from ptychonnx.harness.cli.console import output, print_lines, report_progress
from ptychonnx.harness.cli.model_options import Command, Omit, TypedOnly, derive_options
from ptychonnx.harness.cli.shared_options import Artifacts
from ptychonnx.harness.simulate.lines_dataset import LinesConfig
from ptychonnx.harness.study.lines_study import plan_lines, run_plan, typed_options
from ptychonnx.harness.study.robustness import robustness as run_robustness
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.train.config import NetworkConfig, TrainingConfig

__all__ = ["app"]

app = typer.Typer(help="Run whole experiments.", no_args_is_help=True)
_OPTIONS_NAME = "study.yaml"


@app.callback()
def study() -> None:
    """Run whole experiments."""


@app.command(cls=Command)
@derive_options
def lines(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for data, runs, models and report.")],
    architectures: Annotated[
        str, typer.Option(help="Comma-separated names; `ptychonnx train --list` prints all of them.")
    ] = "cnn,fno,hybrid,baseline",
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep complete trainings, and continue an interrupted one.")
    ] = False,
    iterations: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="K",
            help="Also reconstruct iteratively with K epochs of mPIE.",
        ),
    ] = 0,
    ptychopinn: Annotated[
        bool, typer.Option("--ptychopinn", help="Also report the metrics as PtychoPINN defines them.")
    ] = False,
    seed: Annotated[
        int, typer.Option(help="Seed of the dataset, the weights and the order of the patterns.")
    ] = 0,
    *,
    simulation: Annotated[
        dict[str, Any], TypedOnly(LinesConfig), Omit("jitter", "absorption", "phase_shift", "seed")
    ],
    network: Annotated[dict[str, Any], TypedOnly(NetworkConfig), Omit("n")],
    training: Annotated[dict[str, Any], TypedOnly(TrainingConfig), Omit("seed")],
) -> None:
    """Run the **grid-lines study**: simulate, train, export and evaluate, with one report at the end.

    Networks are trained on one object of random lines and evaluated on another. Settings of network and training apply
    to every network that has them. The commands are printed as they run, so that any step can be changed and repeated;
    `study.yaml` keeps the options.

    Example: `ptychonnx study lines --architectures cnn,fno,hybrid,baseline --out study/`
    """
    plan = plan_lines(
        [name.strip() for name in architectures.split(",") if name.strip()],
        out,
        simulate_options=typed_options(simulation),
        settings={**network, **training},
        train_options=["--resume"] if resume else [],
        evaluate_options=[
            *(["--iterations", str(iterations)] if iterations else []),
            *["--ptychopinn"] * ptychopinn,
        ],
        seed=seed,
    )
    write_text(
        out / _OPTIONS_NAME, resolved_yaml(context, {**asdict(LinesConfig()), **simulation, "seed": seed})
    )
    run_plan(
        plan,
        announce=lambda line: output.print(Text("$ ", style="dim") + line, soft_wrap=True),
        show=lambda text: output.out(text, end="", highlight=False),
    )


@app.command(cls=Command)
@derive_options
def robustness(
    artifacts: Artifacts,
    scan: Annotated[
        Path,
        typer.Option(
            help="Scan whose positions, probe, pixel size and wavelength are simulated; its patterns are not used."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for robustness.json, .png, .md and one report per condition.")
    ],
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the objects, the noise and the position errors.")
    ] = 0,
    *,
    inference: InferenceOptions,
    reading: ReadOptions,
) -> None:
    """Measure the **robustness** of networks to conditions they were not trained for.

    Few photons, another beam, wrong positions, other objects: the scan is simulated again under each condition, one
    change at a time, and every network is evaluated on it. Needs no training framework.

    Example: `ptychonnx study robustness models/*.onnx --scan data/lines/test.npz --out robustness`
    """
    if inference.batch is None:
        raise InputError("--batch auto: is not available in a study, expected a number")
    base = read_scan(scan, options=reading)
    with report_progress() as progress:
        run_robustness(
            artifacts,
            base,
            out,
            seed=seed,
            provider=inference.provider,
            batch=inference.batch,
            progress=progress,
        )
    print_lines(f"{out / 'robustness.md'}, {out / 'robustness.png'}")
