"""Client for a remote model; same interface as `Session`."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError, ServerError
from ptychonnx.runtime.inference.predictor import DEFAULT_BATCH, Batches, Beam, Predictor, complex_patches
from ptychonnx.runtime.inference.remote.address import Address
from ptychonnx.runtime.inference.remote.authentication import Credentials
from ptychonnx.runtime.inference.remote.compatibility import agreed_contract, check_metadata
from ptychonnx.runtime.inference.remote.connection import (
    Connection,
    ModelConfig,
    ModelMetadata,
    RequestFailure,
    connect,
)
from ptychonnx.runtime.inference.remote.retry import retry
from ptychonnx.runtime.inference.request_statistics import RequestLog, RequestStatistics
from ptychonnx.runtime.scan import Scan

__all__ = ["RemoteSession"]


class RemoteSession(Predictor):
    """A model on an inference server: predicts patches of the object from diffraction patterns.

    Requests are pipelined: some are in flight while the patches of earlier ones are stitched. Patches are yielded in
    the order of the groups, in whatever order the answers arrive.

    * `contract`: description of inputs and outputs, from the server or from an artifact.
    * `address`: URL of the model.
    """

    def __init__(
        self,
        url: str,
        *,
        credentials: Credentials | None = None,
        artifact: str | Path | None = None,
        in_flight: int = 4,
        timeout: float = 30.0,
        patience: float = 60.0,
    ) -> None:
        """Connect, and compare the server's description of the model with its contract, without retries.

        Raises InputError if an argument is invalid, or neither the server nor `artifact` provides a contract. Raises
        ServerError if the server is unreachable or not ready, does not have the model or the version, or contradicts
        the contract.

        * `url`: ``scheme://host:port/model[/version]``, see `Address.parse`.
        * `credentials`: certificates and token.
        * `artifact`: ONNX file whose contract is used if the server publishes none.
        * `in_flight`: largest number of simultaneous requests.
        * `timeout`: seconds within which each attempt must be answered.
        * `patience`: seconds during which a failed request is repeated if its cause may be transient: no connection or
          a broken one, or a server that is busy, starting, or too slow.
        """
        self.address = Address.parse(url)
        if in_flight < 1 or timeout <= 0 or patience < 0:
            raise InputError(
                f"{self.address}: in flight {in_flight}, time-out {timeout:g} s, patience {patience:g} s, expected at "
                "least 1, more than 0 and at least 0"
            )
        credentials = credentials or Credentials()
        credentials.check(self.address)
        self._in_flight, self._patience = in_flight, patience
        self._log = RequestLog(in_flight)
        self._stopped = threading.Event()
        self._connection = connect(self.address, credentials, timeout)
        try:
            metadata, config = _describe(self._connection, self.address)
            local = None if artifact is None else Path(artifact)
            self.contract = agreed_contract(config.contract, local, self.name)
            self._largest = check_metadata(self.contract, metadata, config, self.name)
        except BaseException:
            self._connection.close()
            raise
        self._platform = metadata.platform
        self._workers = ThreadPoolExecutor(in_flight, thread_name_prefix="ptychonnx-remote")

    @property
    def name(self) -> str:
        """URL of the model."""
        return str(self.address)

    @property
    def provider(self) -> str:
        """URL, with the engine that the server reports."""
        return f"{self.address} ({self._platform})" if self._platform else str(self.address)

    @property
    def requests(self) -> RequestStatistics | None:
        """Latencies during the last call of `batches`; None before its first answer."""
        return self._log.statistics()

    def predict(self, *inputs: NDArray) -> NDArray[np.complex64]:
        """Predict the patches of one batch, see `Predictor.predict`."""
        self._check_inputs(inputs)
        count = len(inputs[0])
        size = self.contract.batch or self._largest or max(1, count)
        patches = np.empty(inputs[0].shape, np.complex64)
        try:
            for start in range(0, count, size):
                parts = [array[start : start + size] for array in inputs]
                patches[start : start + size] = self._request(parts, RequestLog(1), self._stopped)
        except RequestFailure as failure:
            raise ServerError(f"{self.address}: {failure}") from failure
        return patches

    def batches(
        self, scan: Scan, groups: NDArray[np.intp], batch: int = DEFAULT_BATCH, beam: Beam | None = None
    ) -> Batches:
        """Predict the patches of a scan, see `Predictor.batches`.

        Each batch is one request; batches are smaller than `batch` if the model limits them.
        """
        if batch < 1:
            raise InputError(f"batch is {batch}, expected at least 1")
        size = self.contract.batch or min(batch, self._largest or batch)
        log = self._log = RequestLog(self._in_flight)
        stopped = self._stopped = threading.Event()
        pending: deque[tuple[NDArray[np.intp], Future[NDArray[np.complex64]]]] = deque()
        done = 0

        def oldest() -> tuple[NDArray[np.intp], NDArray[np.complex64]]:
            nonlocal done
            index, answer = pending.popleft()
            patches = answer.result()
            done += len(index)
            return index, patches

        try:
            for start in range(0, len(groups), size):
                index = groups[start : start + size]
                inputs = self.inputs(scan, index)
                pending.append((index, self._workers.submit(self._request, inputs, log, stopped)))
                # One more than in flight, so that no worker idles while the caller uses the oldest patches.
                if len(pending) > self._in_flight:
                    yield oldest()
            while pending:
                yield oldest()
        except RequestFailure as failure:
            raise ServerError(
                f"{self.address}: {failure}; {done} of {len(groups)} groups of {scan.name} were answered"
            ) from failure
        finally:
            stopped.set()
            for _, answer in pending:
                answer.cancel()

    def close(self) -> None:
        """Wait for requests in flight, at most for the time-out, and close the connection."""
        # An interrupted run may not have set it yet.
        self._stopped.set()
        self._workers.shutdown(cancel_futures=True)
        self._connection.close()

    def _request(
        self, inputs: Sequence[NDArray], log: RequestLog, stopped: threading.Event
    ) -> NDArray[np.complex64]:
        """Send one batch, with retries, and return its patches complex64 [m, C, N, N]. Runs in a worker."""
        contract = self.contract
        count = len(inputs[0])
        if contract.batch is not None:
            # A short batch is padded with its last group, whose output is dropped.
            inputs = [array.take(range(contract.batch), axis=0, mode="clip") for array in inputs]
        names = (tensor.name for tensor in contract.inputs)
        values = dict(zip(names, map(np.ascontiguousarray, inputs), strict=True))
        expected = (len(inputs[0]), contract.n, contract.n, contract.channels, 2)
        sent = time.perf_counter()
        output, version = retry(
            lambda: self._connection.infer(values, contract.output.name, 4 * math.prod(expected)),
            self._patience,
            stopped,
            log.repeated,
        )
        if output.shape != expected or output.dtype != np.float32:
            raise RequestFailure(
                "refused",
                f"answered with {output.dtype} {list(output.shape)}, expected float32 {list(expected)}",
            )
        log.answered(sent, count, version)
        return complex_patches(output[:count])


def _describe(connection: Connection, address: Address) -> tuple[ModelMetadata, ModelConfig]:
    """The server's description of the model, or a `ServerError` that says why there is none."""
    try:
        if connection.model_ready():
            return connection.metadata(address.version), _config(connection)
    except RequestFailure as failure:
        raise _explained(failure, address) from failure
    try:
        versions = connection.metadata("").versions
    except RequestFailure as failure:
        if failure.kind in {"missing", "refused"}:
            raise ServerError(
                f"{address}: the server has no model {address.model!r} that is ready ({failure})"
            ) from failure
        raise _explained(failure, address) from failure
    if address.version and address.version not in versions:
        raise ServerError(
            f"{address}: the server has no version {address.version!r} of {address.model!r}, it has "
            f"{', '.join(versions) or 'none'}"
        )
    raise ServerError(f"{address}: the model is not ready")


def _config(connection: Connection) -> ModelConfig:
    """Triton's configuration of the model; without content on other servers."""
    try:
        return connection.config()
    except RequestFailure as failure:
        if failure.kind in {"missing", "refused"}:
            return ModelConfig()
        raise


def _explained(failure: RequestFailure, address: Address) -> ServerError:
    texts = {
        "unreachable": "no server answers",
        "timeout": "the server does not answer in time",
        "unavailable": "the server is not ready",
        "forbidden": "the server requires a token, or rejects this one",
        "untrusted": "the certificate of the server is not trusted, --tls-ca selects another authority",
    }
    return ServerError(f"{address}: {texts.get(failure.kind, 'the server refuses')} ({failure})")
