"""Open Inference Protocol over gRPC, through tritonclient."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from ptychonnx.runtime.inference.remote.address import Address
from ptychonnx.runtime.inference.remote.authentication import Credentials
from ptychonnx.runtime.inference.remote.connection import (
    DESCRIPTION_BYTES,
    Kind,
    ModelConfig,
    ModelMetadata,
    RequestFailure,
    model_config,
    model_metadata,
)

__all__ = ["GrpcConnection"]

_KINDS: dict[str, Kind] = {
    "UNAVAILABLE": "unavailable",
    "RESOURCE_EXHAUSTED": "unavailable",
    # The server was stopped during the request.
    "CANCELLED": "unavailable",
    "DEADLINE_EXCEEDED": "timeout",
    "NOT_FOUND": "missing",
    "UNIMPLEMENTED": "missing",
    "UNAUTHENTICATED": "forbidden",
    "PERMISSION_DENIED": "forbidden",
}
_CHANNEL = [
    ("grpc.max_send_message_length", 2**31 - 1),
    # With gRPC's default of up to two minutes, a server that has restarted would be noticed late.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Otherwise sessions share a connection, and its failures.
    ("grpc.use_local_subchannel_pool", 1),
]


class GrpcConnection:
    """gRPC channels, shared by all threads: one for each limit of the answers."""

    def __init__(self, address: Address, credentials: Credentials, timeout: float) -> None:
        self._address, self._credentials, self._timeout = address, credentials, timeout
        files = {
            "root_certificates": credentials.ca,
            "certificate_chain": credentials.certificate,
            "private_key": credentials.key,
        }
        self._files = {key: str(path) for key, path in files.items() if path}
        self._clients: dict[int, triton.InferenceServerClient] = {}
        self._lock = threading.Lock()

    def model_ready(self) -> bool:
        try:
            with _translated():
                return self._client().is_model_ready(
                    self._address.model, self._address.version, **self._call()
                )
        except RequestFailure as failure:
            if failure.kind == "missing":
                return False
            raise

    def metadata(self, version: str) -> ModelMetadata:
        with _translated():
            return model_metadata(
                self._client().get_model_metadata(self._address.model, version, as_json=True, **self._call())
            )

    def config(self) -> ModelConfig:
        with _translated():
            answer = self._client().get_model_config(
                self._address.model, self._address.version, as_json=True, **self._call()
            )
            return model_config(answer.get("config", {}))

    def infer(
        self, inputs: Mapping[str, NDArray], output: str, output_bytes: int
    ) -> tuple[NDArray[np.float32], str]:
        tensors = []
        for name, array in inputs.items():
            tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensors.append(tensor.set_data_from_numpy(array))
        with _translated():
            result = self._client(output_bytes).infer(
                self._address.model,
                tensors,
                self._address.version,
                [triton.InferRequestedOutput(output)],
                **self._call(),
            )
            values = result.as_numpy(output)
            version = str(result.get_response().model_version)
        if values is None:
            raise RequestFailure("refused", f"the answer has no output {output!r}")
        return values, version

    def close(self) -> None:
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    def _client(self, output_bytes: int = 0) -> triton.InferenceServerClient:
        """The client whose answers may have an output of that size; sizes are rounded up to powers of two."""
        limit = 1 << (output_bytes + DESCRIPTION_BYTES).bit_length()
        with self._lock:
            if limit not in self._clients:
                self._clients[limit] = triton.InferenceServerClient(
                    self._address.authority,
                    ssl=self._address.encrypted,
                    channel_args=[*_CHANNEL, ("grpc.max_receive_message_length", limit)],
                    **self._files,
                )
            return self._clients[limit]

    def _call(self) -> dict[str, Any]:
        return {"headers": self._credentials.headers(), "client_timeout": self._timeout}


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except InferenceServerException as error:
        status = str(error.status()).removeprefix("StatusCode.")
        reason = error.message() or status
        kind = _KINDS.get(status, "refused")
        if status == "RESOURCE_EXHAUSTED" and "larger than max" in reason:
            kind = "refused"
        elif status == "UNAVAILABLE" and "CERTIFICATE_VERIFY_FAILED" in f"{reason} {error.debug_details()}":
            kind = "untrusted"
        elif status == "UNAVAILABLE" and "connect" in reason.lower():
            kind = "unreachable"
        raise RequestFailure(kind, reason) from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, struct.error) as error:
        raise RequestFailure("refused", f"the answer is not understood ({error})") from error
