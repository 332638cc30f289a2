"""From any torch module to one verified ONNX file: no run, no contract, nothing of this field."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from ptychonnx.export.artifact.export_options import ModuleOptions
from ptychonnx.export.artifact.module_description import MODULE_KEY, ModuleDescription
from ptychonnx.export.graph.inspection import check_graph, operators
from ptychonnx.export.lowering.torch.convert import convert_lowered
from ptychonnx.export.lowering.torch.signature import OUTPUT, ModuleInput, RealFace, input_names, output_names
from ptychonnx.export.lowering.torch.spectral import Lowering, at_full_precision, lower_spectral
from ptychonnx.export.passes import clean
from ptychonnx.export.portability import require
from ptychonnx.export.verification.engines import installed_engines, open_onnxruntime
from ptychonnx.export.verification.first_difference import locate
from ptychonnx.export.verification.inputs import Trial, module_trials
from ptychonnx.export.verification.published_file import module_input
from ptychonnx.export.verification.verdict import report_lines
from ptychonnx.export.verification.verification_report import write_refusal, write_report
from ptychonnx.export.verification.verify import (
    BATCHES,
    VerificationReport,
    parity_of,
    reference_pair,
    verify,
)
from ptychonnx.runtime.atomic import atomic_path
from ptychonnx.runtime.contract.integrity import graph_sha256
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.train.run import LayerOutput
from ptychonnx.train.torch.network import layer_outputs

__all__ = ["ModuleInput", "ModuleOptions", "ModuleResult", "export_module"]

_PACKAGES = ("torch", "neuraloperator", "onnx", "onnxscript", "ptychonnx")


@dataclass(frozen=True)
class ModuleResult:
    """A published file: where it is, what it says of itself, and everything that was compared."""

    path: Path
    description: ModuleDescription
    report: VerificationReport

    def verdict(self) -> list[str]:
        """What was compared, on which inputs, and how well it agreed, as lines of text."""
        made = self.description
        return [
            f"{made.source}: {made.parameters:,} parameters",
            *report_lines(self.report),
            f"graph: {made.exporter}, opset {made.opset}; lowering: {made.lowering}; "
            f"passes: {', '.join(made.passes) or 'none'}",
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
        Left as it is: a copy is converted, in evaluation mode, on the CPU. It gives a tensor, or a tuple, list or
        dictionary of tensors.
    inputs
        In the order of the arguments of its `forward`, after which they are named.
    out
        File to write; it appears complete and verified, or not at all. ``<stem>.verification.json`` and ``.txt``
        appear beside it, or ``<stem>.refused.json`` and ``.txt`` if verification fails.
    source
        Where the module came from, in words.

    Raises
    ------
    InputError
        If the module does not run on such inputs, or cannot be converted; a layer that cannot be lowered is named
        with the reason.
    VerificationError
        If a check fails; nothing is written.
    """
    out, options = Path(out), options or ModuleOptions()
    if out.suffix != ".onnx":
        raise InputError(f"{out}: expected a name that ends in .onnx")
    native, notes = at_full_precision(module)
    native.cpu().requires_grad_(False)
    trials = module_trials([given.real_shape for given in inputs], options.seed)
    example = [torch.from_numpy(array) for array in trials[0].batch(0, options.batch or 2)]
    given = [
        torch.view_as_complex(array) if one.complex_values else array
        for one, array in zip(inputs, example, strict=True)
    ]
    in_names = input_names(native, len(inputs))
    out_names, complex_outputs = output_names(native, given, in_names)

    lowering = lower_spectral(native, *given)
    is_plain = out_names == [OUTPUT] and not any(one.complex_values for one in inputs) and not complex_outputs
    # A face would stand in front of every name in the graph.
    shown = lowering.module if is_plain else RealFace(lowering.module, inputs).eval()
    converted = convert_lowered(
        Lowering(shown, lowering.layers, notes),
        *example,
        opset=options.opset,
        inputs=in_names,
        outputs=out_names,
        batch=options.batch,
    )
    cleaned = clean(converted.model)
    data = cleaned.model.SerializeToString(deterministic=True)
    check_graph(data, inputs=in_names, outputs=out_names, batch=options.batch)
    for target in options.require:
        require(cleaned.model, target)
    face = RealFace(native, inputs).eval()
    report = _verify(out.stem, face, cleaned.model, out_names, trials, options)
    if report.refusals:
        report.raise_on_refusal(f"; all figures are in {write_refusal(report, out)}")
    description = ModuleDescription(
        source=source,
        complex_values=[
            *(name for name, given in zip(in_names, inputs, strict=True) if given.complex_values),
            *complex_outputs,
        ],
        parameters=sum(parameter.numel() for parameter in native.parameters()),
        exporter=converted.exporter,
        opset=options.opset,
        lowering=converted.lowering_text(),
        passes=cleaned.passes,
        operators_before=dict(sorted(operators(converted.model).items())),
        versions=_versions(),
        parity=parity_of(report),
    )
    description = _publish(cleaned.model, description, out)
    write_report(report, out)
    return ModuleResult(out, description, report)


def _verify(
    label: str,
    face: RealFace,
    model: onnx.ModelProto,
    outputs: Sequence[str],
    trials: Sequence[Trial],
    options: ModuleOptions,
) -> VerificationReport:
    """Compare each output by itself, since they may differ in size."""
    reports = []
    for index, name in enumerate(outputs):
        data = _with_output(model, name)
        report = verify(
            label,
            {engine: partial(load, data) for engine, load in installed_engines().items()},
            _native(face, index),
            trials,
            tolerance=options.tolerance,
            batches=BATCHES if options.batch is None else (options.batch,),
            locate=locate(data, partial(_layers, face), options.tolerance),
        )
        if len(outputs) > 1:
            named = [case.model_copy(update={"output": name}) for case in report.cases]
            report = report.model_copy(update={"cases": named})
        reports.append(report)
    differences = [report.first_difference for report in reports if report.first_difference]
    return reports[0].model_copy(
        update={
            "cases": [case for report in reports for case in report.cases],
            "first_difference": differences[0] if differences else None,
        }
    )


def _native(face: RealFace, index: int) -> Callable[..., NDArray]:
    def predict(*inputs: NDArray) -> NDArray:
        with torch.inference_mode():
            return face(*map(torch.from_numpy, inputs))[index].numpy()

    return predict


def _layers(face: RealFace, *inputs: NDArray) -> list[LayerOutput]:
    # What the face adds to the names of layers is nothing that its author knows.
    return [
        LayerOutput(layer.name.removeprefix("module."), layer.output, layer.after)
        for layer in layer_outputs(face, *map(torch.from_numpy, inputs))
    ]


def _with_output(model: onnx.ModelProto, name: str) -> bytes:
    """The graph with one of its outputs only."""
    chosen = copy.deepcopy(model)
    kept = [value for value in model.graph.output if value.name == name]
    del chosen.graph.output[:]
    chosen.graph.output.extend(kept)
    return chosen.SerializeToString(deterministic=True)


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _publish(model: onnx.ModelProto, description: ModuleDescription, out: Path) -> ModuleDescription:
    """Write `out`, with the hash of the graph and a reference pair; the very bytes are read back and run."""
    rule, inputs = module_input(model)
    engine = open_onnxruntime(model.SerializeToString(deterministic=True))
    description = description.model_copy(
        update={"graph_sha256": graph_sha256(model), "reference": reference_pair(engine, rule, *inputs)}
    )
    onnx.helper.set_model_props(model, {MODULE_KEY: description.model_dump_json()})
    with atomic_path(out) as partial_path:
        partial_path.write_bytes(model.SerializeToString(deterministic=True))
        data = partial_path.read_bytes()
        if graph_sha256(onnx.load_from_string(data)) != description.graph_sha256:
            raise VerificationError("the file does not hold the graph that was verified")
        if reference_pair(open_onnxruntime(data), rule, *inputs) != description.reference:
            raise VerificationError(
                "the file does not give the output that the graph gave before it was written"
            )
    return description
