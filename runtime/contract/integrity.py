"""Checks of a model file before an engine opens it, and hashes by which a changed file is detected."""

from __future__ import annotations

import hashlib
import os
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.errors import InputError, VerificationError, first_line
from ptychonnx.runtime.paths import check_file

__all__ = [
    "CONTRACT_HASH_KEY",
    "DEFAULT_MAX_BYTES",
    "MAX_BYTES_VARIABLE",
    "check_model_file",
    "contract_sha256",
    "external_tensors",
    "graph_sha256",
    "stored_contract",
]

# Metadata key next to the contract: the hash of the contract's text.
CONTRACT_HASH_KEY = "ptychonnx.contract_sha256"

# Networks of this field have a few megabytes.
DEFAULT_MAX_BYTES = 2**30
MAX_BYTES_VARIABLE = "PTYCHONNX_MAX_MODEL_BYTES"
_STANDARD = {"", "ai.onnx"}
_IN_MEMORY = "_ORT_MEM_ADDR_"
# Characters of the name of a file with weights.
_LONGEST_LOCATION = 255


def check_model_file(path: Path, max_bytes: int | None = None) -> onnx.ModelProto:
    """Read the graph of a file and refuse unsafe content; weights outside the file are not read.

    Raises InputError if the file is missing, too large or not an ONNX model; if its external data are missing or lie
    outside its folder; if it uses operators of domains other than ONNX's own, which would need a library of code; or if
    a metadata key occurs twice, so that readers may see different values.

    * `path`: an ONNX file.
    * `max_bytes`: largest size of the file together with its external data; None takes the environment variable
      ``PTYCHONNX_MAX_MODEL_BYTES``, or `DEFAULT_MAX_BYTES`.

    Returns the model, without its external data.
    """
    path = Path(path)
    limit = _limit() if max_bytes is None else max_bytes
    check_file(path, "an ONNX artifact")
    total = path.stat().st_size
    if total > limit:
        raise InputError(
            f"{path}: has {total} bytes, expected at most {limit} ({MAX_BYTES_VARIABLE} raises it)"
        )
    try:
        # Without `format`, onnx would take some file names for one of its text formats.
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable ONNX model ({first_line(error)})") from error
    if not model.graph.node:
        raise InputError(f"{path}: not a readable ONNX model (its graph is empty)")
    _check_domains(path, model)
    if any(isinstance(text, bytes) for entry in model.metadata_props for text in (entry.key, entry.value)):
        raise InputError(f"{path}: not a readable ONNX model (its metadata are not UTF-8)")
    for key, times in Counter(entry.key for entry in model.metadata_props).items():
        if times > 1:
            raise InputError(f"{path}: metadata key {key!r} occurs {times} times, expected once")
    seen: dict[Path, int] = {}
    for tensor in external_tensors(model):
        file = _external_file(path, tensor)
        seen[file] = file.stat().st_size
    if total + sum(seen.values()) > limit:
        raise InputError(
            f"{path}: has {total + sum(seen.values())} bytes with its external data, expected at most {limit} "
            f"({MAX_BYTES_VARIABLE} raises it)"
        )
    return model


def stored_contract(path: Path, model: onnx.ModelProto) -> Contract:
    """Read the contract in the metadata of a model, and compare its hash and that of the graph with those stored.

    Hashes are compared if the contract has that of the graph, as every artifact that ptychonnx published does.

    Raises InputError if there is no contract, or it is not understood. Raises VerificationError if the contract or the
    graph was changed after it was published.

    `path`: the model's file, for error messages.
    """
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if CONTRACT_KEY not in metadata:
        raise InputError(
            f"{path}: no {CONTRACT_KEY} in its metadata, expected an artifact of `ptychonnx export`"
        )
    text = metadata[CONTRACT_KEY]
    stored = metadata.get(CONTRACT_HASH_KEY)
    if stored is not None:
        _compare(path, "contract", stored, contract_sha256(text))
    contract = Contract.from_json(text, str(path))
    if contract.graph_sha256 is not None:
        if any(True for _ in external_tensors(model)):
            raise VerificationError(
                f"{path}: has weights in other files, which its hash does not cover, expected all of them in one file"
            )
        _compare(path, "contract", stored, contract_sha256(text))
        _compare(path, "graph", contract.graph_sha256, graph_sha256(model))
    return contract


def _compare(path: Path, part: str, stored: str | None, computed: str) -> None:
    if stored != computed:
        expected = "none is stored" if stored is None else f"expected {stored[:12]}"
        raise VerificationError(
            f"{path}: {part}: was changed after it was published: its hash is {computed[:12]}, {expected}"
        )


def graph_sha256(model: onnx.ModelProto) -> str:
    """SHA-256 of a model without its metadata, which covers the graph and the weights inside the file."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def _limit() -> int:
    text = os.environ.get(MAX_BYTES_VARIABLE)
    if text is None:
        return DEFAULT_MAX_BYTES
    if not text.isdigit() or int(text) == 0:
        raise InputError(f"{MAX_BYTES_VARIABLE} is {text!r}, expected a number of bytes")
    return int(text)


def contract_sha256(text: str) -> str:
    """SHA-256 of a stamped contract, and so of the whole artifact, since the contract holds the graph's hash."""
    return hashlib.sha256(text.encode()).hexdigest()


def external_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Weights whose values are in another file."""
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor


def _check_domains(path: Path, model: onnx.ModelProto) -> None:
    written_out = {(function.domain, function.name) for function in model.functions}
    strange = {
        f"{node.domain}.{node.op_type}"
        for node in _nodes(model)
        if node.domain not in _STANDARD and (node.domain, node.op_type) not in written_out
    }
    if strange:
        raise InputError(
            f"{path}: uses the operators {', '.join(sorted(strange))}, expected ONNX's own: no library of "
            "operators is loaded"
        )


def _external_file(path: Path, tensor: onnx.TensorProto) -> Path:
    """The file of an external tensor, which must be in the model's folder after every link is followed."""
    locations = [entry.value for entry in tensor.external_data if entry.key == "location"]
    location = locations[0] if len(locations) == 1 else ""
    # The folder of a link to the model, not of its target: onnxruntime looks next to the link.
    folder = path.parent.resolve()
    file = folder / location
    if "\0" in location or len(location) > _LONGEST_LOCATION:
        raise InputError(
            f"{path}: weight {tensor.name!r} is in {reprlib.repr(location)}, which is no name of a file"
        )
    if not location or Path(location).is_absolute() or not file.resolve().is_relative_to(folder):
        raise InputError(
            f"{path}: weight {tensor.name!r} is in {', '.join(map(repr, locations)) or 'no file'}, expected one "
            "file in the model's own folder"
        )
    # onnxruntime would take this name as a memory address given in the file.
    if _IN_MEMORY in location or not file.is_file():
        raise InputError(f"{path}: weight {tensor.name!r} is in {location!r}, which does not exist")
    return file


def _graphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    """Graphs inside nodes at any depth, such as the branches of an If."""
    for node in nodes:
        for attribute in node.attribute:
            inner = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
            for graph in inner:
                yield graph
                yield from _graphs(graph.node)


def _all_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    roots = [model.graph]
    for training in model.training_info:
        roots += [training.initialization, training.algorithm]
    for root in roots:
        yield root
        yield from _graphs(root.node)
    for function in model.functions:
        yield from _graphs(function.node)


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in _all_graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in _all_graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _nodes(model):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
