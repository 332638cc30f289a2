"""Proof that a graph holds the weights of a checkpoint, and that they were trained."""

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

# With the initial weights, the output must differ by at least this many times the tolerance of parity.
MIN_DISTANCE = 3


def prove_weights(
    record: RunRecord,
    tensors: Mapping[str, NDArray],
    model: onnx.ModelProto,
    initial_distance: float,
    tolerance: float,
) -> WeightsProof:
    """Check in four independent ways that the trained weights were exported.

    Raises VerificationError if the checkpoint is not the one that training wrote; if training changed no tensor; if no
    tensor of the checkpoint is in the graph; or if the output is the same with the initial weights.

    `tensors` are the trainable ones as loaded from the checkpoint. `initial_distance` is the largest difference between
    the outputs of the graph and of the network with its initial weights, divided by the largest output; `tolerance` is
    that of parity.
    """
    hashes = fingerprint(tensors)
    foreign = sorted(
        name
        for name in {*hashes, *record.trained_tensors}
        if hashes.get(name) != record.trained_tensors.get(name)
    )
    if foreign:
        raise VerificationError(
            f"weights: {len(foreign)} of {len(hashes)} tensors of the checkpoint are not those that training "
            f"wrote, {foreign[0]} first"
        )
    changed = sum(value != record.initial_tensors.get(name) for name, value in hashes.items())
    if not changed:
        raise VerificationError(f"weights: none of {len(hashes)} trainable tensors was changed by training")
    present = count_found(tensors, model)
    if not present:
        raise VerificationError(f"weights: none of {len(hashes)} tensors of the checkpoint is in the graph")
    if not initial_distance > MIN_DISTANCE * tolerance:
        raise VerificationError(
            f"weights: with its initial weights the network returns the same output (relative difference "
            f"{initial_distance:.1e}, expected more than {MIN_DISTANCE * tolerance:.0e})"
        )
    return WeightsProof(
        checkpoint_sha256=hash_of(hashes),
        initial_sha256=hash_of(record.initial_tensors),
        changed_tensors=changed,
        trainable_tensors=len(hashes),
        found_bit_for_bit=present,
        initial_output_distance=initial_distance,
    )


def count_found(tensors: Mapping[str, NDArray], model: onnx.ModelProto) -> int:
    """Number of tensors whose values are those of an initialiser of the graph, in any order and shape.

    A complex tensor is searched in its real form, which holds the real part twice and the imaginary part
    with both signs. A tensor with a single value, such as a bias of zeros, is not counted because it proves nothing.
    """
    initialisers = Counter(
        _values(onnx.numpy_helper.to_array(tensor))
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    )
    return sum(
        _values(_real_form(value)) in initialisers
        for value in tensors.values()
        if np.ptp(_real_form(value)) > 0
    )


def _real_form(tensor: NDArray) -> NDArray:
    if not np.iscomplexobj(tensor):
        return tensor
    real, imaginary = tensor.real.ravel(), tensor.imag.ravel()
    return np.concatenate([real, real, imaginary, -imaginary])


def _values(tensor: NDArray) -> str:
    # Adding zero gives -0.0 and 0.0, which are equal in sorting, the same bits.
    return hashlib.sha256((np.sort(tensor, axis=None) + 0.0).tobytes()).hexdigest()
