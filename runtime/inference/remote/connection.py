"""Connections to a served model: their interface, their failures, and the model's description by the server.

The client library is an extra, so it is imported only when a connection is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.contract import CONTRACT_KEY
from ptychonnx.runtime.errors import InputError, ServerError, first_line
from ptychonnx.runtime.inference.remote.address import Address
from ptychonnx.runtime.inference.remote.authentication import Credentials

__all__ = [
    "DESCRIPTION_BYTES",
    "Connection",
    "Kind",
    "ModelConfig",
    "ModelMetadata",
    "RequestFailure",
    "TensorDescription",
    "connect",
    "model_config",
    "model_metadata",
]

# Largest description of a model, or of the tensors of an answer.
DESCRIPTION_BYTES = 2**22

Kind = Literal["unreachable", "unavailable", "timeout", "missing", "forbidden", "untrusted", "refused"]

# Inference is idempotent, so a request may be repeated even if the server may have run it.
_TRANSIENT = {"unreachable", "unavailable", "timeout"}

# The reason comes from the server.
_LONGEST_REASON = 500


class RequestFailure(ServerError):
    """One failed attempt.

    `kind`: ``unreachable``: no connection, or it broke. ``unavailable``: the server is busy or starting. ``timeout``:
    no answer in time. ``missing``: unknown model, version or method. ``forbidden``: token missing or rejected.
    ``untrusted``: the server's certificate was rejected. ``refused``: everything else.
    """

    def __init__(self, kind: Kind, reason: object) -> None:
        lines = str(reason).strip().splitlines()
        line = lines[0][:_LONGEST_REASON] if lines else type(reason).__name__
        super().__init__("".join(letter if letter.isprintable() else "?" for letter in line))
        self.kind = kind

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.kind in _TRANSIENT


@dataclass(frozen=True)
class TensorDescription:
    """Input or output of a served model; the first size is the batch, -1 means any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelMetadata:
    """Description of a model by any server of the protocol; `platform` is the server's engine."""

    platform: str
    versions: tuple[str, ...]
    inputs: tuple[TensorDescription, ...]
    outputs: tuple[TensorDescription, ...]


@dataclass(frozen=True)
class ModelConfig:
    """The part of Triton's model configuration that is used."""

    contract: str | None = None  # published contract as JSON
    max_batch: int | None = None  # largest batch of a request; None if it is not limited


class Connection(Protocol):
    """Connection to one model. Every method may raise `RequestFailure`."""

    def model_ready(self) -> bool:
        """Whether the model, in the version of the address, is ready."""

    def metadata(self, version: str) -> ModelMetadata:
        """Describe a version of the model; an empty version leaves the choice to the server."""

    def config(self) -> ModelConfig:
        """Triton's configuration of the model, which other servers do not have."""

    def infer(
        self, inputs: Mapping[str, NDArray], output: str, output_bytes: int
    ) -> tuple[NDArray[np.float32], str]:
        """Run one batch; may be called from any thread.

        * `output`: name of the output.
        * `output_bytes`: size of the output; an answer that is longer, with its description, is refused before it is
          read.

        Returns values of the output, and the version of the model that answered.
        """

    def close(self) -> None:
        """Close all sockets."""


def connect(address: Address, credentials: Credentials, timeout: float) -> Connection:
    """Create the connection for the scheme of an address, without sending anything yet.

    Raises InputError if the client library is missing or incompatible.

    `timeout`: seconds within which each request must be answered.
    """
    try:
        if address.scheme in {"grpc", "grpcs"}:
            from ptychonnx.runtime.inference.remote.grpc_connection import GrpcConnection

            return GrpcConnection(address, credentials, timeout)
        from ptychonnx.runtime.inference.remote.http_connection import HttpConnection
    except ImportError as error:
        raise InputError(
            f"{address}: {error.name or error} is not installed, pip install 'ptychonnx[serve]' brings it"
        ) from error
    except Exception as error:  # generated protobuf code raises various types at unknown versions
        raise InputError(
            f"{address}: tritonclient does not work with what is installed ({first_line(error)})"
        ) from error
    return HttpConnection(address, credentials, timeout)


def model_metadata(answer: dict[str, Any]) -> ModelMetadata:
    """Parse the protocol's JSON; raises KeyError, TypeError or ValueError if it is malformed."""

    def tensors(kind: str) -> tuple[TensorDescription, ...]:
        return tuple(
            TensorDescription(
                tensor["name"], tensor["datatype"], tuple(int(size) for size in tensor["shape"])
            )
            for tensor in answer[kind]
        )

    return ModelMetadata(
        platform=str(answer.get("platform", "")),
        versions=tuple(map(str, answer.get("versions") or ())),
        inputs=tensors("inputs"),
        outputs=tensors("outputs"),
    )


def model_config(config: dict[str, Any]) -> ModelConfig:
    """Parse Triton's configuration; raises KeyError, TypeError, ValueError or AttributeError if it is malformed."""
    published = config.get("parameters", {}).get(CONTRACT_KEY, {})
    return ModelConfig(
        contract=published.get("string_value"),
        # 0: the shapes of the inputs include the batch.
        max_batch=int(config.get("max_batch_size", 0)) or None,
    )
