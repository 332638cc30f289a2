"""`ptychonnx train`: one network, in the framework it was written for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from harness.cli.console import output, progress_bar
from harness.cli.reading import note, with_reading
from runtime.errors import InputError
from runtime.formats import ReadOptions, read_scan
from train.config import Loss
from train.fitting import settings_for
from train.fitting import train as train_network
from train.registry import architectures, get_architecture

__all__ = ["train"]


@with_reading
def train(
    architecture: Annotated[
        str | None, typer.Argument(help="cnn, baseline, fno, hybrid, or one that a package adds; see --list.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Scan to train on, or a folder with train.npz.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the scan.")] = None,
    batch: Annotated[int | None, typer.Option(help="Patterns in a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    loss: Annotated[
        Loss | None, typer.Option(help="Physics loss: mae (amplitudes) or poisson (counts).")
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(help="Neighbours whose patches must agree in training; 1: each by itself.")
    ] = None,
    gridsize: Annotated[
        int | None, typer.Option(help="g: the network sees g x g neighbouring patterns.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Channels of the first hidden layer.")] = None,
    blocks: Annotated[int | None, typer.Option(help="Fourier blocks, or levels of the encoder.")] = None,
    modes: Annotated[int | None, typer.Option(help="Fourier modes along each axis.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the weights and the order of the patterns.")] = None,
    probe: Annotated[
        Path | None, typer.Option(help="NPZ whose `probe`, scaled to the counts, replaces that of the scan.")
    ] = None,
    list_architectures: Annotated[
        bool, typer.Option("--list", help="List the architectures and stop.")
    ] = False,
    *,
    reading: ReadOptions,
) -> None:
    """Train a network on a scan. Physics-informed networks need **no labels**: `baseline` learns the known object.

    Leaves a run folder: `config.json`, the checkpoint, `history.csv`, logs, and the held-out patterns that export
    verifies with. Settings left out take the architecture's defaults.

    Example: `ptychonnx train fno --data data/lines --out runs/pinn_fno`
    """
    if list_architectures:
        _list()
        return
    if architecture is None or data is None or out is None:
        raise InputError(
            "expected ARCHITECTURE --data SCAN --out RUN; `ptychonnx train --list` names the architectures"
        )
    chosen = get_architecture(architecture)
    typed = {
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "loss": loss,
        "overlap": overlap,
        "gridsize": gridsize,
        "width": width,
        "blocks": blocks,
        "modes": modes,
        "seed": seed,
    }
    path = data / "train.npz" if data.is_dir() else data
    scan = read_scan(path, probe=probe, options=reading, log=note)
    values = {"n": scan.size, **{name: value for name, value in typed.items() if value is not None}}
    network, training = settings_for(chosen, values)
    with progress_bar() as bar:
        task = bar.add_task(f"Training {chosen.label}", total=None)
        record = train_network(
            scan,
            chosen,
            network,
            training,
            out,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    output.print(
        f"{out}: {record.label}, {record.parameters:,} parameters, {record.epochs_done} epochs in "
        f"{record.seconds:.0f} s, loss {record.final_loss:.4g} (held out {record.validation_loss:.4g})",
        soft_wrap=True,
    )


def _list() -> None:
    table = Table("architecture", "label", "framework", "what it is")
    for architecture in architectures().values():
        table.add_row(architecture.name, architecture.label, architecture.framework, architecture.summary)
    output.print(table)
