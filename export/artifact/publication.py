"""Publication: a model is stamped, written to a temporary name, read back and run, and only then gets its name.

The stamp in the metadata is a contract, or the description of a module that has none. Both carry the hash of the graph
and a reference pair, and are written and checked in the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import onnx
from numpy.typing import NDArray

from ptychonnx.export.artifact.module_description import MODULE_KEY, ModuleDescription
from ptychonnx.export.graph.inspection import check_graph
from ptychonnx.export.verification.engines import open_onnxruntime
from ptychonnx.export.verification.reference_pair import contract_reference, module_reference, reference_pair
from ptychonnx.runtime.atomic import atomic_path, check_output
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.contract.integrity import CONTRACT_HASH_KEY, contract_sha256, graph_sha256
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.inference import Session

__all__ = ["Stamp", "check_name", "publish", "reference_inputs", "stamped_bytes"]

Stamp = TypeVar("Stamp", Contract, ModuleDescription)


def check_name(out: Path) -> Path:
    """The path of an artifact to be written.

    Raises InputError if its name does not end in ``.onnx``.
    """
    out = Path(out)
    if out.suffix != ".onnx":
        raise InputError(f"{out}: expected a name that ends in .onnx")
    check_output(out)
    return out


def publish(model: onnx.ModelProto, stamp: Stamp, out: Path) -> Stamp:
    """Write `out`; it appears complete and checked, or not at all.

    Raises VerificationError if the file is not a valid artifact, or returns another output than the model did before it
    was written.

    `stamp`: without the hash of the graph and the reference pair, which are computed here.
    Returns the stamp as it was written.
    """
    rule, inputs = reference_inputs(stamp, model)
    any_output = not isinstance(stamp, Contract)
    engine = open_onnxruntime(model.SerializeToString(deterministic=True))
    stamp = stamp.model_copy(
        update={
            "graph_sha256": graph_sha256(model),
            "reference": reference_pair(engine, rule, *inputs, any_output=any_output),
        }
    )
    with atomic_path(out) as partial:
        partial.write_bytes(stamped_bytes(model, stamp))
        data = partial.read_bytes()
        if graph_sha256(onnx.load_from_string(data)) != stamp.graph_sha256:
            raise VerificationError("the file does not hold the graph that was verified")
        if reference_pair(open_onnxruntime(data), rule, *inputs, any_output=any_output) != stamp.reference:
            raise VerificationError(
                "the file returns another output than the graph did before it was written"
            )
        if isinstance(stamp, Contract):
            _check_contract(partial, data, stamp)
    return stamp


def _check_contract(path: Path, data: bytes, contract: Contract) -> None:
    inputs = [tensor.name for tensor in contract.inputs]
    check_graph(
        data,
        inputs=inputs,
        outputs=[contract.output.name],
        batch=contract.batch,
        defaults=() if contract.beam is None else contract.beam.names,
    )
    try:
        session = Session(path, "cpu")
    except InputError as error:
        raise VerificationError(f"the runtime refuses the file: {error}") from error
    if session.contract != contract:
        raise VerificationError("the contract in the file is not the one that was stamped")


def reference_inputs(
    stamp: Contract | ModuleDescription, model: onnx.ModelProto
) -> tuple[str, list[NDArray]]:
    """Rule and arrays of the reference inputs, see `ptychonnx.export.verification.reference_pair`."""
    return contract_reference(stamp) if isinstance(stamp, Contract) else module_reference(model, stamp.bounds)


def stamped_bytes(model: onnx.ModelProto, stamp: Contract | ModuleDescription) -> bytes:
    """The serialised model with its stamp; the same bytes for the same model and stamp."""
    text = stamp.to_json()
    if isinstance(stamp, Contract):
        metadata = {CONTRACT_KEY: text, CONTRACT_HASH_KEY: contract_sha256(text)}
    else:
        metadata = {MODULE_KEY: text}
    onnx.helper.set_model_props(model, metadata)
    return model.SerializeToString(deterministic=True)
