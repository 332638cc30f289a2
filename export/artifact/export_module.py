"""Export of a module: any torch module or Keras model becomes one verified ONNX file, without a contract."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.artifact.candidate import Candidate, VerifiedGraph, verify_candidate
from ptychonnx.export.artifact.export_options import ModuleOptions
from ptychonnx.export.artifact.half_module import half_module
from ptychonnx.export.artifact.module_description import ModuleDescription
from ptychonnx.export.artifact.module_trial import inputs_to_verify
from ptychonnx.export.artifact.publication import check_name, publish
from ptychonnx.export.graph.inspection import operators
from ptychonnx.export.graph.narrowing import has_float64, narrowed
from ptychonnx.export.lowering.converted_graph import Converted
from ptychonnx.export.lowering.module_input import ModuleInput, ModuleOutput
from ptychonnx.export.portability.wider_integers import with_wider_integers
from ptychonnx.export.verification.engines import open_onnxruntime
from ptychonnx.export.verification.inputs import VerificationInputs
from ptychonnx.export.verification.report_files import with_report
from ptychonnx.export.verification.verdict import report_lines
from ptychonnx.export.verification.verification_report import VerificationReport
from ptychonnx.runtime.errors import InputError, UnsupportedError, VerificationError
from ptychonnx.runtime.machine import installed_versions
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.train.registry import import_framework_module
from ptychonnx.train.run import LayerOutput

__all__ = [
    "ModuleInput",
    "ModuleOptions",
    "ModuleResult",
    "NativeModule",
    "export_module",
    "framework_of",
    "native_module",
]


class NativeModule(Protocol):
    """A module in its framework, with named inputs and outputs of real numbers."""

    framework: str
    packages: tuple[str, ...]
    inputs: Mapping[str, ModuleInput]
    outputs: Sequence[ModuleOutput]
    parameters: int
    notes: list[str]

    def predict(self, *inputs: NDArray) -> list[NDArray]:
        """All outputs."""
        ...

    def exact(self, *inputs: NDArray) -> list[NDArray]:
        """All outputs, computed in float64 if the module allows it."""
        ...

    def layers(self, *inputs: NDArray) -> list[LayerOutput]:
        """Outputs of all layers."""
        ...

    def convert(self, opset: int) -> Converted:
        """The graph."""
        ...


@dataclass(frozen=True)
class ModuleResult:
    """A published file, the description in it, and everything that was compared."""

    path: Path
    description: ModuleDescription
    report: VerificationReport

    def verdict(self) -> list[str]:
        """What was compared, on which inputs, and how well it agreed, as lines of text."""
        description = self.description
        return [
            f"{description.source}: {description.parameters:,} parameters",
            *(f"note: {note}" for note in description.notes),
            *report_lines(self.report),
            *([] if description.precision_error is None else [f"precision: {description.precision_text()}"]),
            f"graph: {description.exporter}, opset {description.opset}; lowering: {description.lowering}; "
            f"passes: {', '.join(description.passes) or 'none'}",
        ]


def framework_of(module: object) -> str | None:
    """``torch`` or ``tensorflow``, or None for an object that is no module."""
    # The package of each class tells, so that no framework is imported that the module does not use.
    packages = {kind.__module__.partition(".")[0] for kind in type(module).__mro__}
    bases = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__}
    if "torch.nn.modules.module.Module" in bases:
        return "torch"
    return "tensorflow" if "keras" in packages and hasattr(module, "call") else None


def export_module(
    module: Any,
    inputs: Sequence[Any],
    out: Path,
    options: ModuleOptions | None = None,
    *,
    source: str = "a module",
    keywords: Mapping[str, Any] | None = None,
    shared: Collection[str] = (),
    notes: Sequence[str] = (),
    progress: Progress = SILENT,
) -> ModuleResult:
    """Lower the Fourier layers of a module, convert it, verify it, and write `out`; see `ptychonnx.export_module`.

    `inputs` and `keywords` are arguments of its `forward`, with a `ModuleInput` in the place of each tensor. The
    verdict and the description contain the `notes`.
    """
    out, options = check_name(out), options or ModuleOptions()
    progress.stage(f"Running {source}")
    native = native_module(module, inputs, keywords, options.batch, shared)
    verification_inputs, remarks = inputs_to_verify(native, options)
    progress.stage(f"Converting {source}")
    converted, narrow = _in_types_of_onnxruntime(native.convert(options.opset))
    _check_types(converted.model, native)
    remarks += narrow
    described = partial(_description, native, source, [*notes, *native.notes, *remarks], converted, options)
    candidate = _candidate(native, converted, verification_inputs, described, options, out.stem)
    verified = verify_candidate(candidate, out, progress)
    stamp, model = candidate.stamp(verified), verified.model
    if options.precision == "fp16":
        progress.stage(f"Reducing {out.stem} to half precision")
        model, error = half_module(model, verification_inputs[0], options.precision_tolerance, options.batch)
        stamp = stamp.model_copy(update={"precision": "fp16", "precision_error": error})
    with with_report(verified.report, out):
        stamp = publish(model, stamp, out)
    return ModuleResult(out, stamp, verified.report)


def native_module(
    module: Any,
    inputs: Sequence[Any],
    keywords: Mapping[str, Any] | None = None,
    batch: int | None = None,
    shared: Collection[str] = (),
) -> NativeModule:
    """A module in its framework, ready to run and to convert; parameters as in `export_module`.

    Raises InputError if it is neither a torch module nor a Keras model, or does not run on such inputs.
    """
    framework = framework_of(module)
    if framework is None:
        raise InputError(f"got {type(module).__name__}, expected a torch.nn.Module or a keras.Model")
    adapter = import_framework_module(f"ptychonnx.export.lowering.{framework}.native_module", framework)
    kind = adapter.TorchModule if framework == "torch" else adapter.KerasModule
    native: NativeModule = kind(module, inputs, keywords, batch, shared)
    return native


def _candidate(
    native: NativeModule,
    converted: Converted,
    verification_inputs: Sequence[VerificationInputs],
    stamp: Callable[[VerifiedGraph], ModuleDescription],
    options: ModuleOptions,
    label: str,
) -> Candidate[ModuleDescription]:
    names = [output.name for output in native.outputs]
    shared = [name for name, one in native.inputs.items() if one.shared]
    return Candidate(
        label=label,
        model=converted.model,
        inputs=list(native.inputs),
        native={name: partial(_output, native.predict, index) for index, name in enumerate(names)},
        exact={name: partial(_output, native.exact, index) for index, name in enumerate(names)},
        verification_inputs=verification_inputs,
        stamp=stamp,
        layers=native.layers,
        batch=options.batch,
        tolerance=options.tolerance,
        targets=options.require,
        without_batch=[*shared, *(output.name for output in native.outputs if not output.batched)],
        any_output=True,
    )


def _output(predict: Callable[..., list[NDArray]], index: int, *inputs: NDArray) -> NDArray:
    return predict(*inputs)[index]


def _in_types_of_onnxruntime(converted: Converted) -> tuple[Converted, list[str]]:
    """The graph in wider integers, or in float32, if onnxruntime lacks operators for its types; and a remark on it."""
    if _loads(converted.model):
        return converted, []
    wider = with_wider_integers(converted.model)
    if _loads(wider) or not has_float64(wider):
        return replace(converted, model=wider), []
    remark = (
        "computes in float32 where the module computes in float64, which onnxruntime lacks for its operators"
    )
    return replace(converted, model=narrowed(wider)), [remark]


def _loads(model: onnx.ModelProto) -> bool:
    try:
        open_onnxruntime(model.SerializeToString())
    except VerificationError:
        return False
    return True


def _check_types(model: onnx.ModelProto, native: NativeModule) -> None:
    for value, output in zip(model.graph.output, native.outputs, strict=True):
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if dtype != np.dtype(output.dtype):
            raise UnsupportedError(
                f"output {output.name!r} is {dtype} in the graph and {output.dtype} in the network, expected one type"
            )


def _description(
    native: NativeModule,
    source: str,
    notes: list[str],
    converted: Converted,
    options: ModuleOptions,
    verified: VerifiedGraph,
) -> ModuleDescription:
    return ModuleDescription(
        source=source,
        framework=native.framework,
        complex_values=[
            *(name for name, one in native.inputs.items() if one.complex_values),
            *(output.name for output in native.outputs if output.complex_values),
        ],
        bounds={name: one.bounds for name, one in native.inputs.items() if one.bounds is not None},
        notes=notes,
        parameters=native.parameters,
        exporter=converted.exporter,
        opset=options.opset,
        lowering=converted.lowering_text(),
        passes=verified.passes,
        operators_before=dict(sorted(operators(converted.model).items())),
        versions=installed_versions(*native.packages),
        parity=verified.report.parity(),
    )
