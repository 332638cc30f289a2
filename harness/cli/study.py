"""`ptychonnx study`: whole experiments in one call."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ptychonnx.harness.cli.config_file import ConfigFile, resolved_yaml
from ptychonnx.harness.cli.console import output
from ptychonnx.harness.cli.scan_options import note, with_reading
from ptychonnx.harness.cli.training_options import with_training
from ptychonnx.harness.simulate.lines_dataset import LinesConfig
from ptychonnx.harness.study.lines_study import plan_lines, run_plan, typed_options
from ptychonnx.harness.study.robustness import robustness as run_robustness
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.inference import DEFAULT_BATCH, Provider
from ptychonnx.runtime.progress import Callback

__all__ = ["app"]

app = typer.Typer(help="Run whole experiments.", no_args_is_help=True)
_OPTIONS_NAME = "study.yaml"


@app.callback()
def study() -> None:
    """Run whole experiments."""


@app.command()
@with_training
def lines(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for data, runs, models and report.")],
    architectures: Annotated[
        str, typer.Option(help="Comma-separated; `ptychonnx train --list` names them all.")
    ] = "cnn,fno,hybrid,baseline",
    config: ConfigFile = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Keep trainings that are complete, go on with an interrupted one."),
    ] = False,
    n: Annotated[int, typer.Option(help="Side of a pattern, pixels.")] = 64,
    probe: Annotated[str, typer.Option(help="zone-plate or disk.")] = "zone-plate",
    photons: Annotated[float, typer.Option(help="Mean photons in a pattern.")] = 1e9,
    step: Annotated[int | None, typer.Option(help="Raster step, pixels.")] = None,
    train_grid: Annotated[int | None, typer.Option(help="Training scan: grid x grid positions.")] = None,
    test_grid: Annotated[int | None, typer.Option(help="Test scan: grid x grid positions.")] = None,
    iterations: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="K",
            help="Also an iterative reconstruction of K epochs. Needs ptychonnx[iterative].",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the dataset, the weights and the order of the patterns.")] = 0,
    *,
    settings: dict[str, Any],
) -> None:
    """The **grid-lines study**: simulate, train, export and evaluate, with one report at the end.

    Trained on one object of random lines, judged on another. Settings of network and training are for every network,
    instead of its own defaults. The commands it runs are printed, and are the recipe for changing any one of the
    steps; `study.yaml` keeps the options.

    Example: `ptychonnx study lines --architectures cnn,fno,hybrid,baseline --out study/`
    """
    options = {
        "n": n,
        "probe": probe,
        "photons": photons,
        "step": step,
        "train_grid": train_grid,
        "test_grid": test_grid,
    }
    given = {name: value for name, value in options.items() if value is not None}
    plan = plan_lines(
        [name.strip() for name in architectures.split(",") if name.strip()],
        out,
        simulate_options=typed_options(given),
        settings=settings,
        train_options=["--resume"] if resume else [],
        evaluate_options=["--iterations", str(iterations)] if iterations else [],
        seed=seed,
    )
    write_text(out / _OPTIONS_NAME, resolved_yaml(context, {**asdict(LinesConfig()), **given, "seed": seed}))
    run_plan(plan, lambda line: output.print(f"[dim]$[/] {line}", soft_wrap=True))


@app.command()
@with_reading
def robustness(
    artifacts: Annotated[list[Path], typer.Argument(help="ONNX artifacts.")],
    scan: Annotated[
        Path, typer.Option(help="Gives positions, probe, pixel size and wavelength; not its patterns.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for robustness.json, .png, .md and a report an axis.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the objects, the noise and the errors.")] = 0,
    provider: Annotated[Provider, typer.Option(help="Where to run; auto takes the best there is.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Patterns in one run of the network.")] = DEFAULT_BATCH,
    *,
    reading: ReadOptions,
) -> None:
    """How networks bear **what they were not trained for**: few photons, another beam, wrong positions, other objects.

    Simulates the scan again under each condition, one thing at a time, and evaluates every network on it. Needs no
    training framework.

    Example: `ptychonnx study robustness models/*.onnx --scan data/lines/test.npz --out robustness`
    """
    run_robustness(
        artifacts,
        read_scan(scan, options=reading, log=note),
        out,
        seed=seed,
        provider=provider,
        batch=batch,
        progress=Callback(lambda step: None if step.done else output.print(f"[dim]{step.stage}[/]")),
    )
    output.print(f"{out / 'robustness.md'}, {out / 'robustness.png'}", soft_wrap=True)
