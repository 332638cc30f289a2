"""`ptychonnx.export_module`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptychonnx.export.graph.opset import DEFAULT_OPSET
from ptychonnx.export.portability import TargetName
from ptychonnx.export.verification.verify import TOLERANCE
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.validation import checked
from ptychonnx.train.registry import import_framework_module

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ptychonnx.export.artifact.export_module import ModuleInput, ModuleResult

__all__ = ["export_module"]


def export_module(
    module: nn.Module,
    inputs: Tensor | tuple[int, ...] | Sequence[Tensor | tuple[int, ...]],
    out: StrPath,
    *,
    tolerance: float = TOLERANCE,
    batch: int | None = None,
    opset: int = DEFAULT_OPSET,
    require: Sequence[TargetName] = (),
    seed: int = 0,
    source: str = "a torch module",
) -> ModuleResult:
    """Compile any torch module to one ONNX file, Fourier layers of neuraloperator included, and verify it.

    Spectral convolutions become products of real matrices, which every engine runs. Their spatial size is fixed, the
    batch stays dynamic.

    Parameters
    ----------
    module
        Converted as a copy, in evaluation mode, on the CPU. It returns a tensor, or a tuple, list or dictionary of
        tensors.
    inputs
        The input of `forward`, or a list of several: each a shape without the batch, such as ``(1, 64, 64)``, or an
        example tensor with the batch first. Only shape and type of an example are used; complex inputs and outputs
        become float32 with a last axis of real and imaginary part.
    out
        File to write, ending in .onnx. ``<stem>.verification.json`` and ``.txt`` appear next to it, or
        ``<stem>.refused.json`` and ``.txt`` if verification fails.
    tolerance
        Largest relative error against torch.
    batch
        The only batch size that the graph takes; any if None.
    opset
        Version of the ONNX operators.
    require
        Targets on which every node must run: ``cpu``, ``cuda``, ``tensorrt``, ``openvino``.
    seed
        Seed of the random inputs of verification.
    source
        Where the module came from, in words, for the description inside the file.

    Returns
    -------
    ModuleResult
        Path, description and verification report of the file.

    Raises
    ------
    InputError
        If torch is not installed, or the module does not run on such inputs.
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
    exporting = import_framework_module("ptychonnx.export.artifact.export_module", "torch")
    options = checked(
        exporting.ModuleOptions,
        {"tolerance": tolerance, "batch": batch, "opset": opset, "require": tuple(require), "seed": seed},
    )
    described = [_module_input(value, exporting.ModuleInput) for value in _as_list(inputs)]
    return exporting.export_module(module, described, Path(out), options, source=source)


def _as_list(inputs: Any) -> list[Any]:
    """One shape or tensor becomes a list of one."""
    is_shape = isinstance(inputs, tuple) and all(isinstance(size, int) for size in inputs)
    return list(inputs) if isinstance(inputs, list | tuple) and not is_shape else [inputs]


def _module_input(value: Any, kind: type[ModuleInput]) -> ModuleInput:
    if isinstance(value, tuple):
        return kind(value)
    return kind(tuple(value.shape[1:]), value.is_complex())
