"""Reference pairs: a seeded input that anyone can generate again, and hashes of the output that it had at export."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.runtime.contract import Contract, ReferencePair

__all__ = [
    "contract_reference",
    "module_reference",
    "reference_offsets",
    "reference_pair",
    "reference_patterns",
]


def contract_reference(contract: Contract) -> tuple[str, list[NDArray]]:
    """The reference inputs of an artifact, which follow from its contract alone, and the rule for them in words.

    They are patterns [batch, C, N, N] and, if the network takes them, offsets [batch, C, 2].
    """
    rule, patterns = reference_patterns(
        contract.channels, contract.n, contract.probe.flux, contract.input.dtype
    )
    inputs = [patterns]
    if contract.offsets is not None:
        offsets_rule, offsets = reference_offsets(contract.gridsize, contract.n)
        rule, inputs = f"{rule}; {offsets_rule}", [patterns, offsets]
    if contract.batch is None:
        return rule, inputs
    repeated = [array.take(range(contract.batch), axis=0, mode="wrap") for array in inputs]
    return f"{rule}, repeated to a batch of {contract.batch}", repeated


def module_reference(
    model: onnx.ModelProto, bounds: Mapping[str, tuple[int, int]] | None = None
) -> tuple[str, list[NDArray]]:
    """The reference inputs of a graph without a contract, and the rule for them in words.

    They follow from shapes and types of the graph's inputs, of size 2 along every dynamic axis: normally distributed,
    integers uniform within their bounds.
    """
    generator = np.random.RandomState(0)
    words, inputs = [], []
    for value in model.graph.input:
        shape = tuple(axis.dim_value or 2 for axis in value.type.tensor_type.shape.dim)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if dtype.kind == "f":
            inputs.append(np.asarray(generator.standard_normal(shape)).astype(dtype))
            words.append(f"{shape}" if dtype == np.float32 else f"{shape} as {dtype}")
            continue
        low, high = (bounds or {}).get(value.name, (0, 1))
        inputs.append(np.asarray(generator.randint(low, high + 1, shape)).astype(dtype))
        words.append(f"randint({low}, {high + 1}, {shape}) as {dtype}")
    shown = ", then ".join(words)
    return f"float32 of numpy.random.RandomState(0).standard_normal, {shown}", inputs


def reference_patterns(channels: int, n: int, flux: float, dtype: str = "float32") -> tuple[str, NDArray]:
    """Patterns [2, C, N, N] of a mean number of photons, and the rule by which they are generated.

    They are amplitudes for the type ``float32``, counts for ``uint16``. The legacy generator of NumPy is used because
    its numbers never change.
    """
    mean = round(flux / n**2, 6)
    shape = (2, channels, n, n)
    counts = np.random.RandomState(0).poisson(mean, shape)
    drawn = f"numpy.random.RandomState(0).poisson({mean}, {shape})"
    if dtype == "uint16":
        most = np.iinfo(np.uint16).max
        return f"uint16, at most {most}, of {drawn}", np.minimum(counts, most).astype(np.uint16)
    return f"float32 square root of {drawn}", np.sqrt(counts).astype(np.float32)


def reference_offsets(gridsize: int, n: int) -> tuple[str, NDArray[np.float32]]:
    """Offsets [2, gridsize ** 2, 2] in pixels to go with `reference_patterns`, and the rule in words."""
    step = n / 8 + 0.25
    rows, columns = np.divmod(np.arange(gridsize**2), gridsize)
    grid = np.stack([rows, columns], axis=1) * np.float32(step)
    offsets = np.stack([grid, grid / 2]).astype(np.float32)
    return f"offsets on a grid of {step:g} pixels, then of {step / 2:g}", offsets


def reference_pair(
    run: Callable[..., NDArray], rule: str, *inputs: NDArray, any_output: bool = False
) -> ReferencePair:
    """Hashes of the inputs and of the output that `run` returns for them.

    The hash of the output may differ on another processor; its root mean square still identifies the network.

    `any_output`: whether NaN and infinity are no faults: they then count as numbers above all others, so that their
    frequency enters the root mean square.
    """
    output = run(*inputs)
    input_bytes = b"".join(np.ascontiguousarray(array).tobytes() for array in inputs)
    return ReferencePair(
        rule=rule,
        input_sha256=hashlib.sha256(input_bytes).hexdigest(),
        output_sha256=hashlib.sha256(np.ascontiguousarray(output).tobytes()).hexdigest(),
        output_rms=_rms(output, any_output),
    )


def _rms(output: NDArray, any_output: bool) -> float:
    values = output.astype(np.float64)
    finite = np.isfinite(values)
    if any_output and not finite.all():
        values = np.where(finite, values, 10 * np.abs(values[finite]).max(initial=0.1))
    return float(np.sqrt(np.mean(np.square(values))))
