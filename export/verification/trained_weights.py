"""Proof that a graph holds the weights of a checkpoint, and that those were trained."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.runtime.contract import WeightsProof
from ptychonnx.runtime.errors import VerificationError
from ptychonnx.train.run import RunRecord, fingerprint, hash_of

__all__ = ["MIN_DISTANCE", "count_found", "prove_weights"]

# The initial weights must give an output that differs by so many times the tolerance of parity.
MIN_DISTANCE = 3


def prove_weights(
    record: RunRecord,
    tensors: Mapping[str, NDArray],
    model: onnx.ModelProto,
    initial_distance: float,
    tolerance: float,
) -> WeightsProof:
    """Four independent signs that the trained weights were exported.

    Parameters
    ----------
    tensors
        Trainable tensors of the network as loaded from the checkpoint.
    model
        The graph to be published.
    initial_distance
        Largest difference of the graph's output from that of the network with its initial weights, over the
        largest output.
    tolerance
        Of parity.

    Raises
    ------
    VerificationError
        If the checkpoint is not what training left; if training changed no tensor; if no tensor of the
        checkpoint stands in the graph; or if the initial weights give the same output.
    """
    found = fingerprint(tensors)
    strange = sorted(
        name
        for name in {*found, *record.trained_tensors}
        if found.get(name) != record.trained_tensors.get(name)
    )
    if strange:
        raise VerificationError(
            f"weights: {len(strange)} of {len(found)} tensors of the checkpoint are not those that training "
            f"left, {strange[0]} first"
        )
    changed = sum(value != record.initial_tensors.get(name) for name, value in found.items())
    if not changed:
        raise VerificationError(f"weights: none of {len(found)} trainable tensors was changed by training")
    present = count_found(tensors, model)
    if not present:
        raise VerificationError(
            f"weights: none of {len(found)} tensors of the checkpoint stands in the graph"
        )
    if not initial_distance > MIN_DISTANCE * tolerance:
        raise VerificationError(
            f"weights: with its initial weights the network gives the same output (relative difference "
            f"{initial_distance:.1e}, expected more than {MIN_DISTANCE * tolerance:.0e})"
        )
    return WeightsProof(
        checkpoint_sha256=hash_of(found),
        initial_sha256=hash_of(record.initial_tensors),
        changed_tensors=changed,
        trainable_tensors=len(found),
        found_bit_for_bit=present,
        initial_output_distance=initial_distance,
    )


def count_found(tensors: Mapping[str, NDArray], model: onnx.ModelProto) -> int:
    """Tensors whose values are those of an initialiser of the graph, whatever their order and shape.

    A complex tensor is looked for in its real form, which holds the real part twice and the imaginary part
    with both signs. A tensor of one single value, such as a bias that is still zero, proves nothing and is
    not counted.
    """
    held = Counter(
        _values(onnx.numpy_helper.to_array(tensor))
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    )
    return sum(
        _values(_real_form(value)) in held for value in tensors.values() if np.ptp(_real_form(value)) > 0
    )


def _real_form(tensor: NDArray) -> NDArray:
    if not np.iscomplexobj(tensor):
        return tensor
    real, imaginary = tensor.real.ravel(), tensor.imag.ravel()
    return np.concatenate([real, real, imaginary, -imaginary])


def _values(tensor: NDArray) -> str:
    # Adding zero makes -0.0 and 0.0, which sort alike, the same bits.
    return hashlib.sha256((np.sort(tensor, axis=None) + 0.0).tobytes()).hexdigest()
