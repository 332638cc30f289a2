"""Interface of a connection to a served model, and the model's description by the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.contract import CONTRACT_KEY

__all__ = [
    "DESCRIPTION_BYTES",
    "Connection",
    "ModelConfig",
    "ModelMetadata",
    "TensorDescription",
    "model_config",
    "model_metadata",
]

# Largest description of a model, or of the tensors of an answer.
DESCRIPTION_BYTES = 2**22


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
    """The part of Triton's model configuration that is used.

    Attributes
    ----------
    contract : str or None
        Published contract as JSON.
    max_batch : int or None
        Largest batch of a request; None if it is not limited.
    """

    contract: str | None = None
    max_batch: int | None = None


class Connection(Protocol):
    """Connection to one model. Every method may raise `remote.request_failure.RequestFailure`."""

    def model_ready(self) -> bool:
        """Whether the model, in the version of the address, is ready."""

    def metadata(self, version: str) -> ModelMetadata:
        """Describe a version of the model; an empty version leaves the choice to the server."""

    def config(self) -> ModelConfig:
        """Triton's configuration of the model; without content on other servers."""

    def infer(
        self, inputs: Mapping[str, NDArray], output: str, output_bytes: int
    ) -> tuple[NDArray[np.float32], str]:
        """Run one batch; may be called from any thread.

        Parameters
        ----------
        output
            Name of the output.
        output_bytes
            Size of the output; an answer that is longer, with its description, is refused before it is read.

        Returns
        -------
        Values of the output, and the version of the model that answered.
        """

    def close(self) -> None:
        """Close all sockets."""


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
