"""8-bit integers: convolutions between quantisation and dequantisation nodes, calibrated on measured patterns."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from ptychonnx.export.lowering.converted_graph import captured_output
from ptychonnx.export.precision.reducible_layers import Reduction
from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import group_neighbours, group_offsets

__all__ = ["calibration_batches", "eight_bit"]

_BATCH = 8
# Matrix products stay in float32: the thin products of lowered Fourier layers become slower, and onnxruntime has no
# batched product with a scale per channel.
_LAYERS = {"Conv", "ConvTranspose", "Gemm"}
# Computed on integers if their input is quantised already, so that nothing is converted between two layers.
_BETWEEN = {"Relu", "MaxPool", "Resize"}


def eight_bit(model: onnx.ModelProto, batches: Iterable[Sequence[NDArray]]) -> Reduction:
    """Reduce convolutions to 8-bit integers with onnxruntime's static quantisation (QDQ format).

    Weights are int8, symmetric, with a scale per channel. Activations are uint8 with an offset, which suits the
    output of a ReLU or GELU; their range is that of the values in calibration.

    Weights use 7 of their 8 bits. Processors without VNNI add two products in 16 bits, where full weights overflow
    silently: the quality that was accepted on one processor would not hold on another.

    * `model`: from `with_named_nodes`; left as it is.
    * `batches`: all inputs of the graph, in batches that it takes.
    """
    constants = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    layers = tuple(
        node.name for node in model.graph.node if node.op_type in _LAYERS and node.input[1] in constants
    )
    ranges = _calibrate(model, batches) if layers else None

    def build(chosen: Collection[str]) -> onnx.ModelProto:
        return _quantise(model, ranges, chosen)

    return Reduction(layers, build, build)


class _Reader:
    """Passes batches to the calibrator of onnxruntime, which calls its only method."""

    def __init__(self, names: Sequence[str], batches: Iterable[Sequence[NDArray]]) -> None:
        self._batches = iter(batches)
        self._names = names

    def get_next(self) -> dict[str, NDArray] | None:
        batch = next(self._batches, None)
        if batch is None:
            return None
        return dict(zip(self._names, map(np.ascontiguousarray, batch), strict=True))


def _calibrate(model: onnx.ModelProto, batches: Iterable[Sequence[NDArray]]) -> object:
    """Smallest and largest value of every input and output of a layer."""
    from onnxruntime.quantization import create_calibrator

    with tempfile.TemporaryDirectory() as folder, captured_output():
        source = Path(folder) / "model.onnx"
        onnx.save(model, source)
        calibrator = create_calibrator(
            source, sorted(_LAYERS | _BETWEEN), augmented_model_path=str(Path(folder) / "augmented.onnx")
        )
        calibrator.collect_data(_Reader([value.name for value in model.graph.input], batches))
        return calibrator.compute_data()


def _quantise(model: onnx.ModelProto, ranges: object, layers: Collection[str]) -> onnx.ModelProto:
    from onnxruntime.quantization import QDQQuantizer, QuantType

    between = [node.name for node in model.graph.node if node.op_type in _BETWEEN]
    with captured_output():
        quantizer = QDQQuantizer(
            copy.deepcopy(model),
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=[*layers, *between],
            nodes_to_exclude=[],
            op_types_to_quantize=sorted(_LAYERS | _BETWEEN),
            extra_options={},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    quantised = quantizer.model.model
    quantised.producer_name, quantised.producer_version = model.producer_name, model.producer_version
    del quantised.metadata_props[:], quantised.graph.value_info[:]
    used = {node.domain for node in quantised.graph.node}
    for entry in [entry for entry in quantised.opset_import if entry.domain not in used]:
        quantised.opset_import.remove(entry)
    return quantised


def calibration_batches(contract: Contract, scan: Scan, patterns: int) -> list[tuple[NDArray, ...]]:
    """Every input of a network, for `patterns` groups evenly spread over a scan, in batches that it takes."""
    groups = group_neighbours(scan.positions, contract.gridsize)
    chosen = np.unique(np.linspace(0, len(groups) - 1, min(patterns, len(groups))).round().astype(np.intp))
    diffraction: NDArray = scan.diffraction[groups[chosen]]
    if contract.input.domain == "counts":
        counts = np.rint(np.square(diffraction, dtype=np.float64))
        diffraction = np.minimum(counts, np.iinfo(np.uint16).max).astype(np.uint16)
    inputs = [diffraction]
    if contract.offsets is not None:
        inputs.append(group_offsets(scan.positions, groups[chosen]))
    size = contract.batch or _BATCH
    return [
        # The last batch of a fixed size is filled up with the first patterns.
        tuple(array.take(range(start, start + size), axis=0, mode="wrap") for array in inputs)
        for start in range(0, len(diffraction), size)
    ]
