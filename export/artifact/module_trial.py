"""Inputs on which a module is verified, by forward passes of the module itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ptychonnx.export.artifact.export_options import ModuleOptions
from ptychonnx.export.lowering.trial_inputs import module_inputs, positive_inputs
from ptychonnx.export.verification.inputs import VerificationInputs
from ptychonnx.runtime.errors import InputError, first_line

if TYPE_CHECKING:
    from ptychonnx.export.artifact.export_module import NativeModule

__all__ = ["inputs_to_verify"]


def inputs_to_verify(
    native: NativeModule, options: ModuleOptions
) -> tuple[list[VerificationInputs], list[str]]:
    """Kinds of input, the first of which yields finite outputs, and remarks on those that do not, and on the batch.

    Raises InputError if the module fails on all kinds, or in a batch of one, or returns no numbers.
    """
    described = list(native.inputs.values())
    kinds = module_inputs(described, options.seed)
    batch = options.batch or 2
    outputs: dict[str, list[NDArray]] = {}
    remarks = []
    for kind in list(kinds):
        try:
            outputs[kind.kind] = native.predict(*kind.batch(0, batch))
        except Exception as error:  # the module may raise anything
            if kind is kinds[0]:
                raise InputError(
                    f"the module fails on {kind.kind} inputs: {first_line(error)}; expected example inputs that it "
                    "takes, see --example"
                ) from error
            kinds.remove(kind)
            remarks.append(f"not verified on {kind.kind} inputs, on which it fails: {first_line(error)}")
    finite = {kind: _finite_share(values) for kind, values in outputs.items()}
    if finite[kinds[0].kind] < 0.9:
        positive = positive_inputs(described, options.seed)
        outputs = {positive.kind: native.predict(*positive.batch(0, batch)), **outputs}
        finite = {positive.kind: _finite_share(outputs[positive.kind]), **finite}
        if finite[positive.kind] < 0.5:
            raise InputError(
                "the module returns mostly NaN or infinity, for random and for positive inputs, so that nothing can be "
                "compared; expected example inputs for which it returns numbers, see --example"
            )
        kinds.insert(0, positive)
    if without := [kind for kind, share in finite.items() if share < 1]:
        remarks.append(
            f"returns NaN or infinity for {', '.join(without)} inputs, in the framework as in the file"
        )
    if options.batch is None and _depends_on_batch(native, kinds[0]):
        remarks.append("every output depends on the whole batch: the framework and the file mix its elements")
    if _are_equal([*outputs.values()]):
        remarks.append(
            "every output is the same for all inputs that were tried, so that they prove little: does it hold its "
            "trained weights (--weights)?"
        )
    for name, one in native.inputs.items():
        if one.is_integer and one.bounds is not None:
            remarks.append(f"{name} was verified with integers from {one.bounds[0]} to {one.bounds[1]}")
    return kinds, remarks


def _are_equal(tried: Sequence[Sequence[NDArray]]) -> bool:
    """Whether the outputs are the same for every kind of input."""
    first, *others = tried
    return bool(others) and all(
        np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")
        for outputs in others
        for one, other in zip(first, outputs, strict=True)
    )


def _finite_share(outputs: Sequence[NDArray]) -> float:
    """Finite share of the output that has most NaN and infinity."""
    return min(float(np.isfinite(output).mean()) if output.size else 1.0 for output in outputs)


def _depends_on_batch(native: NativeModule, kind: VerificationInputs) -> bool:
    """Whether an element has other outputs alone than in a batch.

    Raises InputError if the module does not run in a batch of one.
    """
    inputs = kind.batch(0, 2)
    first = [
        values if one.shared else values[:1]
        for one, values in zip(native.inputs.values(), inputs, strict=True)
    ]
    try:
        alone = native.predict(*first)
    except Exception as error:  # the module may raise anything
        raise InputError(
            f"the module does not run in a batch of one: {first_line(error)}; "
            "--batch N exports it for batches of N alone"
        ) from error
    pairs = zip(native.outputs, alone, native.predict(*inputs), strict=True)
    return any(output.batched and not _close(one, both[:1]) for output, one, both in pairs)


def _close(one: NDArray, other: NDArray) -> bool:
    if one.shape != other.shape:
        return False
    largest = np.abs(other[np.isfinite(other)].astype(np.float64)).max(initial=0)
    return np.allclose(one, other, rtol=0, atol=1e-3 * float(largest), equal_nan=True)
