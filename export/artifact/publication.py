"""Writing an artifact: contract stamped, the very bytes read back and run before they get their name."""

from __future__ import annotations

from pathlib import Path

import onnx

from ptychonnx.export.graph.inspection import check_graph
from ptychonnx.export.verification.engines import open_onnxruntime
from ptychonnx.export.verification.published_file import contract_input
from ptychonnx.export.verification.verify import reference_pair
from ptychonnx.runtime.atomic import atomic_path
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.contract.integrity import CONTRACT_HASH_KEY, contract_sha256, graph_sha256
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.inference import Session

__all__ = ["publish", "stamp"]


def stamp(model: onnx.ModelProto, contract: Contract) -> bytes:
    """Bytes of a model with its contract and the hash of it, the same for the same model and contract."""
    text = contract.to_json()
    onnx.helper.set_model_props(model, {CONTRACT_KEY: text, CONTRACT_HASH_KEY: contract_sha256(text)})
    return model.SerializeToString(deterministic=True)


def publish(model: onnx.ModelProto, contract: Contract, out: Path) -> Contract:
    """Write `out`; it appears complete and checked, or not at all.

    Parameters
    ----------
    contract
        Without the hash of the graph and the reference pair, which are found here.

    Returns
    -------
    The contract that was stamped.

    Raises
    ------
    VerificationError
        If the file is no valid artifact, or does not give the output that the graph gave before it was written.
    """
    rule, inputs = contract_input(contract)
    engine = open_onnxruntime(model.SerializeToString(deterministic=True))
    contract = contract.model_copy(
        update={"reference": reference_pair(engine, rule, *inputs), "graph_sha256": graph_sha256(model)}
    )
    with atomic_path(out) as partial:
        partial.write_bytes(stamp(model, contract))
        data = partial.read_bytes()
        names = {
            "inputs": [tensor.name for tensor in contract.inputs],
            "outputs": [contract.output.name],
        }
        if graph_sha256(check_graph(data, **names, batch=contract.batch)) != contract.graph_sha256:
            raise VerificationError("the file does not hold the graph that was verified")
        if reference_pair(open_onnxruntime(data), rule, *inputs) != contract.reference:
            raise VerificationError(
                "the file does not give the output that the graph gave before it was written"
            )
        try:
            session = Session(partial, "cpu")
        except InputError as error:
            raise VerificationError(f"the runtime does not take the file: {error}") from error
        if session.contract != contract:
            raise VerificationError("the contract in the file is not the one that was stamped")
    return contract
