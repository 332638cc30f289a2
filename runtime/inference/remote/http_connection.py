"""Open Inference Protocol over HTTP, through tritonclient; tensors are binary if the server supports that."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ssl import SSLCertVerificationError
from typing import Any

import gevent
import numpy as np
from geventhttpclient.response import HTTPParseError
from numpy.typing import NDArray
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from ptychonnx.runtime.inference.remote.address import Address
from ptychonnx.runtime.inference.remote.authentication import Credentials
from ptychonnx.runtime.inference.remote.connection import (
    ModelConfig,
    ModelMetadata,
    model_config,
    model_metadata,
)
from ptychonnx.runtime.inference.remote.request_failure import Kind, RequestFailure

__all__ = ["HttpConnection"]

_BINARY = "binary_tensor_data"
_KINDS: dict[str, Kind] = {
    "401": "forbidden",
    "403": "forbidden",
    "404": "missing",
    "405": "missing",
    "408": "timeout",
    "429": "unavailable",
    "502": "unavailable",
    "503": "unavailable",
    "504": "unavailable",
}


class HttpConnection:
    """One client per thread, since tritonclient's HTTP client is not thread-safe."""

    def __init__(self, address: Address, credentials: Credentials, timeout: float) -> None:
        self._address, self._credentials, self._timeout = address, credentials, timeout
        self._local = threading.local()
        self._lock = threading.Lock()
        self._clients: list[triton.InferenceServerClient] = []
        self._binary: bool | None = None

    def model_ready(self) -> bool:
        """See `Connection`."""
        with self._client() as client:
            return client.is_model_ready(
                self._address.model, self._address.version, self._credentials.headers()
            )

    def metadata(self, version: str) -> ModelMetadata:
        """See `Connection`."""
        with self._client() as client:
            return model_metadata(
                client.get_model_metadata(self._address.model, version, self._credentials.headers())
            )

    def config(self) -> ModelConfig:
        """See `Connection`."""
        try:
            with self._client() as client:
                return model_config(
                    client.get_model_config(
                        self._address.model, self._address.version, self._credentials.headers()
                    )
                )
        except RequestFailure as failure:
            if failure.kind in {"missing", "refused"}:
                return ModelConfig()
            raise

    def infer(self, inputs: Mapping[str, NDArray], output: str) -> tuple[NDArray[np.float32], str]:
        """See `Connection`."""
        binary = self._takes_binary()
        tensors = []
        for name, values in inputs.items():
            tensor = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
            tensors.append(tensor.set_data_from_numpy(values, binary_data=binary))
        wanted = triton.InferRequestedOutput(output, binary_data=binary)
        with self._client() as client:
            result = client.infer(
                self._address.model,
                tensors,
                self._address.version,
                [wanted],
                headers=self._credentials.headers(),
            )
            found = result.as_numpy(output)
            version = str(result.get_response().get("model_version", ""))
        if found is None:
            raise RequestFailure("refused", f"the answer has no output {output!r}")
        return found, version

    def _takes_binary(self) -> bool:
        """Whether the server lists the extension, asked once; a server that lists nothing at all is taken to."""
        if self._binary is None:
            try:
                with self._client() as client:
                    extensions = client.get_server_metadata(self._credentials.headers()).get("extensions")
            except RequestFailure as failure:
                if failure.transient:
                    raise
                extensions = None
            self._binary = extensions is None or _BINARY in extensions
        return self._binary

    def close(self) -> None:
        """See `Connection`."""
        with self._lock:
            clients, self._clients = self._clients, []
        for client in clients:
            client.close()

    @contextmanager
    def _client(self) -> Iterator[triton.InferenceServerClient]:
        """The client of this thread; after a failure the next one starts with a new connection."""
        client = getattr(self._local, "client", None) or self._new_client()
        try:
            # The library's own time-outs are for one read each: an answer that drips in would never end.
            with gevent.Timeout(self._timeout, TimeoutError(f"no answer in {self._timeout:g} s")):
                yield client
        except InferenceServerException as error:
            status = str(error.status())
            if status not in _KINDS:
                raise RequestFailure("refused", error.message() or f"status {status}") from error
            raise RequestFailure(_KINDS[status], f"status {status}: {error.message()}") from error
        except SSLCertVerificationError as error:
            self._drop(client)
            raise RequestFailure("untrusted", error.verify_message) from error
        except (TimeoutError, OSError, HTTPParseError) as error:
            self._drop(client)
            kind: Kind = "timeout" if isinstance(error, TimeoutError) else "unreachable"
            raise RequestFailure(kind, getattr(error, "strerror", None) or error) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._drop(client)
            raise RequestFailure("refused", f"the answer is not understood ({error})") from error

    def _new_client(self) -> triton.InferenceServerClient:
        secure: dict[str, Any] = {}
        if self._address.encrypted:
            files = {
                "ca_certs": self._credentials.ca,
                "certfile": self._credentials.certificate,
                "keyfile": self._credentials.key,
            }
            secure = {"ssl": True, "ssl_options": {key: str(path) for key, path in files.items() if path}}
        client = triton.InferenceServerClient(
            self._address.authority,
            connection_timeout=self._timeout,
            network_timeout=self._timeout,
            **secure,
        )
        self._local.client = client
        with self._lock:
            self._clients.append(client)
        return client

    def _drop(self, client: triton.InferenceServerClient) -> None:
        self._local.client = None
        with self._lock:
            if client in self._clients:
                self._clients.remove(client)
        client.close()
