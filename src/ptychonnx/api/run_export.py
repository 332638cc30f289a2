"""`ptychonnx.export_run`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ptychonnx.export.artifact.export_options import Domain, ExportOptions, Precision
from ptychonnx.export.artifact.export_run import ExportResult
from ptychonnx.export.artifact.export_run import export_run as export_trained_run
from ptychonnx.export.graph.opset import DEFAULT_OPSET
from ptychonnx.export.portability import TargetName
from ptychonnx.export.verification.verify import TOLERANCE
from ptychonnx.harness.evaluation.precision_gate import PrecisionGate
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.validation import checked
from ptychonnx.train.run import held_out_scan

__all__ = ["export_run"]


def export_run(
    run: StrPath,
    out: StrPath,
    *,
    tolerance: float = TOLERANCE,
    precision: Precision = "fp32",
    scan: Scan | StrPath | None = None,
    input: Domain = "amplitude",
    batch: int | None = None,
    opset: int = DEFAULT_OPSET,
    require: Sequence[TargetName] = (),
    final_steps: int | None = None,
    general: bool = False,
    modes: int | None = None,
) -> ExportResult:
    """Compile the trained network of a run to one self-describing ONNX file, and verify it.

    The file gets its name only after it answered like the native network, with the weights of the checkpoint, on
    patterns that training did not see.

    Parameters
    ----------
    run
        Run folder, written by ``ptychonnx train``.
    out
        File to write, ending in .onnx. ``<stem>.verification.json`` and ``.txt`` appear next to it, or
        ``<stem>.refused.json`` and ``.txt`` if verification fails.
    tolerance
        Largest relative error of the float32 graph against the native network.
    precision
        ``fp32``, ``fp16`` (for GPUs) or ``int8`` (for CPUs). A lower precision is accepted only if the
        reconstruction of `scan` stays as good.
    scan
        Scan (or its file) that calibrates and judges a lower precision; the held-out patterns of the run if None.
    input
        ``amplitude`` for float32 amplitudes, or ``counts`` for raw uint16 counts; then mask and square root are in the
        graph.
    batch
        The only batch size that the artifact takes; any if None.
    opset
        Version of the ONNX operators.
    require
        Targets on which every node must run: ``cpu``, ``cuda``, ``tensorrt``, ``openvino``.
    final_steps
        Steps of phase retrieval after the network; as many as in training if None.
    general
        Make probe, mask and scale inputs with defaults, so that the artifact fits other beams.
    modes
        Probe modes that a general artifact takes; as many as the training probe has if None.

    Returns
    -------
    ExportResult
        Path, contract and verification report of the artifact.

    Raises
    ------
    InputError
        If the folder is not a finished run, the framework of the run is not installed, or its network cannot be
        converted.
    VerificationError
        If the artifact fails a check; nothing is written.

    Examples
    --------
    >>> import ptychonnx
    >>> result = ptychonnx.export_run("runs/pinn_fno", "models/pinn_fno.onnx", batch=8)
    >>> result.contract.label, result.contract.batch
    ('pinn_fno', 8)
    >>> result.contract.parity.max_relative_error < 1e-4
    True
    """
    if precision == "fp32" and scan is not None:
        raise InputError("scan: only used with precision fp16 or int8, got fp32")
    options = checked(
        ExportOptions,
        {
            "tolerance": tolerance,
            "precision": precision,
            "input": input,
            "batch": batch,
            "opset": opset,
            "require": tuple(require),
            "general": general,
            "modes": modes,
        },
    )
    if isinstance(scan, str | os.PathLike):
        scan = read_scan(scan)
    if precision != "fp32" and scan is None:
        scan = held_out_scan(Path(run))
    return export_trained_run(
        Path(run),
        Path(out),
        options,
        gate=None if scan is None else PrecisionGate(scan),
        calibration=scan,
        final_steps=final_steps,
    )
