"""Trained networks, whatever their framework."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from train.registry import import_framework_module
from train.run import NativeNetwork, RunRecord

__all__ = ["initial_network", "load_network"]


def load_network(folder: Path, record: RunRecord) -> NativeNetwork:
    """The network of a run with its trained weights.

    Raises
    ------
    InputError
        If the framework is not installed, or the checkpoint is missing or does not fit.
    """
    return _module(record).load_network(folder, record)


def initial_network(folder: Path, record: RunRecord) -> NativeNetwork:
    """The network of a run as it was before training, built again from the seed."""
    return _module(record).initial_network(folder, record)


def _module(record: RunRecord) -> ModuleType:
    return import_framework_module(f"train.{record.framework}.network", record.framework)
