"""`ptychonnx train`: one network, in the framework that it was written for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ptychonnx.harness.cli.config_file import resolved_yaml
from ptychonnx.harness.cli.console import errors, output, print_lines, report_progress, set_verbosity
from ptychonnx.harness.cli.model_options import Omit, TypedOnly, derive_options
from ptychonnx.harness.cli.shared_options import Probe
from ptychonnx.harness.simulate.family import FamilyConfig, simulate_member
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.inference.artifact_path import run_path
from ptychonnx.runtime.paths import read_text
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.validation import checked
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.fine_tuning import find_initial_weights
from ptychonnx.train.fitting import refuse_unused, settings_for
from ptychonnx.train.fitting import train as train_network
from ptychonnx.train.helper_process import helps_another_process
from ptychonnx.train.registry import architectures, get_architecture
from ptychonnx.train.run import FAMILY_NAME, RunRecord
from ptychonnx.train.unfinished_run import unfinished_folder

__all__ = ["train"]

_OPTIONS_NAME = "train.yaml"
_SCAN_SUFFIXES = (".npz", ".h5", ".hdf5", ".cxi", ".nxs", ".mat")


@derive_options
def train(
    context: typer.Context,
    architecture: Annotated[
        str | None,
        typer.Argument(
            help="Name of an architecture such as fno; --list prints all, with their defaults. That of --init-from if "
            "not given."
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Scan to train on, or a folder with train.npz or with scans; repeat to train on several."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write.")] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue an interrupted training of this folder, if any."),
    ] = False,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Run folder whose weights are the start, or zoo:any_64."),
    ] = None,
    probe: Probe = None,
    list_architectures: Annotated[
        bool, typer.Option("--list", help="List the architectures with their defaults, and exit.")
    ] = False,
    *,
    network: Annotated[dict[str, Any], TypedOnly(NetworkConfig), Omit("n")],
    training: Annotated[dict[str, Any], TypedOnly(TrainingConfig)],
    reading: ReadOptions,
) -> None:
    """Train a network on a scan. Physics-informed networks need **no labels**; `baseline` learns the known object.

    The run folder holds `config.json`, the checkpoint of the best epoch, `history.csv`, logs, `train.yaml` with every
    option, and the held-out patterns that export verifies with. While it trains, the folder is `RUN.unfinished`; after
    an interruption the same command with `--resume` continues, to the same result.

    Trained on **several scans**, a Torch network learns any beam like theirs: each step mixes scans and their beams.

    Example: `ptychonnx train fno --data data/lines --out runs/pinn_fno`

    To fine-tune: `ptychonnx train --init-from zoo:any_64 --data scan.cxi --out runs/mine --epochs 20`
    """
    if list_architectures:
        _list()
        return
    source = None if init_from is None else find_initial_weights(run_path(init_from))
    if architecture is None and source is not None:
        architecture = source.architecture
    if architecture is None or not data or out is None:
        raise InputError(
            "expected ARCHITECTURE --data SCAN --out RUN; `ptychonnx train --list` names the architectures"
        )
    chosen = get_architecture(architecture)
    refuse_unused(chosen, {*network, *training})
    if helps_another_process():
        set_verbosity(-1)
    scans = [read_scan(path, probe=probe, options=reading) for path in _scan_files(data)]
    inherited = {} if source is None else source.inherited()
    built, fitted = settings_for(chosen, {**inherited, **network, **training, "n": scans[0].size})
    options = resolved_yaml(context, {**asdict(built), **asdict(fitted), **dict.fromkeys(chosen.unused)})
    try:
        with report_progress() as progress:
            record = train_network(
                scans,
                chosen,
                built,
                fitted,
                out,
                progress,
                initial_weights=source,
                resume=resume,
                files={_OPTIONS_NAME: options, **_manifest_of_family(data)},
                fresh=_new_scans(data) if fitted.fresh_scans else None,
            )
    except KeyboardInterrupt:
        if unfinished_folder(out).is_dir():
            line = f"{unfinished_folder(out)} keeps the complete epochs; --resume continues from them"
            print_lines(line, console=errors)
        raise
    print_lines(_summary(out, record))


def _summary(out: Path, record: RunRecord) -> str:
    early = f" of {record.training.epochs}" if record.epochs_done < record.training.epochs else ""
    return (
        f"{out}: {record.label}, {record.parameters:,} parameters, {record.epochs_done}{early} epochs in "
        f"{record.seconds:.0f} s, best {record.best_epoch}: loss {record.final_loss:.4g} "
        f"(held out {record.validation_loss:.4g})"
    )


def _scan_files(data: list[Path]) -> list[Path]:
    """The files to train on: those named, `train.npz` of a folder, or all scans of a folder that has none."""
    files: list[Path] = []
    for path in data:
        if not path.is_dir():
            files.append(path)
        elif (path / "train.npz").is_file():
            files.append(path / "train.npz")
        else:
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in _SCAN_SUFFIXES)
            if not inside:
                raise InputError(
                    f"{path}: holds no scan, expected train.npz or {', '.join(_SCAN_SUFFIXES)} files"
                )
            files += inside
    return files


def _manifest_of_family(data: list[Path]) -> dict[str, str]:
    """The manifest of a simulated family, which names its beams and objects, if it is all that was trained on."""
    manifest = data[0] / "manifest.json"
    if len(data) > 1 or (data[0] / "train.npz").is_file() or not manifest.is_file():
        return {}
    return {FAMILY_NAME: read_text(manifest)}


def _new_scans(data: list[Path]) -> Callable[[int], list[Scan]]:
    """The scans of an epoch, which continue the numbering of the family."""
    if not (manifest := _manifest_of_family(data)):
        raise InputError("--fresh-scans: expected --data with one folder of `ptychonnx simulate family`")
    config = checked(FamilyConfig, json.loads(manifest[FAMILY_NAME])["parameters"])
    return lambda epoch: [
        simulate_member(config, epoch * config.scans + number) for number in range(config.scans)
    ]


def _list() -> None:
    table = Table("architecture", "label", "framework", "description", "defaults")
    for architecture in architectures().values():
        defaults = ", ".join(f"{name} {value}" for name, value in architecture.defaults.items())
        table.add_row(
            architecture.name, architecture.label, architecture.framework, architecture.summary, defaults
        )
    output.print(table)
