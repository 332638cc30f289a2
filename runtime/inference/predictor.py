"""Interface of everything that predicts patches: an artifact in this process, or a model on a server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.errors import InputError, UnsupportedError
from ptychonnx.runtime.inference.request_statistics import RequestStatistics
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.beam_arrays import check_probe_known
from ptychonnx.runtime.scan.grouping import group_offsets

__all__ = ["DEFAULT_BATCH", "NO_BEAM", "Batches", "Beam", "Predictor", "complex_patches", "object_parts"]

# Probe, mask and scale by the name of the input, see `ptychonnx.runtime.scan.beam_arrays`.
Beam = Mapping[str, NDArray[np.float32]]
NO_BEAM: Beam = MappingProxyType({})
# Indices [m, C] of patterns, and the patches [m, C, N, N] of each.
Batches = Iterator[tuple[NDArray[np.intp], NDArray[np.complex64]]]

DEFAULT_BATCH = 16


class Predictor(ABC):
    """A network that is ready to run: `Session` in this process, or `remote.RemoteSession` on a server.

    A predictor is a context manager, which closes it.

    Attributes
    ----------
    contract : Contract
        Description of the network's inputs and outputs.
    """

    contract: Contract

    @property
    @abstractmethod
    def name(self) -> str:
        """Name for messages and reports: the name of a file, or a URL."""

    @property
    def source(self) -> str:
        """Full path of the file, or URL."""
        return self.name

    @property
    @abstractmethod
    def provider(self) -> str:
        """Execution provider of onnxruntime, or server, that runs the network."""

    @property
    def requests(self) -> RequestStatistics | None:
        """Latencies during the last call of `batches`; None unless a server ran the network."""
        return None

    @abstractmethod
    def predict(self, *inputs: NDArray) -> NDArray[np.complex64]:
        """Predict the patches of one batch; may be called from any thread.

        Parameters
        ----------
        inputs
            Patterns [batch, C, N, N], float32 amplitudes, or uint16 counts if the contract's domain is ``counts``;
            then offsets float32 [batch, C, 2] if the contract has them, see
            `ptychonnx.runtime.scan.grouping.group_offsets`.

        Returns
        -------
        complex64 [batch, C, N, N]
            Transmission of the object in each window. Later runs do not overwrite it.

        Raises
        ------
        InputError
            If the number, a shape or a data type of the inputs differs from the contract. Amplitudes and counts are
            never converted into each other silently.
        DeviceError
            If the execution provider fails.
        ServerError
            If the server fails for good.
        """

    def beam(self, scan: Scan) -> Beam:
        """The beam of a scan as a general network takes it; empty for a network that holds one beam.

        Raises InputError if the beam of the scan cannot be used, see `ptychonnx.runtime.scan.beam_arrays`.
        """
        return {}

    @abstractmethod
    def batches(
        self, scan: Scan, groups: NDArray[np.intp], batch: int = DEFAULT_BATCH, beam: Beam | None = None
    ) -> Batches:
        """Predict the patches of a scan, batch by batch; the last batch may be smaller.

        Parameters
        ----------
        groups
            int [n, C], indices of the patterns of each group.
        batch
            Groups per batch.
        beam
            From `beam`, which needs patterns that can be read in any order; of this scan if None.

        Yields
        ------
        (indices [m, C], patches complex64 [m, C, N, N])
            In the order of `groups`. The arrays are the caller's: the predictor does not write to them again.

        Raises
        ------
        InputError
            If `batch` is not positive, or a count exceeds the contract's data type.
        DeviceError, ServerError
            As for `predict`.
        """

    @abstractmethod
    def close(self) -> None:
        """Release threads and connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_scan(self, scan: Scan) -> None:
        """Refuse a scan that does not fit the contract.

        Raises InputError if N differs, the scan has fewer patterns than a group, or a general network has no probe.
        Raises UnsupportedError if the network predicts anything but the object as real and imaginary part, or takes
        patterns whose direct beam is in the corner.
        """
        contract = self.contract
        if scan.size != contract.n:
            raise InputError(
                f"{scan.name}: patterns are {scan.size} x {scan.size} pixels, {self.name} takes "
                f"{contract.n} x {contract.n}"
            )
        if len(scan) < contract.channels:
            raise InputError(
                f"{scan.name}: {len(scan)} patterns, {self.name} has gridsize {contract.gridsize} and "
                f"needs at least {contract.channels}"
            )
        if contract.general:
            check_probe_known(scan)
        output = contract.output
        if output.quantity != "object" or output.representation != "real_imag":
            raise UnsupportedError(
                f"{self.name}: predicts {output.quantity} as {output.representation}, "
                "this version reconstructs from object patches as real_imag"
            )
        if contract.input.dc != "centre":
            raise UnsupportedError(
                f"{self.name}: takes patterns with the direct beam in the {contract.input.dc}, this version feeds "
                "them with it in the centre"
            )

    def inputs(self, scan: Scan, index: NDArray[np.intp]) -> tuple[NDArray, ...]:
        """Arrays for `predict` from the patterns of a scan.

        Raises InputError if a count exceeds the contract's data type.

        `index`: int [m, C], indices of the patterns of each group.

        Returns patterns [m, C, N, N], float32 amplitudes or uint16 counts; then offsets float32 [m, C, 2] in pixels if
        the contract has them.
        """
        patterns: NDArray = scan.diffraction[index]
        if self.contract.input.domain == "counts":
            patterns = self._counts(patterns, scan.name)
        if self.contract.offsets is None:
            return (patterns,)
        return patterns, group_offsets(scan.positions, index)

    def _counts(self, amplitude: NDArray[np.float32], scan: str) -> NDArray[np.uint16]:
        counts = np.rint(np.square(amplitude, dtype=np.float64))
        largest = np.iinfo(np.uint16).max
        if counts.max() > largest:
            raise InputError(
                f"{scan}: a pixel holds {counts.max():.0f} counts, {self.name} takes uint16, at most {largest}"
            )
        return counts.astype(np.uint16)

    def _check_inputs(self, inputs: Sequence[NDArray]) -> None:
        """Compare the arrays of one batch with `Contract.inputs`."""
        contract, expected = self.contract, self.contract.inputs
        if len(inputs) != len(expected):
            names = " and ".join(tensor.name for tensor in expected)
            raise InputError(
                f"{self.name}: got {len(inputs)} array{'s' * (len(inputs) != 1)}, expected {names}"
            )
        for tensor, array in zip(expected, inputs, strict=True):
            if array.dtype != np.dtype(tensor.dtype):
                content = contract.input.domain if tensor.name == contract.input.name else tensor.name
                raise InputError(f"{self.name}: takes {content} as {tensor.dtype}, got {array.dtype}")
            if array.shape != (len(inputs[0]), *tensor.shape):
                batch = "batch" if tensor.name == contract.input.name else len(inputs[0])
                raise InputError(
                    f"{self.name}: got an array of shape {array.shape}, expected [{batch}, "
                    f"{', '.join(map(str, tensor.shape))}]"
                )


def complex_patches(output: NDArray[np.float32]) -> NDArray[np.complex64]:
    """View real and imaginary parts [m, N, N, C, 2], the output of a graph, as complex64 [m, C, N, N]."""
    return np.moveaxis(np.ascontiguousarray(output).view(np.complex64)[..., 0], -1, 1)


def object_parts(patches: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Inverse of `complex_patches`: the output of the graph for patches complex64 [m, C, N, N]."""
    columns = np.ascontiguousarray(np.moveaxis(patches, 1, -1))
    return columns.view(np.float32).reshape(*columns.shape, 2)
