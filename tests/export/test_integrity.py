"""`inspect --verify` notices any change of contract, graph or output for which a hash is stored."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ptychonnx.export.artifact.artifact_checks import check_artifact, raise_on_difference
from ptychonnx.export.artifact.graph_variants import counts_input, fix_batch
from ptychonnx.export.artifact.module_description import MODULE_KEY
from ptychonnx.export.artifact.publication import publish, stamped_bytes
from ptychonnx.export.verification.engines import open_onnxruntime
from ptychonnx.export.verification.reference_pair import contract_reference, module_reference, reference_pair
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.contract.integrity import CONTRACT_HASH_KEY, contract_sha256, graph_sha256
from ptychonnx.runtime.errors import InputError, VerificationError
from tests.export.small_network import contract_of, small_network

ALL = ["contract", "graph", "reference input", "reference output"]


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "small.onnx"
    publish(small_network(), contract_of("small"), path)
    return path


def read(path):
    model = onnx.load(path)
    return model, {entry.key: entry.value for entry in model.metadata_props}


def write(path, model, metadata):
    onnx.helper.set_model_props(model, metadata)
    path.write_bytes(model.SerializeToString())


def state(path):
    return {check.name: check.passed for check in check_artifact(path)}


def assert_differs(path, name, message):
    checks = check_artifact(path)
    assert [check.name for check in checks if check.passed is False] == [name]
    with pytest.raises(VerificationError, match=rf"small\.onnx: {name}: .*{message}") as error:
        raise_on_difference(path, checks)
    assert "\n" not in str(error.value)


def flip_a_weight(model, bit=0):
    """The lowest bit of one weight: too little to change any figure."""
    (tensor,) = (entry for entry in model.graph.initializer if entry.name == "third.weight")
    raw = bytearray(tensor.raw_data)
    raw[bit // 8] ^= 1 << bit % 8
    tensor.raw_data = bytes(raw)


def test_a_published_artifact_passes_every_check(artifact):
    assert state(artifact) == dict.fromkeys(ALL, True)
    assert "bit for bit" in check_artifact(artifact)[-1].finding
    raise_on_difference(artifact, check_artifact(artifact))


def test_a_flipped_bit_in_a_weight_is_noticed(artifact):
    model, metadata = read(artifact)
    flip_a_weight(model)
    write(artifact, model, metadata)
    assert_differs(artifact, "graph", "was changed")


@pytest.mark.parametrize(
    "change", [{"label": "pinn_fno"}, {"input": {"scale": 0.06, "scale_rule": "a guess"}}]
)
def test_a_changed_contract_is_noticed(artifact, change):
    model, metadata = read(artifact)
    contract = json.loads(metadata[CONTRACT_KEY]) | change
    changed = Contract.model_validate(contract).to_json()
    write(artifact, model, metadata | {CONTRACT_KEY: changed})
    assert_differs(artifact, "contract", "was changed")


def test_a_broken_contract_is_noticed_and_not_parsed(artifact):
    model, metadata = read(artifact)
    write(artifact, model, metadata | {CONTRACT_KEY: metadata[CONTRACT_KEY][:-1]})
    assert_differs(artifact, "contract", "was changed")


def test_an_exchanged_graph_is_noticed(artifact):
    _, metadata = read(artifact)
    write(artifact, small_network("outlier"), metadata)
    assert_differs(artifact, "graph", "was changed")


def test_bytes_that_no_field_claims_are_noticed(artifact):
    artifact.write_bytes(artifact.read_bytes() + b"\xfa\x3e\x04more")
    assert_differs(artifact, "graph", "was changed")


def restamp(path, model, **changes):
    """Someone who makes the hashes anew, as an attacker would; only a signature stands against that."""
    contract = Contract.from_json(read(path)[1][CONTRACT_KEY], "test")
    changes = {"graph_sha256": graph_sha256(model)} | changes
    path.write_bytes(stamped_bytes(model, contract.model_copy(update=changes)))


def test_another_network_under_new_hashes_is_noticed_by_its_answer(artifact):
    model, _ = read(artifact)
    flip_a_weight(model, bit=30)
    restamp(artifact, model)
    assert state(artifact)["graph"] is True
    assert_differs(artifact, "reference output", "beyond 0.0001")


def test_other_bits_of_the_same_size_pass_as_on_another_processor(artifact):
    model, _ = read(artifact)
    flip_a_weight(model)
    restamp(artifact, model)
    checks = check_artifact(artifact)
    assert all(check.passed for check in checks)
    assert "other bits than at export" in checks[-1].finding
    assert "within 0.0001" in checks[-1].finding


def test_an_output_that_is_not_finite_does_not_pass(artifact):
    model, _ = read(artifact)
    for tensor in model.graph.initializer:
        if tensor.name == "scale":
            tensor.CopyFrom(numpy_helper.from_array(np.float32("nan"), "scale"))
    restamp(artifact, model)
    assert_differs(artifact, "reference output", "nan")


def test_a_contract_of_another_flux_does_not_make_the_same_input(artifact):
    model, metadata = read(artifact)
    probe = json.loads(metadata[CONTRACT_KEY])["probe"] | {"flux": 5.0}
    restamp(artifact, model, probe=contract_of("small", probe=probe).probe)
    assert_differs(artifact, "reference input", "expected .*poisson")


def test_another_input_than_the_stored_one_is_noticed(artifact):
    model, metadata = read(artifact)
    reference = Contract.from_json(metadata[CONTRACT_KEY], "test").reference
    restamp(artifact, model, reference=reference.model_copy(update={"input_sha256": "0" * 64}))
    assert state(artifact)["reference input"] is False


def test_missing_hashes_are_reported_as_unchecked(artifact):
    model, metadata = read(artifact)
    contract = Contract.from_json(metadata[CONTRACT_KEY], "test")
    bare = contract.model_copy(update={"graph_sha256": None, "reference": None})
    write(artifact, model, {CONTRACT_KEY: bare.to_json()})
    checks = check_artifact(artifact)
    assert state(artifact) == dict.fromkeys(["contract", "graph", "reference"])
    raise_on_difference(artifact, checks)
    assert contract_sha256(bare.to_json())[:12] in checks[0].finding


def test_weights_in_another_file_are_reported_as_unchecked(artifact):
    model, metadata = read(artifact)
    contract = Contract.from_json(metadata[CONTRACT_KEY], "test")
    onnx.external_data_helper.convert_model_to_external_data(model, location="w.data", size_threshold=100)
    onnx.save(model, artifact)
    model = onnx.load(artifact, load_external_data=False)
    restamp(artifact, model)
    assert state(artifact) == {"contract": True, "graph": True} | dict.fromkeys(
        ["weights in other files", "reference"]
    )
    assert graph_sha256(model) != contract.graph_sha256


def test_a_file_without_a_contract_cannot_be_checked(artifact):
    model, _ = read(artifact)
    write(artifact, model, {})
    with pytest.raises(InputError, match=r"small\.onnx: no ptychonnx\.contract"):
        check_artifact(artifact)


def test_counts_and_a_fixed_batch_are_checked_too(tmp_path):
    counts = {"domain": "counts", "dtype": "uint16", "scale": 0.05, "scale_rule": "a guess"}
    contract = contract_of("small", input=counts, batch=5)
    path = tmp_path / "small.onnx"
    publish(fix_batch(counts_input(small_network()), 5), contract, path)
    rule, (inputs,) = contract_reference(contract)
    assert (inputs.shape, inputs.dtype) == ((5, 1, 16, 16), np.uint16)
    assert rule.endswith("repeated to a batch of 5")
    np.testing.assert_array_equal(inputs[2], inputs[0])
    assert state(path) == dict.fromkeys(ALL, True)


def test_the_hash_of_the_contract_is_stamped_next_to_it(artifact):
    _, metadata = read(artifact)
    assert metadata[CONTRACT_HASH_KEY] == contract_sha256(metadata[CONTRACT_KEY])


def test_a_module_without_a_contract_is_checked_by_the_hashes_that_it_has(tmp_path):
    path, model = tmp_path / "small.onnx", small_network()
    rule, (inputs,) = module_reference(model)
    assert (inputs.shape, inputs.dtype) == ((2, 1, 16, 16), np.float32)
    # Positive, since the network takes a logarithm.
    add_positive(model)
    pair = reference_pair(open_onnxruntime(model.SerializeToString()), rule, inputs)
    described = {"name": "net", "graph_sha256": graph_sha256(model), "reference": pair.model_dump()}
    write(path, model, {MODULE_KEY: json.dumps(described)})
    assert state(path) == dict.fromkeys(ALL[1:], True)
    flip_a_weight(model)
    write(path, model, {MODULE_KEY: json.dumps(described)})
    assert_differs(path, "graph", "was changed")
    described["graph_sha256"] = graph_sha256(model)
    write(path, model, {MODULE_KEY: json.dumps(described | {"reference": None})})
    assert state(path) == {"graph": True, "reference": None}
    write(path, model, {MODULE_KEY: "no JSON"})
    with pytest.raises(InputError, match=r"ptychonnx\.module not understood: .*JSON"):
        check_artifact(path)


def add_positive(model):
    """Squares in the place of the scaled input."""
    (scale,) = (node for node in model.graph.node if node.name == "scale")
    scale.input[1] = "diffraction"
