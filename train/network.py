"""Trained networks, whatever their framework."""

from __future__ import annotations

import importlib
from pathlib import Path

from train.run import NativeNetwork, RunRecord

__all__ = ["initial_network", "load_network"]


def load_network(folder: Path, record: RunRecord) -> NativeNetwork:
    """The network of a run with its trained weights.

    Raises
    ------
    InputError
        If the framework is not installed, or the checkpoint is missing or does not fit.
    """
    return importlib.import_module(f"train.{record.framework}.network").load_network(folder, record)


def initial_network(folder: Path, record: RunRecord) -> NativeNetwork:
    """The network of a run as it was before training, built again from the seed."""
    return importlib.import_module(f"train.{record.framework}.network").initial_network(folder, record)
