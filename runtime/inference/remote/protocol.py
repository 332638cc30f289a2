"""What the session asks of a connection; `http` and `grpc` beside this module answer it through tritonclient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.contract import CONTRACT_KEY
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.remote.address import Address
from ptychonnx.runtime.inference.remote.authentication import Access

if TYPE_CHECKING:
    from ptychonnx.runtime.inference.remote.grpc import GrpcConnection
    from ptychonnx.runtime.inference.remote.http import HttpConnection

__all__ = [
    "Connection",
    "ModelConfig",
    "ModelMetadata",
    "TensorDescription",
    "connect",
    "model_config",
    "model_metadata",
]


@dataclass(frozen=True)
class TensorDescription:
    """An input or output as the server describes it, batch first, -1 where a size is free."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelMetadata:
    """A model as any server of the protocol describes it; `platform` names the server's engine."""

    platform: str
    versions: tuple[str, ...]
    inputs: tuple[TensorDescription, ...]
    outputs: tuple[TensorDescription, ...]


@dataclass(frozen=True)
class ModelConfig:
    """What Triton adds.

    Attributes
    ----------
    contract
        JSON, None if not published.
    max_batch
        Largest batch of a request; None if the model does not say.
    """

    contract: str | None = None
    max_batch: int | None = None


class Connection(Protocol):
    """A model on a server. Every method raises `ptychonnx.runtime.inference.remote.transport_errors.ServerFailure`."""

    def model_ready(self) -> bool:
        """Whether the model, in the version of the address, answers."""

    def metadata(self, version: str) -> ModelMetadata:
        """The model's inputs and outputs, of one version or (empty) of the server's choice."""

    def config(self) -> ModelConfig:
        """Triton's configuration of the model; empty on another server."""

    def infer(self, inputs: Mapping[str, NDArray], output: str) -> tuple[NDArray[np.float32], str]:
        """Run one batch: the output's values, and the version that answered. Safe to call from any thread."""

    def close(self) -> None:
        """Close the sockets."""


def connect(address: Address, access: Access, timeout: float) -> Connection:
    """A connection for the scheme of the address; nothing is sent yet.

    Raises
    ------
    InputError
        If the client library is not installed.
    """
    return _connection_class(address)(address, access, timeout)


def _connection_class(address: Address) -> type[HttpConnection] | type[GrpcConnection]:
    # Here, and not at the top: the client library is an extra.
    try:
        if address.scheme in {"grpc", "grpcs"}:
            from ptychonnx.runtime.inference.remote.grpc import GrpcConnection

            return GrpcConnection
        from ptychonnx.runtime.inference.remote.http import HttpConnection

        return HttpConnection
    except ImportError as error:
        raise InputError(
            f"{address}: {error.name or error} is not installed, pip install 'ptychonnx[serve]' brings it"
        ) from error
    except Exception as error:  # its generated code raises types of its own at versions that it does not know
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{address}: tritonclient does not work with what is installed ({reason})"
        ) from error


def model_metadata(answer: dict[str, Any]) -> ModelMetadata:
    """From the JSON of the protocol; KeyError, TypeError or ValueError if it is none."""

    def tensors(kind: str) -> tuple[TensorDescription, ...]:
        return tuple(
            TensorDescription(each["name"], each["datatype"], tuple(int(size) for size in each["shape"]))
            for each in answer[kind]
        )

    return ModelMetadata(
        platform=str(answer.get("platform", "")),
        versions=tuple(map(str, answer.get("versions") or ())),
        inputs=tensors("inputs"),
        outputs=tensors("outputs"),
    )


def model_config(config: dict[str, Any]) -> ModelConfig:
    """From Triton's configuration as JSON; KeyError, TypeError or ValueError if it is none."""
    published = config.get("parameters", {}).get(CONTRACT_KEY, {})
    return ModelConfig(
        contract=published.get("string_value"),
        # 0 says that the model takes what its inputs say, batch included.
        max_batch=int(config.get("max_batch_size", 0)) or None,
    )
