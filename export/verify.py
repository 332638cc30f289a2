"""Verification of an artifact's bytes against the native network, before the file gets its name."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from export.conversion import INPUT_NAME, OUTPUT_NAME
from runtime.contract import Parity, ReferencePair
from runtime.errors import VerificationError

__all__ = [
    "BATCHES",
    "TOLERANCE",
    "Comparison",
    "Worst",
    "check_graph",
    "compare",
    "open_engine",
    "operators",
    "reference_pair",
    "relative_difference",
]

TOLERANCE = 1e-4
BATCHES = (1, 3, 16)
# No GPU provider has them, and the inverse is silently wrong in some versions of onnxruntime.
_FORBIDDEN = {"DFT", "STFT"}
_COMPLEX = {onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128}

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Worst:
    """The element in which artifact and native network differ most.

    Attributes
    ----------
    batch
        Size of the batch it was found in.
    index
        (pattern in the batch, row, column, channel, part).
    artifact, native
        The two values.
    """

    batch: int
    index: tuple[int, ...]
    artifact: float
    native: float


@dataclass(frozen=True)
class Comparison:
    """Parity figures, and where they come from."""

    parity: Parity
    worst: Worst


def operators(model: onnx.ModelProto) -> Counter[str]:
    """Operators of a graph, counted."""
    return Counter(node.op_type for node in model.graph.node)


def check_graph(data: bytes) -> onnx.ModelProto:
    """Check what can be checked without running it.

    Raises
    ------
    VerificationError
        If the bytes are no valid ONNX model; on operators that are not standard, Fourier operators, complex
        numbers, external data or subgraphs' functions; or if input and output are not those of an artifact.
    """
    try:
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # onnx raises several types of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise VerificationError(f"graph: the ONNX checker refuses it: {reason}") from error
    strange = {
        f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in ("", "ai.onnx")
    }
    strange |= {function.name for function in model.functions}
    if strange:
        raise VerificationError(f"graph: {', '.join(sorted(strange))} are no standard ONNX operators")
    if forbidden := _FORBIDDEN & set(operators(model)):
        raise VerificationError(
            f"graph: holds {', '.join(sorted(forbidden))}, which GPU providers do not have"
        )
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    types = {tensor.data_type for tensor in model.graph.initializer}
    types |= {value.type.tensor_type.elem_type for value in values}
    if types & _COMPLEX:
        raise VerificationError("graph: holds complex numbers")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise VerificationError("graph: keeps weights in another file")
    for kind, values, name in (
        ("input", model.graph.input, INPUT_NAME),
        ("output", model.graph.output, OUTPUT_NAME),
    ):
        if [value.name for value in values] != [name]:
            raise VerificationError(
                f"graph: {kind}s are {[value.name for value in values]}, expected [{name!r}]"
            )
        if not values[0].type.tensor_type.shape.dim[0].dim_param:
            raise VerificationError(f"graph: the batch of {kind} {name!r} is fixed")
    return model


def open_engine(data: bytes) -> Predict:
    """Load an artifact in onnxruntime on the CPU.

    Raises
    ------
    VerificationError
        If it cannot be loaded.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen types of its own
        raise VerificationError(f"graph: onnxruntime refuses it: {str(error).splitlines()[0]}") from error

    def predict(diffraction: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            (output,) = session.run([OUTPUT_NAME], {INPUT_NAME: np.ascontiguousarray(diffraction)})
        except Exception as error:  # as above
            reason = str(error).splitlines()[0]
            raise VerificationError(
                f"graph: does not run on a batch of {len(diffraction)}: {reason}"
            ) from error
        return output

    return predict


def relative_difference(found: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Largest difference over the largest magnitude of `expected`; infinite if that is 0 or not finite."""
    scale = float(np.abs(expected).max())
    if not (np.isfinite(scale) and scale > 0):
        return float("inf")
    return float(np.abs(found - expected).max()) / scale


def compare(
    artifact: Predict,
    native: Predict,
    diffraction: NDArray[np.float32],
    *,
    tolerance: float = TOLERANCE,
    batches: Sequence[int] = BATCHES,
    patterns: str = "held-out patterns",
) -> Comparison:
    """Outputs of the artifact against those of the native network.

    Parameters
    ----------
    diffraction
        float32 [n, C, N, N], inputs; each batch takes the next ones, from the start again after the last.
    tolerance
        On the largest difference over the largest native output.
    patterns
        What the inputs are, for the contract.

    Raises
    ------
    VerificationError
        If the shapes differ, or the error exceeds the tolerance; the message holds the figures and the worst
        element.
    """
    largest, total, power, error, start = 0.0, 0.0, 0.0, -1.0, 0
    worst: Worst | None = None
    for batch in batches:
        inputs = diffraction.take(range(start, start + batch), axis=0, mode="wrap")
        start += batch
        found, expected = artifact(inputs), native(inputs)
        if found.shape != expected.shape:
            raise VerificationError(
                f"parity: the artifact gives {found.shape}, the native network {expected.shape}"
            )
        with np.errstate(invalid="ignore"):
            difference = np.abs(found.astype(np.float64) - expected)
        # NaN on either side is the worst difference there is.
        difference = np.where(np.isfinite(difference), difference, np.inf)
        index = np.unravel_index(int(difference.argmax()), difference.shape)
        if difference[index] > error:
            error = float(difference[index])
            position = tuple(int(axis) for axis in index)
            worst = Worst(batch, position, float(found[index]), float(expected[index]))
        largest = max(largest, float(np.abs(expected[np.isfinite(expected)]).max(initial=0)))
        total += float(np.square(difference).sum())
        power += float(np.square(expected, dtype=np.float64).sum())
    assert worst is not None
    relative = error / largest if largest > 0 else float("inf")
    if not relative <= tolerance:
        raise VerificationError(
            f"parity: relative error {relative:.2e} exceeds {tolerance:.0e}; worst element {worst.index} "
            f"of a batch of {worst.batch}: artifact {worst.artifact:.6g}, native {worst.native:.6g}, "
            f"largest output {largest:.4g}"
        )
    parity = Parity(
        max_relative_error=relative,
        rms_relative_error=float(np.sqrt(total / power)),
        tolerance=tolerance,
        batches=list(batches),
        patterns=patterns,
        engine=f"onnxruntime {ort.__version__} CPUExecutionProvider",
    )
    return Comparison(parity, worst)


def reference_pair(artifact: Predict, channels: int, n: int, flux: float) -> ReferencePair:
    """Run an input that anyone can make again, and keep the hashes.

    The legacy generator of NumPy is used since its numbers never change. The hash of the output may differ on
    another processor; its root mean square then still tells.
    """
    mean = round(flux / n**2, 6)
    shape = (2, channels, n, n)
    counts = np.random.RandomState(0).poisson(mean, shape)
    diffraction = np.sqrt(counts).astype(np.float32)
    output = artifact(diffraction)
    return ReferencePair(
        rule=f"float32 square root of numpy.random.RandomState(0).poisson({mean}, {shape})",
        input_sha256=hashlib.sha256(diffraction.tobytes()).hexdigest(),
        output_sha256=hashlib.sha256(np.ascontiguousarray(output).tobytes()).hexdigest(),
        output_rms=float(np.sqrt(np.mean(np.square(output, dtype=np.float64)))),
    )
