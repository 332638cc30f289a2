"""`ptychonnx study`: whole experiments in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import output
from harness.study import plan_lines, run_plan
from train.registry import architectures as all_architectures

__all__ = ["app"]

app = typer.Typer(help="Run whole experiments.", no_args_is_help=True)


@app.callback()
def study() -> None:
    """Run whole experiments."""


@app.command()
def lines(
    out: Annotated[Path, typer.Option(help="Folder for data, runs, models and report.")],
    architectures: Annotated[
        str, typer.Option(help=f"Comma-separated, of: {', '.join(all_architectures())}.")
    ] = "cnn,fno,hybrid,baseline",
    n: Annotated[int, typer.Option(help="Side of a pattern, pixels.")] = 64,
    probe: Annotated[str, typer.Option(help="zone-plate or disk.")] = "zone-plate",
    photons: Annotated[float, typer.Option(help="Mean photons in a pattern.")] = 1e9,
    train_grid: Annotated[int | None, typer.Option(help="Training scan: grid x grid positions.")] = None,
    test_grid: Annotated[int | None, typer.Option(help="Test scan: grid x grid positions.")] = None,
    epochs: Annotated[int | None, typer.Option(help="For every network, instead of its own default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the dataset, the weights and the order of the patterns.")] = 0,
) -> None:
    """The **grid-lines study**: simulate, train, export and evaluate, with one report at the end.

    Trained on one object of random lines, judged on another. The commands it runs are printed, and are the recipe
    for changing any one of the steps.

    Example: `ptychonnx study lines --architectures cnn,fno,hybrid,baseline --out study/`
    """
    options = {
        "--n": n,
        "--probe": probe,
        "--photons": photons,
        "--train-grid": train_grid,
        "--test-grid": test_grid,
    }
    simulate_options = [
        word for name, value in options.items() if value is not None for word in (name, f"{value}")
    ]
    plan = plan_lines(
        [name.strip() for name in architectures.split(",") if name.strip()],
        out,
        simulate_options=simulate_options,
        train_options=[] if epochs is None else ["--epochs", str(epochs)],
        seed=seed,
    )
    run_plan(plan, lambda line: output.print(f"[dim]$[/] {line}", soft_wrap=True))
