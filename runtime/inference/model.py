"""A network that can be run, wherever it runs: what `reconstruct` and `evaluate` know of it, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.latency import RequestStatistics
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import group_offsets

__all__ = ["DEFAULT_BATCH", "Network", "check_inputs", "check_scan", "network_inputs", "transmission"]

DEFAULT_BATCH = 16


class Network(Protocol):
    """`session.Session` in this process, `remote.RemoteSession` on a server."""

    @property
    def contract(self) -> Contract:
        """What the network takes and gives."""

    @property
    def name(self) -> str:
        """What messages and reports call it: the name of a file, or a URL."""

    @property
    def source(self) -> str:
        """Where it comes from, in full: the path of a file, or a URL."""

    @property
    def provider(self) -> str:
        """What runs it: an execution provider of onnxruntime, or a server."""

    @property
    def requests(self) -> RequestStatistics | None:
        """Of the last call of `batches`; None where nothing was sent to a server."""

    def check_scan(self, scan: Scan) -> None:
        """Refuse a scan that does not fit the contract."""

    def predict(self, *inputs: NDArray) -> NDArray[np.complex64]:
        """Patches complex64 [batch, C, N, N] of the inputs in the contract: patterns [batch, C, N, N] and perhaps
        offsets [batch, C, 2]. Safe to call from any thread.
        """

    def batches(
        self, scan: Scan, groups: NDArray[np.intp], batch: int = DEFAULT_BATCH
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.complex64]]]:
        """Yield (indices [m, C], patches complex64 [m, C, N, N]) for all groups [n, C], in their order.

        The arrays are the caller's: the network does not write to them again.
        """

    def close(self) -> None:
        """Give back what the network holds."""


def check_scan(contract: Contract, name: str, scan: Scan) -> None:
    """Refuse a scan that does not fit the contract of the network called `name`.

    Raises
    ------
    InputError
        On another N, too few patterns for the gridsize, or a contract this version cannot honour.
    """
    if scan.size != contract.n:
        raise InputError(
            f"{scan.name}: patterns are {scan.size} x {scan.size} pixels, {name} takes {contract.n} x {contract.n}"
        )
    if len(scan) < contract.channels:
        raise InputError(
            f"{scan.name}: {len(scan)} patterns, {name} has gridsize {contract.gridsize} and "
            f"needs at least {contract.channels}"
        )
    if contract.output.quantity != "object" or contract.output.representation != "real_imag":
        raise InputError(
            f"{name}: gives {contract.output.quantity} as {contract.output.representation}, "
            "this version reconstructs from object patches as real_imag"
        )


def check_inputs(contract: Contract, name: str, inputs: Sequence[NDArray]) -> None:
    """Refuse arrays that the network called `name` does not take: those of `Contract.inputs`, of one batch.

    Raises
    ------
    InputError
        On another number, shape or data type: amplitudes and counts are never converted in silence.
    """
    expected = contract.inputs
    if len(inputs) != len(expected):
        names = " and ".join(each.name for each in expected)
        raise InputError(f"{name}: got {len(inputs)} array{'s' * (len(inputs) != 1)}, expected {names}")
    for tensor, given in zip(expected, inputs, strict=True):
        if given.dtype != np.dtype(tensor.dtype):
            what = contract.input.domain if tensor.name == contract.input.name else tensor.name
            raise InputError(f"{name}: takes {what} as {tensor.dtype}, got {given.dtype}")
        if given.shape != (len(inputs[0]), *tensor.shape):
            batch = "batch" if tensor.name == contract.input.name else len(inputs[0])
            raise InputError(
                f"{name}: got an array of shape {given.shape}, expected [{batch}, {', '.join(map(str, tensor.shape))}]"
            )


def network_inputs(
    contract: Contract, name: str, scan: Scan, index: NDArray[np.intp]
) -> tuple[NDArray[np.float32] | NDArray[np.uint16], ...]:
    """What the network called `name` takes of a scan.

    Parameters
    ----------
    index
        [m, C], patterns of each group.

    Returns
    -------
    Patterns [m, C, N, N]: float32 amplitudes, or uint16 counts if the contract's domain is ``counts``; and offsets
    float32 [m, C, 2] if it takes them.

    Raises
    ------
    InputError
        If a count does not fit the contract's type.
    """
    patterns = _patterns(contract, name, scan, index)
    return (patterns,) if contract.offsets is None else (patterns, group_offsets(scan.positions, index))


def _patterns(
    contract: Contract, name: str, scan: Scan, index: NDArray[np.intp]
) -> NDArray[np.float32] | NDArray[np.uint16]:
    amplitude = scan.diffraction[index]
    if contract.input.domain != "counts":
        return amplitude
    counts = np.rint(np.square(amplitude, dtype=np.float64))
    largest = np.iinfo(np.uint16).max
    if counts.max() > largest:
        raise InputError(
            f"{scan.name}: a pixel holds {counts.max():.0f} counts, {name} takes uint16, at most {largest}"
        )
    return counts.astype(np.uint16)


def transmission(parts: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Real and imaginary parts [m, N, N, C, 2], as a graph gives them, to complex64 [m, C, N, N]; nothing is copied."""
    return np.moveaxis(np.ascontiguousarray(parts).view(np.complex64)[..., 0], -1, 1)
