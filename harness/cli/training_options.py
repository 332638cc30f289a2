"""Options of every command that trains: settings of the network and of its training, declared once."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ptychonnx.harness.cli.shared_options import with_options
from ptychonnx.train.config import Loss, Monitor, Precision

__all__ = ["with_training"]

_NETWORK = "Network"
_TRAINING = "Training"


def _training(
    gridsize: Annotated[
        int | None,
        typer.Option(help="g: the network sees g x g neighbouring patterns.", rich_help_panel=_NETWORK),
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Channels of the first hidden layer.", rich_help_panel=_NETWORK)
    ] = None,
    blocks: Annotated[
        int | None,
        typer.Option(help="Fourier blocks, or levels of the encoder.", rich_help_panel=_NETWORK),
    ] = None,
    modes: Annotated[
        int | None, typer.Option(help="Fourier modes along each axis.", rich_help_panel=_NETWORK)
    ] = None,
    first_steps: Annotated[
        int | None,
        typer.Option(help="Steps of phase retrieval before the network.", rich_help_panel=_NETWORK),
    ] = None,
    final_steps: Annotated[
        int | None, typer.Option(help="Steps of phase retrieval after the network.", rich_help_panel=_NETWORK)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the scan.", rich_help_panel=_TRAINING)
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Patterns in a step.", rich_help_panel=_TRAINING)] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate.", rich_help_panel=_TRAINING)
    ] = None,
    loss: Annotated[
        Loss | None,
        typer.Option(help="Physics loss: mae (amplitudes) or poisson (counts).", rich_help_panel=_TRAINING),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(
            help="Neighbours whose patches must agree in training; 1: each by itself.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(help="Fraction of the patterns that is held out.", rich_help_panel=_TRAINING),
    ] = None,
    monitor: Annotated[
        Monitor | None,
        typer.Option(
            help="What of the held-out patterns chooses the best epoch: their loss, or how much overlapping "
            "patches disagree.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many epochs without a better one; not given: train all.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(help="Of the arithmetic in training; weights are float32.", rich_help_panel=_TRAINING),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            help="GPUs that share a step, or for Torch processes on the CPU.", rich_help_panel=_TRAINING
        ),
    ] = None,
    tensorboard: Annotated[
        bool | None,
        typer.Option(
            "--tensorboard/--no-tensorboard",
            help="Write logs for TensorBoard; not given: if it is installed.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
) -> dict[str, Any]:
    return {name: value for name, value in locals().items() if value is not None}


# A command gets those that were given as one argument `settings: dict[str, Any]`.
with_training = with_options("settings", _training)
