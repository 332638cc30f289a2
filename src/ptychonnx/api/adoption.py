"""`ptychonnx.adopt`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ptychonnx.export.adoption import Specification, read_specification
from ptychonnx.export.adoption.adopt import adopt as adopt_network
from ptychonnx.export.adoption.foreign_module import adopt_module
from ptychonnx.export.artifact.export_run import ExportResult
from ptychonnx.export.verification.verify import TOLERANCE
from ptychonnx.runtime.atomic import check_not_read
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.scan import Scan

__all__ = ["adopt"]


def adopt(
    network: StrPath | Any,
    specification: Specification | StrPath,
    out: StrPath,
    *,
    scan: Scan | StrPath | None = None,
    tolerance: float = TOLERANCE,
) -> ExportResult:
    """Turn a network from elsewhere into an artifact, and verify it.

    Preprocessing, layouts, orientation, pixel size and the step from an exit wave to the object become nodes of the
    graph. The artifact is compared, in every installed engine, with the original network run between the same
    steps in NumPy.

    Parameters
    ----------
    network
        ONNX file with one input; or a torch module or a Keras model with its weights.
    specification
        YAML file that describes what the network takes and returns (docs/how-to/adopt.md), or the `Specification`
        itself.
    out
        File to write, ending in .onnx. It appears complete and verified, or not at all, with its report next to it.
    scan
        Scan (or its file) whose patterns are compared; seeded random patterns if None.
    tolerance
        Largest relative error against the original network.

    Returns
    -------
    ExportResult
        Path, contract and verification report of the artifact.

    Raises
    ------
    InputError
        If the file is unsafe or not an ONNX model, or the specification does not fit it.
    VerificationError
        If a check fails; nothing is written.

    Examples
    --------
    >>> import ptychonnx
    >>> result = ptychonnx.adopt("theirs.onnx", "theirs.yaml", "models/theirs.onnx")
    >>> result.contract.label, result.contract.n
    ('theirs', 64)
    """
    check_not_read(out, network, specification, scan)
    if not isinstance(specification, Specification):
        specification = read_specification(Path(specification))
    if isinstance(scan, str | os.PathLike):
        scan = read_scan(scan)
    if not isinstance(network, str | os.PathLike):
        return adopt_module(network, specification, Path(out), scan=scan, tolerance=tolerance)
    return adopt_network(Path(network), specification, Path(out), scan=scan, tolerance=tolerance)
