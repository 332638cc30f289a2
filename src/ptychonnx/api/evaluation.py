"""`ptychonnx.evaluate`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ptychonnx.harness.evaluation.evaluate import evaluate as run_evaluation
from ptychonnx.harness.evaluation.results import Evaluation
from ptychonnx.harness.iterative.rpie import ALPHA
from ptychonnx.harness.metrics.region import RegionRule
from ptychonnx.runtime.contract import Placement, Weighting
from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan

__all__ = ["evaluate"]


def evaluate(
    models: Predictor | StrPath | Sequence[Predictor | StrPath],
    scans: Scan | StrPath | Sequence[Scan | StrPath],
    out: StrPath | None = None,
    *,
    references: Sequence[StrPath | None] | None = None,
    provider: str = "auto",
    batch: int | Literal["auto"] = DEFAULT_BATCH,
    weighting: Weighting | None = None,
    placement: Placement | None = None,
    synchronise: bool | None = None,
    iterations: int = 0,
    refine: int = 0,
    alpha: float = ALPHA,
    region: RegionRule | None = None,
    plane: bool = False,
    register: bool = False,
    ptychopinn: bool = False,
    progress: Progress = SILENT,
) -> Evaluation:
    """Reconstruct every scan with every model and compare the objects with the known ones.

    Parameters
    ----------
    models
        One or several models, each the path of an artifact, ``zoo:NAME``, or an open `Session`.
    scans
        One or several scans, each a `Scan` or the path of a file that `read_scan` reads. A scan without a known object
        is reconstructed, not compared.
    out
        Folder for `report.html`, `metrics.json` and the figures. Nothing is written if None.
    references
        For each scan a file with the object to compare with, or None for the one in the scan.
    provider, batch, weighting, placement, synchronise
        As in `reconstruct`.
    iterations
        Epochs of an iterative reconstruction from vacuum, in a row of its own; 0 for none. Needs
        ``ptychonnx[iterative]``.
    refine
        Epochs of an iterative reconstruction that starts from the object of each model, in a row of its own; 0 for
        none.
    alpha
        Regularisation of the iterations (rPIE), above 0; 1 is ePIE.
    region
        Rule for the pixels that are compared; by default those that got at least a tenth of the typical illumination.
    plane, register
        Also remove a phase ramp, or a sub-pixel shift, before comparing. A global factor is always removed.
    ptychopinn
        Also report metrics as PtychoPINN defines them.
    progress
        Receives progress, see `ptychonnx.runtime.progress`.

    Returns
    -------
    Evaluation
        ``evaluation.as_json()["rows"][label]`` holds the metrics of a model, as in `metrics.json`.

    Raises
    ------
    InputError
        If a model or a scan cannot be used, or they do not fit each other.

    Examples
    --------
    >>> import ptychonnx
    >>> scan = ptychonnx.simulate_lines(grid=6)
    >>> evaluation = ptychonnx.evaluate(["zoo:baseline", "zoo:pinn_fno"], scan)
    >>> rows = evaluation.as_json()["rows"]
    >>> {label: round(row["phase"]["pearson"], 1) for label, row in rows.items()}
    {'baseline': 0.9, 'pinn_fno': 1.0}
    """
    if not isinstance(models, Sequence) or isinstance(models, str):
        models = [models]
    if not isinstance(scans, Sequence) or isinstance(scans, str):
        scans = [scans]
    return run_evaluation(
        [artifact_path(model) if isinstance(model, str | os.PathLike) else model for model in models],
        [Path(scan) if isinstance(scan, str | os.PathLike) else scan for scan in scans],
        None if out is None else Path(out),
        references=None
        if references is None
        else [None if path is None else Path(path) for path in references],
        provider=provider,
        batch=None if batch == "auto" else batch,
        weighting=weighting,
        placement=placement,
        synchronise=synchronise,
        iterations=iterations,
        refine=refine,
        alpha=alpha,
        region=region,
        plane=plane,
        register=register,
        ptychopinn=ptychopinn,
        progress=progress,
    )
