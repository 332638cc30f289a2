"""Open Inference Protocol over HTTP; tensors are binary if the server supports that.

Not through a client library: those read and decompress answers of any size, and time out for each read alone.
"""

from __future__ import annotations

import http.client
import io
import json
import select
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

__all__ = ["HttpConnection"]

_BINARY = "binary_tensor_data"
_HEADER_LENGTH = "Inference-Header-Content-Length"
_KINDS: dict[int, Kind] = {
    401: "forbidden",
    403: "forbidden",
    404: "missing",
    405: "missing",
    408: "timeout",
    429: "unavailable",
    502: "unavailable",
    503: "unavailable",
    504: "unavailable",
}
_TYPES: dict[str, Any] = {
    "FP32": np.dtype("<f4"),
    "FP16": np.dtype("<f2"),
    "FP64": np.dtype("<f8"),
    "UINT16": np.dtype("<u2"),
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
# Characters of a value in JSON, per byte of float32.
_JSON_CHARACTERS = 8


class HttpConnection:
    """One socket per thread, which is kept open between requests."""

    def __init__(self, address: Address, credentials: Credentials, timeout: float) -> None:
        self._address, self._credentials, self._timeout = address, credentials, timeout
        version = f"/versions/{address.version}" if address.version else ""
        self._model = f"/v2/models/{address.model}"
        self._path = self._model + version
        self._local = threading.local()
        self._lock = threading.Lock()
        self._sockets: set[http.client.HTTPConnection] = set()
        self._binary: bool | None = None

    def model_ready(self) -> bool:
        try:
            self._get(f"{self._path}/ready")
        except RequestFailure as failure:
            if failure.kind in {"missing", "refused"}:
                return False
            raise
        return True

    def metadata(self, version: str) -> ModelMetadata:
        with _understood():
            return model_metadata(self._get_json(self._model + (f"/versions/{version}" if version else "")))

    def config(self) -> ModelConfig:
        with _understood():
            return model_config(self._get_json(f"{self._path}/config"))

    def infer(
        self, inputs: Mapping[str, NDArray], output: str, output_bytes: int
    ) -> tuple[NDArray[np.float32], str]:
        binary = self._supports_binary()
        tensors: list[dict[str, Any]] = []
        for name, array in inputs.items():
            tensor = {"name": name, "shape": array.shape, "datatype": _NAMES[array.dtype]}
            data = (
                {"parameters": {"binary_data_size": array.nbytes}}
                if binary
                else {"data": array.ravel().tolist()}
            )
            tensors.append(tensor | data)
        outputs = [{"name": output, "parameters": {"binary_data": binary}}]
        head = json.dumps({"inputs": tensors, "outputs": outputs}).encode()
        body = b"".join([head, *(array.tobytes() for array in inputs.values())]) if binary else head
        headers = {"Content-Type": "application/octet-stream" if binary else "application/json"}
        if binary:
            headers[_HEADER_LENGTH] = str(len(head))
        limit = DESCRIPTION_BYTES + output_bytes * (1 if binary else _JSON_CHARACTERS)
        answer, answer_headers = self._request("POST", f"{self._path}/infer", limit, body, headers)
        with _understood():
            length = int(answer_headers.get(_HEADER_LENGTH, len(answer)))
            description = json.loads(answer[:length])
            values = _output(description["outputs"], output, memoryview(answer)[length:])
            return values, str(description.get("model_version", ""))

    def close(self) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for socket in sockets:
            socket.close()

    def _supports_binary(self) -> bool:
        """Whether the server lists the extension, requested once; true if it lists none at all."""
        if self._binary is None:
            try:
                with _understood():
                    extensions = self._get_json("/v2").get("extensions")
                    self._binary = extensions is None or _BINARY in extensions
            except RequestFailure as failure:
                if failure.transient:
                    raise
                self._binary = True
        return self._binary

    def _get(self, path: str) -> bytes:
        return self._request("GET", path, DESCRIPTION_BYTES)[0]

    def _get_json(self, path: str) -> Any:
        return json.loads(self._get(path))

    def _request(
        self,
        method: str,
        path: str,
        limit: int,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[bytes, http.client.HTTPMessage]:
        """Send a request and read at most `limit` bytes; the timeout holds for all of it."""
        deadline = time.monotonic() + self._timeout
        connection = self._connection()
        try:
            if connection.sock is None:
                connection.timeout = self._timeout
                connection.connect()
            connection.sock.settimeout(_remaining(deadline))
            connection.request(method, path, body, self._credentials.headers() | dict(headers or {}))
            connection.response_class = lambda sock, **options: _Response(sock, deadline, **options)  # type: ignore[assignment]
            response = connection.getresponse()
            content = _read(response, limit)
        except BaseException as error:
            self._drop(connection)
            if isinstance(error, OSError | http.client.HTTPException):
                raise _classified(error, self._timeout) from error
            raise
        if not 200 <= response.status < 300:
            reason = _server_message(content)
            if response.status not in _KINDS:
                raise RequestFailure("refused", reason or f"status {response.status}")
            raise RequestFailure(_KINDS[response.status], f"status {response.status}: {reason}")
        return content, response.headers

    def _connection(self) -> http.client.HTTPConnection:
        """The connection of this thread, or a new one if the server closed it meanwhile."""
        connection = getattr(self._local, "connection", None)
        if connection is not None and connection.sock is not None:
            with suppress(OSError, ValueError):
                if not select.select([connection.sock], [], [], 0)[0]:
                    return connection
        if connection is not None:
            self._drop(connection)
        address, credentials = self._address, self._credentials
        if address.encrypted:
            context = ssl.create_default_context(cafile=credentials.ca)
            if credentials.certificate is not None:
                context.load_cert_chain(credentials.certificate, credentials.key)
            connection = http.client.HTTPSConnection(address.host, address.port, context=context)
        else:
            connection = http.client.HTTPConnection(address.host, address.port)
        self._local.connection = connection
        with self._lock:
            self._sockets.add(connection)
        return connection

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        self._local.connection = None
        with self._lock:
            self._sockets.discard(connection)
        connection.close()


class _Response(http.client.HTTPResponse):
    """A response that is read until a deadline."""

    def __init__(self, sock: Any, deadline: float, **options: Any) -> None:
        super().__init__(sock, **options)
        self.fp = io.BufferedReader(_DeadlineReader(self.fp.detach(), sock, deadline))


class _DeadlineReader(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, sock: Any, deadline: float) -> None:
        self._raw, self._sock, self._deadline = raw, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_remaining(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _remaining(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _read(response: http.client.HTTPResponse, limit: int) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise RequestFailure("refused", f"the answer is compressed ({encoding}), which was not asked for")
    too_long = f"the answer is longer than {limit} bytes, which is the most that the contract allows"
    if response.length is not None and response.length > limit:
        raise RequestFailure("refused", too_long)
    content = response.read(limit + 1)
    if len(content) > limit:
        raise RequestFailure("refused", too_long)
    if response.length:
        raise http.client.IncompleteRead(content, response.length)
    return content


def _classified(error: OSError | http.client.HTTPException, timeout: float) -> RequestFailure:
    if isinstance(error, ssl.SSLCertVerificationError):
        return RequestFailure("untrusted", error.verify_message)
    if isinstance(error, TimeoutError):
        return RequestFailure("timeout", f"no answer in {timeout:g} s")
    return RequestFailure("unreachable", getattr(error, "strerror", None) or error)


def _server_message(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return content.decode(errors="replace").strip()


def _output(outputs: list[dict[str, Any]], name: str, binary: memoryview) -> NDArray[np.float32]:
    """Values of an output, from JSON or from the binary data that follow it."""
    start = 0
    for output in outputs:
        size = (output.get("parameters") or {}).get("binary_data_size")
        if output["name"] == name:
            if output["datatype"] not in _TYPES:
                raise RequestFailure("refused", f"the output {name!r} has the type {output['datatype']}")
            dtype = _TYPES[output["datatype"]]
            shape = [int(length) for length in output["shape"]]
            if size is None:
                return np.asarray(output["data"], dtype).reshape(shape)
            return np.frombuffer(binary[start : start + int(size)], dtype).reshape(shape)
        start += int(size or 0)
    raise RequestFailure("refused", f"the answer has no output {name!r}")


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise RequestFailure("refused", f"the answer is not understood ({error})") from error
