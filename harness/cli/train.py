"""`ptychonnx train`: one network, in the framework it was written for."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ptychonnx.harness.cli.config_file import ConfigFile, resolved_yaml
from ptychonnx.harness.cli.console import errors, output, progress_bar
from ptychonnx.harness.cli.scan_options import note, with_reading
from ptychonnx.harness.cli.training_options import with_training
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.train.fine_tuning import find_source
from ptychonnx.train.fitting import helps_another_process, settings_for
from ptychonnx.train.fitting import train as train_network
from ptychonnx.train.registry import architectures, get_architecture
from ptychonnx.train.unfinished_run import unfinished_folder

__all__ = ["train"]

_OPTIONS_NAME = "train.yaml"


@with_reading
@with_training
def train(
    context: typer.Context,
    architecture: Annotated[
        str | None,
        typer.Argument(help="Such as fno; --list names them all, those of installed packages too."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Scan to train on, or a folder with train.npz.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write.")] = None,
    config: ConfigFile = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with an interrupted training of RUN; start it if there is none."
        ),
    ] = False,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Run folder whose weights to start from, instead of the seed's: fine-tuning."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the weights and the order of the patterns.")] = None,
    probe: Annotated[
        Path | None, typer.Option(help="NPZ whose `probe`, scaled to the counts, replaces that of the scan.")
    ] = None,
    list_architectures: Annotated[
        bool, typer.Option("--list", help="List the architectures and stop.")
    ] = False,
    *,
    settings: dict[str, Any],
    reading: ReadOptions,
) -> None:
    """Train a network on a scan. Physics-informed networks need **no labels**: `baseline` learns the known object.

    Leaves a run folder: `config.json`, the checkpoint of the best epoch, `history.csv`, logs, `train.yaml` with every
    option, and the held-out patterns that export verifies with. Settings left out take the architecture's defaults.

    While it trains, the folder is `RUN.unfinished`: if it is interrupted, the same command with `--resume` goes on,
    to the same result.

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
    source = None if init_from is None else find_source(init_from)
    path = data / "train.npz" if data.is_dir() else data
    quiet = helps_another_process()
    scan = read_scan(path, probe=probe, options=reading, log=(lambda line: None) if quiet else note)
    inherited = {} if source is None else source.inherited()
    typed = settings if seed is None else {**settings, "seed": seed}
    network, training = settings_for(chosen, {**inherited, **typed, "n": scan.size})
    options = resolved_yaml(context, {**asdict(network), **asdict(training)})
    try:
        with progress_bar() as bar:
            bar.disable = quiet
            task = bar.add_task(f"Training {chosen.label}", total=None)
            record = train_network(
                scan,
                chosen,
                network,
                training,
                out,
                lambda done, total: bar.update(task, completed=done, total=total),
                source=source,
                resume=resume,
                files={_OPTIONS_NAME: options},
            )
    except KeyboardInterrupt:
        if unfinished_folder(out).is_dir():
            errors.print(
                Text(f"{unfinished_folder(out)} keeps what is complete: --resume goes on"), soft_wrap=True
            )
        raise
    early = f" of {record.training.epochs}" if record.epochs_done < record.training.epochs else ""
    output.print(
        f"{out}: {record.label}, {record.parameters:,} parameters, {record.epochs_done}{early} epochs in "
        f"{record.seconds:.0f} s, best {record.best_epoch}: loss {record.final_loss:.4g} "
        f"(held out {record.validation_loss:.4g})",
        soft_wrap=True,
    )


def _list() -> None:
    table = Table("architecture", "label", "framework", "what it is", "its own defaults")
    for architecture in architectures().values():
        defaults = ", ".join(f"{name} {value}" for name, value in architecture.defaults.items())
        table.add_row(
            architecture.name, architecture.label, architecture.framework, architecture.summary, defaults
        )
    output.print(table)
