"""MLServer runtime for one ONNX artifact. Needs mlserver, numpy and onnxruntime, nothing else.

`ptychonnx deploy mlserver` copies this file to the folder of each model, where MLServer imports it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse, Parameters
from mlserver.utils import get_model_uri

__all__ = ["OnnxModel"]

_CONTRACT = "ptychonnx.contract"
_CONTRACT_HASH = "ptychonnx.contract_sha256"
# Field of `onnx.ModelProto`.
_METADATA_FIELD = 14
_PROVIDERS = {"cpu": ["CPUExecutionProvider"], "gpu": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
_MODULE = "ptychonnx.module"
_TYPES: dict[str, np.dtype] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    **{f"tensor({name})": np.dtype(name) for name in ("float16", "bool", "int8", "int16", "int32", "int64")},
    **{f"tensor({name})": np.dtype(name) for name in ("uint8", "uint16", "uint32", "uint64")},
}


class OnnxModel(MLModel):
    """One artifact."""

    async def load(self) -> bool:
        """Open the artifact and run it once, so that the first request is not the slowest."""
        path = await get_model_uri(self._settings)
        extra = (self._settings.parameters.extra if self._settings.parameters else None) or {}
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(extra.get("threads", _session_threads()))
        providers = _PROVIDERS[extra.get("device", "cpu")]
        self._session = ort.InferenceSession(path, options, providers=providers)
        # onnxruntime silently falls back to the CPU.
        if self._session.get_providers()[0] != providers[0]:
            raise RuntimeError(f"{path}: {providers[0]} did not start, expected a GPU and its libraries")
        check_hashes(Path(path), self._session.get_modelmeta().custom_metadata_map)
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._run({name: _zeros(value) for name, value in self._inputs.items()})
        return True

    async def metadata(self) -> MetadataModelResponse:
        """The metadata of MLServer, with the version and the contract of the artifact."""
        response = await super().metadata()
        response.versions = [self.version] if self.version else []
        stored = self._session.get_modelmeta().custom_metadata_map
        published = {key: stored[key] for key in (_CONTRACT, _MODULE) if key in stored}
        if published:
            response.parameters = Parameters.model_validate(published)
        return response

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request, which MLServer may have combined from several."""
        outputs = await asyncio.to_thread(self._run, self._decode(payload))
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[
                NumpyCodec.encode_output(name, output)
                for name, output in zip(self._outputs, outputs, strict=True)
            ],
        )

    def _decode(self, payload: InferenceRequest) -> dict[str, np.ndarray]:
        names = [tensor.name for tensor in payload.inputs]
        if sorted(names) != sorted(self._inputs):
            raise InferenceError(f"got inputs {names}, expected {list(self._inputs)}")
        arrays = {
            tensor.name: np.asarray(self.decode(tensor, default_codec=NumpyCodec))
            for tensor in payload.inputs
        }
        for name, array in arrays.items():
            _check(array, self._inputs[name])
        batches = {
            name: len(array)
            for name, array in arrays.items()
            if isinstance((self._inputs[name].shape or [0])[0], str)
        }
        if len(set(batches.values())) > 1:
            raise InferenceError(f"got batches of different sizes: {batches}")
        return arrays

    def _run(self, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        return self._session.run(self._outputs, arrays)


def _session_threads() -> int:
    """Threads for a container that may use fewer cores than the machine has; 0: onnxruntime's choice.

    onnxruntime counts the cores of the machine. More threads than cores wait for each other.
    """
    every = os.cpu_count() or 1
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else every)
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    return int(cores) if cores < every else 0


def _zeros(value: ort.NodeArg) -> np.ndarray:
    return np.zeros([axis if isinstance(axis, int) else 1 for axis in value.shape], _TYPES[value.type])


def _check(array: np.ndarray, value: ort.NodeArg) -> None:
    # Amplitudes and counts are never converted silently.
    if array.dtype != _TYPES[value.type]:
        raise InferenceError(f"{value.name} is {array.dtype}, expected {_TYPES[value.type]}")
    fits = array.ndim == len(value.shape) and all(
        not isinstance(axis, int) or axis == size
        for axis, size in zip(value.shape, array.shape, strict=False)
    )
    if not fits or not array.size:
        raise InferenceError(f"{value.name} has shape {array.shape}, expected {value.shape}")


def check_hashes(path: Path, metadata: dict[str, str]) -> None:
    """Refuse an artifact whose contract or graph was changed after it was published.

    Raises RuntimeError if a hash differs from the stored one.
    """
    text = metadata.get(_CONTRACT, "{}")
    graph = json.loads(text).get("graph_sha256")
    if _CONTRACT not in metadata and _MODULE in metadata:
        graph = json.loads(metadata[_MODULE]).get("graph_sha256")
    elif graph is None and _CONTRACT_HASH not in metadata:
        return
    elif metadata.get(_CONTRACT_HASH) != hashlib.sha256(text.encode()).hexdigest():
        raise RuntimeError(f"{path}: the contract was changed after it was published")
    if (
        graph is not None
        and graph != hashlib.sha256(b"".join(_without_metadata(path.read_bytes()))).hexdigest()
    ):
        raise RuntimeError(f"{path}: the graph was changed after it was published")


def _without_metadata(model: bytes) -> Iterator[bytes]:
    """Fields of a serialised `onnx.ModelProto` except its metadata; `onnx` itself is not installed on the server."""
    start = 0
    while start < len(model):
        key, position = _varint(model, start)
        if key & 7 == 0:
            _, position = _varint(model, position)
        elif key & 7 == 2:
            length, position = _varint(model, position)
            position += length
        else:
            raise RuntimeError("the model has a field of an unknown type")
        if key >> 3 != _METADATA_FIELD:
            yield model[start:position]
        start = position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Value of a variable-length integer of protobuf, and the position after it."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
