"""A network on a server, with the face of one in this process."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.latency import RequestLog, RequestStatistics
from ptychonnx.runtime.inference.model import (
    DEFAULT_BATCH,
    check_inputs,
    check_scan,
    network_inputs,
    transmission,
)
from ptychonnx.runtime.inference.remote.address import Address
from ptychonnx.runtime.inference.remote.authentication import Access
from ptychonnx.runtime.inference.remote.compatibility import agreed_contract, check_metadata
from ptychonnx.runtime.inference.remote.protocol import Connection, ModelConfig, ModelMetadata, connect
from ptychonnx.runtime.inference.remote.retry import persist
from ptychonnx.runtime.inference.remote.transport_errors import ServerFailure
from ptychonnx.runtime.scan import Scan

__all__ = ["RemoteSession"]


class RemoteSession:
    """A model on an inference server: a `ptychonnx.runtime.inference.model.Network`.

    Requests are pipelined: some are on their way while the patches of earlier ones are stitched. Answers are
    given in the order of the groups, however they come in.

    Attributes
    ----------
    contract
        What the network takes and gives.
    address
        Where it is served.
    """

    def __init__(
        self,
        address: Address | str,
        *,
        access: Access | None = None,
        artifact: Path | None = None,
        in_flight: int = 4,
        timeout: float = 30.0,
        patience: float = 60.0,
    ) -> None:
        """Ask the server for the model and compare it with its contract. This is tried once.

        Parameters
        ----------
        address
            As text, see `Address.parse`.
        access
            Certificates and token.
        artifact
            ONNX file whose contract holds if the server publishes none.
        in_flight
            Requests that may be on their way at the same time.
        timeout
            Seconds in which an attempt must be answered.
        patience
            Seconds in which a request that failed is sent again, as long as the reason may pass: no
            connection, a broken one, a server that is busy, starting, or too slow.

        Raises
        ------
        InputError
            If the server is missing, not ready, does not have the model or the version, publishes no
            contract or another one than the artifact, or promises other shapes than the contract.
        """
        self.address = Address.parse(address) if isinstance(address, str) else address
        if in_flight < 1 or timeout <= 0 or patience < 0:
            raise InputError(
                f"{self.address}: in flight {in_flight}, time-out {timeout:g} s, patience {patience:g} s, expected at "
                "least 1, more than 0 and at least 0"
            )
        access = access or Access()
        access.check(self.address)
        self._in_flight, self._patience = in_flight, patience
        self._log = RequestLog(in_flight)
        self._stopped = threading.Event()
        self._connection = connect(self.address, access, timeout)
        try:
            metadata, config = _found(self._connection, self.address)
            self.contract: Contract = agreed_contract(config.contract, artifact, str(self.address))
            self._largest = check_metadata(self.contract, metadata, config, str(self.address))
        except BaseException:
            self._connection.close()
            raise
        self._platform = metadata.platform
        self._workers = ThreadPoolExecutor(in_flight, thread_name_prefix="ptychonnx-remote")

    @property
    def name(self) -> str:
        """The URL."""
        return str(self.address)

    @property
    def source(self) -> str:
        """The URL."""
        return str(self.address)

    @property
    def provider(self) -> str:
        """The URL, and the engine that the server says it uses."""
        return f"{self.address} ({self._platform})" if self._platform else str(self.address)

    @property
    def requests(self) -> RequestStatistics | None:
        """How the server answered in the last call of `batches`; None before its first answer."""
        return self._log.statistics()

    def check_scan(self, scan: Scan) -> None:
        """Refuse a scan that does not fit the contract; see `ptychonnx.runtime.inference.model.check_scan`."""
        check_scan(self.contract, self.name, scan)

    def predict(self, *inputs: NDArray) -> NDArray[np.complex64]:
        """Patches of one batch, as `Session.predict`; may be called from several threads.

        Raises
        ------
        InputError
            On another number, shape or data type, or if the server fails for good.
        """
        check_inputs(self.contract, self.name, inputs)
        patterns = len(inputs[0])
        size = self.contract.batch or self._largest or max(1, patterns)
        found = np.empty(inputs[0].shape, np.complex64)
        try:
            for start in range(0, patterns, size):
                some = [each[start : start + size] for each in inputs]
                found[start : start + size] = self._answer(some, RequestLog(1), self._stopped)
        except ServerFailure as failure:
            raise InputError(f"{self.address}: {failure}") from failure
        return found

    def batches(
        self, scan: Scan, groups: NDArray[np.intp], batch: int = DEFAULT_BATCH
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.complex64]]]:
        """Run the groups of a scan, each batch in one request, or in several if the model takes no such batch.

        Yields
        ------
        (indices [m, C], patches complex64 [m, C, N, N]) in the order of the groups.

        Raises
        ------
        InputError
            If the batch is not positive, a count does not fit the contract's type, or the server fails for
            good.
        """
        if batch < 1:
            raise InputError(f"batch is {batch}, expected at least 1")
        size = self.contract.batch or min(batch, self._largest or batch)
        log = self._log = RequestLog(self._in_flight)
        stopped = self._stopped = threading.Event()
        waiting: deque[tuple[NDArray[np.intp], Future[NDArray[np.complex64]]]] = deque()
        done = 0
        try:
            for start in range(0, len(groups), size):
                index = groups[start : start + size]
                inputs = network_inputs(self.contract, self.name, scan, index)
                waiting.append((index, self._workers.submit(self._answer, inputs, log, stopped)))
                # One more than is on its way, so that no worker idles while the oldest is handed out.
                if len(waiting) > self._in_flight:
                    index, answer = waiting.popleft()
                    patches = answer.result()
                    done += len(index)
                    yield index, patches
            while waiting:
                index, answer = waiting.popleft()
                patches = answer.result()
                done += len(index)
                yield index, patches
        except ServerFailure as failure:
            raise InputError(
                f"{self.address}: {failure}; {done} of {len(groups)} groups of {scan.name} were answered"
            ) from failure
        finally:
            stopped.set()
            for _, answer in waiting:
                answer.cancel()

    def close(self) -> None:
        """Wait for what is on its way, at most the time-out, and close the connection."""
        # A run that was interrupted may not have been told yet.
        self._stopped.set()
        self._workers.shutdown(cancel_futures=True)
        self._connection.close()

    def _answer(
        self, inputs: Sequence[NDArray], log: RequestLog, stopped: threading.Event
    ) -> NDArray[np.complex64]:
        """Send one batch until it is answered: complex64 [m, C, N, N]. Runs in a worker."""
        contract = self.contract
        patterns = len(inputs[0])
        if contract.batch is not None:
            # The rest of the batch is filled with the last patterns, whose patches are dropped.
            inputs = [each.take(range(contract.batch), axis=0, mode="clip") for each in inputs]
        names = (tensor.name for tensor in contract.inputs)
        values = dict(zip(names, map(np.ascontiguousarray, inputs), strict=True))
        sent = time.perf_counter()
        parts, version = persist(
            lambda: self._connection.infer(values, contract.output.name),
            self._patience,
            stopped,
            log.repeated,
        )
        expected = (len(inputs[0]), contract.n, contract.n, contract.channels, 2)
        if parts.shape != expected or parts.dtype != np.float32:
            raise ServerFailure(
                "refused",
                f"answered with {parts.dtype} {list(parts.shape)}, expected float32 {list(expected)}",
            )
        log.answered(sent, patterns, version)
        return transmission(parts[:patterns])


def _found(connection: Connection, address: Address) -> tuple[ModelMetadata, ModelConfig]:
    """The model as the server describes it, or the line that says why there is none."""
    try:
        if connection.model_ready():
            return connection.metadata(address.version), connection.config()
    except ServerFailure as failure:
        raise _not_found(failure, address) from failure
    try:
        versions = connection.metadata("").versions
    except ServerFailure as failure:
        if failure.kind in {"missing", "refused"}:
            raise InputError(
                f"{address}: the server has no model {address.model!r} that is ready ({failure})"
            ) from failure
        raise _not_found(failure, address) from failure
    if address.version and address.version not in versions:
        raise InputError(
            f"{address}: the server has no version {address.version!r} of {address.model!r}, it has "
            f"{', '.join(versions) or 'none'}"
        )
    raise InputError(f"{address}: the model is not ready")


def _not_found(failure: ServerFailure, address: Address) -> InputError:
    texts = {
        "unreachable": "no server answers",
        "timeout": "the server does not answer in time",
        "unavailable": "the server is not ready",
        "forbidden": "the server does not accept the token, or wants one",
        "untrusted": "the certificate of the server is not trusted, --tls-ca names another authority",
    }
    return InputError(f"{address}: {texts.get(failure.kind, 'the server refuses')} ({failure})")
