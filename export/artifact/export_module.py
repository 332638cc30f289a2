"""Export of a module: any torch module becomes one verified ONNX file, without a run and without a contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from numpy.typing import NDArray
from torch import nn

from ptychonnx.export.artifact.candidate import Candidate, VerifiedGraph, release
from ptychonnx.export.artifact.export_options import ModuleOptions
from ptychonnx.export.artifact.module_description import ModuleDescription
from ptychonnx.export.artifact.publication import check_name
from ptychonnx.export.graph.inspection import operators
from ptychonnx.export.lowering.converted_graph import Converted
from ptychonnx.export.lowering.torch.convert import convert_lowered
from ptychonnx.export.lowering.torch.signature import (
    OUTPUT,
    ModuleInput,
    RealValuedModule,
    input_names,
    output_names,
)
from ptychonnx.export.lowering.torch.spectral import Lowering, at_full_precision, lower_spectral
from ptychonnx.export.verification.inputs import module_inputs
from ptychonnx.export.verification.verdict import report_lines
from ptychonnx.export.verification.verification_report import VerificationReport
from ptychonnx.train.run import LayerOutput
from ptychonnx.train.torch.network import layer_outputs

__all__ = ["ModuleInput", "ModuleOptions", "ModuleResult", "export_module"]

_PACKAGES = ("torch", "neuraloperator", "onnx", "onnxscript", "ptychonnx")


@dataclass(frozen=True)
class ModuleResult:
    """A published file: its path, the description in it, and everything that was compared."""

    path: Path
    description: ModuleDescription
    report: VerificationReport

    def verdict(self) -> list[str]:
        """What was compared, on which inputs, and how well it agreed, as lines of text."""
        description = self.description
        return [
            f"{description.source}: {description.parameters:,} parameters",
            *report_lines(self.report),
            f"graph: {description.exporter}, opset {description.opset}; lowering: {description.lowering}; "
            f"passes: {', '.join(description.passes) or 'none'}",
        ]


def export_module(
    module: nn.Module,
    inputs: Sequence[ModuleInput],
    out: Path,
    options: ModuleOptions | None = None,
    *,
    source: str = "a torch module",
) -> ModuleResult:
    """Lower the Fourier layers of a module, convert it, verify it, and write `out`.

    Parameters
    ----------
    module
        Left as it is: a copy is converted, in evaluation mode, on the CPU. It returns a tensor, or a tuple, list or
        dictionary of tensors.
    inputs
        In the order of the arguments of its `forward`, after which they are named.
    out
        File to write; it appears complete and verified, or not at all. ``<stem>.verification.json`` and ``.txt``
        appear next to it, or ``<stem>.refused.json`` and ``.txt`` if verification fails.
    options
        Defaults of `ModuleOptions` if None.
    source
        Where the module came from, in words.

    Raises
    ------
    InputError
        If the module does not run on such inputs.
    UnsupportedError
        If a layer cannot be lowered, which is named with the reason, or the module cannot be converted.
    VerificationError
        If a check fails; nothing is written.
    """
    out, options = check_name(out), options or ModuleOptions()
    native, notes = at_full_precision(module)
    native.cpu().requires_grad_(False)
    published = release(_candidate(native, notes, inputs, options, source, out.stem), out)
    return ModuleResult(out, published.stamp, published.report)


def _candidate(
    native: nn.Module,
    notes: dict[str, str],
    inputs: Sequence[ModuleInput],
    options: ModuleOptions,
    source: str,
    label: str,
) -> Candidate[ModuleDescription]:
    verification_inputs = module_inputs([one.real_shape for one in inputs], options.seed)
    example = [torch.from_numpy(array) for array in verification_inputs[0].batch(0, options.batch or 2)]
    arguments = [
        torch.view_as_complex(array) if one.complex_values else array
        for one, array in zip(inputs, example, strict=True)
    ]
    inputs_by_name = dict(zip(input_names(native, len(inputs)), inputs, strict=True))
    outputs, complex_outputs = output_names(native, arguments, list(inputs_by_name))

    lowering = lower_spectral(native, *arguments)
    is_plain = outputs == [OUTPUT] and not any(one.complex_values for one in inputs) and not complex_outputs
    # The wrapper would prefix every name in the graph, so it is left out where it changes nothing.
    lowered = lowering.module if is_plain else RealValuedModule(lowering.module, inputs).eval()
    converted = convert_lowered(
        Lowering(lowered, lowering.layers, notes),
        *example,
        opset=options.opset,
        inputs=list(inputs_by_name),
        outputs=outputs,
        batch=options.batch,
    )
    real = RealValuedModule(native, inputs).eval()
    complex_inputs = [name for name, one in inputs_by_name.items() if one.complex_values]
    return Candidate(
        label=label,
        model=converted.model,
        inputs=list(inputs_by_name),
        native={name: partial(_predict, real, index) for index, name in enumerate(outputs)},
        verification_inputs=verification_inputs,
        stamp=partial(_description, native, source, [*complex_inputs, *complex_outputs], converted, options),
        layers=partial(_layers, real),
        batch=options.batch,
        tolerance=options.tolerance,
        targets=options.require,
    )


def _predict(module: RealValuedModule, index: int, *inputs: NDArray) -> NDArray:
    with torch.inference_mode():
        return module(*map(torch.from_numpy, inputs))[index].numpy()


def _layers(module: RealValuedModule, *inputs: NDArray) -> list[LayerOutput]:
    # The author of the module does not know the prefix that the wrapper adds to the names of layers.
    return [
        LayerOutput(layer.name.removeprefix("module."), layer.output, layer.after)
        for layer in layer_outputs(module, *map(torch.from_numpy, inputs))
    ]


def _description(
    module: nn.Module,
    source: str,
    complex_values: list[str],
    converted: Converted,
    options: ModuleOptions,
    verified: VerifiedGraph,
) -> ModuleDescription:
    return ModuleDescription(
        source=source,
        complex_values=complex_values,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        exporter=converted.exporter,
        opset=options.opset,
        lowering=converted.lowering_text(),
        passes=verified.passes,
        operators_before=dict(sorted(operators(converted.model).items())),
        versions=_versions(),
        parity=verified.report.parity(),
    )


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
