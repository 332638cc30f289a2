"""`ptychonnx.export_module`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ptychonnx.export.graph.opset import DEFAULT_OPSET
from ptychonnx.export.lowering.module_input import DTYPES, ModuleInput, leaves, replace_leaves
from ptychonnx.export.portability import TargetName
from ptychonnx.export.verification.verify import TOLERANCE
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.validation import checked

if TYPE_CHECKING:
    from ptychonnx.export.artifact.export_module import ModuleResult

__all__ = ["export_module"]


def export_module(
    module: Any,
    inputs: Any,
    out: StrPath,
    *,
    shared: Sequence[str] = (),
    tolerance: float = TOLERANCE,
    batch: int | None = None,
    opset: int = DEFAULT_OPSET,
    require: Sequence[TargetName] = (),
    seed: int = 0,
    precision: Literal["fp32", "fp16"] = "fp32",
    precision_tolerance: float = 1e-2,
    source: str | None = None,
    progress: Progress = SILENT,
) -> ModuleResult:
    """Compile any torch module or Keras model to one ONNX file, Fourier layers included, and verify it.

    Fourier transforms become products of real matrices, which every engine runs. Spatial sizes are fixed, the batch
    stays dynamic.

    Parameters
    ----------
    module
        A `torch.nn.Module` or `keras.Model`; a copy is converted, in evaluation mode, on the CPU. It returns tensors of
        any type, in tuples, lists, dictionaries or dataclasses.
    inputs
        The input of `forward`, or a list or tuple of several. Each is an example tensor or array with the batch first,
        a shape without the batch such as ``(1, 64, 64)``, or a dictionary, sequence or dataclass of those. A dictionary
        whose keys are arguments of `forward` holds keyword arguments. Values of examples are used for verification;
        those of shapes are random. Complex inputs and outputs become float32 with a last axis of real and imaginary
        part.
    out
        File to write, ending in .onnx. ``<stem>.verification.json`` and ``.txt`` appear next to it, or
        ``<stem>.refused.json`` and ``.txt`` if verification fails.
    shared
        Names of inputs without a batch axis, such as a grid. Examples whose first axis differs from that of the first
        example have none either.
    tolerance
        Largest relative error against the framework.
    batch
        The only batch size that the graph takes; any if None.
    opset
        Version of the ONNX operators.
    require
        Targets on which every node must run: ``cpu``, ``cuda``, ``tensorrt``, ``openvino``.
    seed
        Seed of the random inputs of verification.
    precision
        ``fp16`` computes convolutions and matrix products in half precision.
    precision_tolerance
        Largest error of ``fp16``, as a fraction of the largest output in float32.
    source
        Where the module came from, in words, for the description inside the file; the name of its class if None.
    progress
        Receives the stages.

    Returns
    -------
    ModuleResult
        Path, description and verification report of the file.

    Raises
    ------
    InputError
        If the framework is not installed, or the module does not run on such inputs.
    UnsupportedError
        If a layer cannot be converted; the message names it.
    VerificationError
        If a check fails; nothing is written.

    Examples
    --------
    >>> import ptychonnx
    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 1, 3, padding=1))
    >>> result = ptychonnx.export_module(module, (1, 16, 16), "network.onnx")
    >>> result.report.refusals
    []
    """
    exporting = importlib.import_module("ptychonnx.export.artifact.export_module")
    options = checked(
        exporting.ModuleOptions,
        {
            "tolerance": tolerance,
            "batch": batch,
            "opset": opset,
            "require": tuple(require),
            "seed": seed,
            "precision": precision,
            "precision_tolerance": precision_tolerance,
        },
    )
    positional, keywords = _arguments(module, inputs)
    first = next(
        (len(leaf) for _, leaf in leaves((positional, keywords), _is_leaf) if _is_example(leaf)), None
    )

    def described(leaf: Any) -> Any:
        return _module_input(leaf, first) if _is_leaf(leaf) else leaf

    positional, keywords = replace_leaves((positional, keywords), _is_leaf, described)
    return exporting.export_module(
        module,
        positional,
        Path(out),
        options,
        source=source or type(module).__name__,
        keywords=keywords,
        shared=shared,
        progress=progress,
    )


def _arguments(module: Any, inputs: Any) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments."""
    if isinstance(inputs, Mapping):
        forward = getattr(module, "forward", None)
        known = set() if forward is None else set(inspect.signature(forward).parameters)
        return ([], dict(inputs)) if set(inputs) <= known else ([inputs], {})
    is_sequence = isinstance(inputs, list | tuple) and not hasattr(inputs, "_fields") and not _is_leaf(inputs)
    return (list(inputs) if is_sequence else [inputs]), {}


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(size) is int for size in value)


def _is_example(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and len(value.shape) > 0


def _is_leaf(value: Any) -> bool:
    return isinstance(value, ModuleInput) or _is_shape(value) or hasattr(value, "dtype")


def _module_input(value: Any, batch: int | None) -> ModuleInput:
    """Description of one tensor, array or shape; `batch` is that of the first example."""
    if isinstance(value, ModuleInput):
        return value
    if isinstance(value, tuple):
        return ModuleInput(value)
    values = value.detach().cpu().resolve_conj().numpy() if hasattr(value, "detach") else np.asarray(value)
    is_complex = values.dtype.kind == "c"
    shared = not values.ndim or len(values) != batch
    shape = values.shape if shared else values.shape[1:]
    if is_complex:
        values = np.stack([values.real, values.imag], axis=-1)
    if values.dtype.name not in DTYPES:
        raise InputError(f"an example input is {values.dtype}, expected one of {', '.join(DTYPES)}")
    return ModuleInput(shape, is_complex, values.dtype.name, shared=shared, example=values)
