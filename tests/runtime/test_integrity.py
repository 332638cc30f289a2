"""Files that could do harm are refused before an engine opens them, and hashes notice what was changed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from ptychonnx.runtime.contract import CONTRACT_KEY
from ptychonnx.runtime.contract.integrity import (
    CONTRACT_HASH_KEY,
    MAX_BYTES_VARIABLE,
    check_model_file,
    contract_sha256,
    external_tensors,
    graph_sha256,
    stored_contract,
)
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.inference import Session
from tests.runtime.test_session import contract

SIZE = 4
ORDINARY = helper.make_node("Add", ["x", "w"], ["y"])
FOREIGN = helper.make_node("Shout", ["x"], ["y"], domain="com.example")


def value(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIZE])


def model_of(*nodes, weights=(), functions=(), domains=()):
    graph = helper.make_graph(list(nodes), "g", [value("x")], [value("y")], list(weights))
    opsets = [helper.make_opsetid(domain, 18 if domain == "" else 1) for domain in ("", *domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=list(functions))


def inside(number=7.0):
    return numpy_helper.from_array(np.full(SIZE, number, np.float32), "w")


def outside(*locations):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[SIZE])
    tensor.data_location = TensorProto.EXTERNAL
    for location in locations:
        tensor.external_data.add(key="location", value=str(location))
    return tensor


def saved(path: Path, model) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def branch(node):
    """An If whose branches hold `node`."""
    graph = helper.make_graph([node], "branch", [], [value("y")])
    return helper.make_node("If", ["condition"], ["y"], then_branch=graph, else_branch=graph)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model's folder with weights in it, and other weights beside the folder."""
    np.full(SIZE, 99, np.float32).tofile(tmp_path / "secret.bin")
    (tmp_path / "models" / "more").mkdir(parents=True)
    np.full(SIZE, 7, np.float32).tofile(tmp_path / "models" / "w.bin")
    np.full(SIZE, 7, np.float32).tofile(tmp_path / "models" / "more" / "w.bin")
    return tmp_path / "models"


@pytest.mark.parametrize("location", ["w.bin", "more/w.bin", "more/../w.bin"])
def test_weights_in_the_folder_of_the_model_are_taken(folder, location):
    path = saved(folder / "m.onnx", model_of(ORDINARY, weights=[outside(location)]))
    (tensor,) = external_tensors(check_model_file(path))
    assert not tensor.raw_data
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": np.zeros(SIZE, np.float32)})[0], 7)


def test_weights_that_no_hash_covers_are_refused(folder):
    model = model_of(ORDINARY, weights=[outside("w.bin")])
    text = contract(graph_sha256=graph_sha256(model)).to_json()
    helper.set_model_props(model, {CONTRACT_KEY: text, CONTRACT_HASH_KEY: contract_sha256(text)})
    path = saved(folder / "m.onnx", model)
    with pytest.raises(VerificationError, match=r"weights in other files, which its hash does not cover"):
        stored_contract(path, check_model_file(path))


def links_out(folder):
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    return ["link.bin"]


def linked_folder(folder):
    (folder / "out").symlink_to(folder.parent)
    return ["out/secret.bin"]


def in_memory(folder):
    """A name that onnxruntime takes for an address in memory, and a file that really has it."""
    (folder / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
    np.ones(SIZE, np.float32).tofile(folder / "*" / "_ORT_MEM_ADDR_" / "*")
    return ["*/_ORT_MEM_ADDR_/*"]


LEAVING = {
    "above": lambda folder: ["../secret.bin"],
    "below and above": lambda folder: ["more/../../secret.bin"],
    "absolute": lambda folder: [folder.parent / "secret.bin"],
    "absolute, in the folder": lambda folder: [folder / "w.bin"],
    "linked file": links_out,
    "linked folder": linked_folder,
    "two places": lambda folder: ["w.bin", "../secret.bin"],
    "nowhere": lambda folder: [],
    "missing": lambda folder: ["absent.bin"],
    "a folder": lambda folder: ["more"],
    "no name": lambda folder: ["w.bin\0x"],
    "a long name": lambda folder: ["x" * 5000],
    "address": in_memory,
}


@pytest.mark.parametrize("case", LEAVING)
def test_weights_anywhere_else_are_refused(folder, case):
    weight = outside(*LEAVING[case](folder))
    path = saved(folder / "m.onnx", model_of(ORDINARY, weights=[weight]))
    for refuse in (check_model_file, Session):
        with pytest.raises(InputError, match=r"m\.onnx: weight 'w' is in ") as error:
            refuse(path)
        assert "\n" not in str(error.value)


def constant(**attribute):
    return helper.make_node("Constant", [], ["c"], **attribute)


def in_a_function():
    body = [branch(constant(value=outside("../secret.bin")))]
    opsets = [helper.make_opsetid("", 18)]
    return [helper.make_function("local", "Look", ["x"], ["y"], body, opsets)]


def sparse():
    node = constant(sparse_value=0.0)
    attribute = node.attribute[0]
    attribute.Clear()
    attribute.name, attribute.type = "sparse_value", onnx.AttributeProto.SPARSE_TENSOR
    attribute.sparse_tensor.values.CopyFrom(outside("../secret.bin"))
    return node


HIDDEN = {
    "attribute": lambda: model_of(ORDINARY, constant(value=outside("../secret.bin")), weights=[inside()]),
    "branch": lambda: model_of(branch(constant(value=outside("../secret.bin")))),
    "branch of a branch": lambda: model_of(branch(branch(constant(value=outside("../secret.bin"))))),
    "function": lambda: model_of(ORDINARY, weights=[inside()], functions=in_a_function()),
    "sparse": lambda: model_of(ORDINARY, sparse(), weights=[inside()]),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_weights_elsewhere_are_found_wherever_they_are_named(folder, case):
    path = saved(folder / "m.onnx", HIDDEN[case]())
    with pytest.raises(InputError, match=r"is in '\.\./secret\.bin'"):
        check_model_file(path)


def test_weights_are_looked_for_beside_a_link_to_the_model(folder):
    """That is where onnxruntime reads them, not where the link points to."""
    saved(folder / "m.onnx", model_of(ORDINARY, weights=[outside("w.bin")]))
    other = folder.parent / "other"
    other.mkdir()
    (other / "l.onnx").symlink_to(folder / "m.onnx")
    (other / "w.bin").symlink_to(folder.parent / "secret.bin")
    with pytest.raises(InputError, match="in the model's own folder"):
        check_model_file(other / "l.onnx")


def function_of(domain, name, *nodes):
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    return helper.make_function(domain, name, ["x"], ["y"], list(nodes), opsets)


STRANGE = {
    "graph": lambda: model_of(FOREIGN, domains=["com.example"]),
    "branch": lambda: model_of(branch(branch(FOREIGN))),
    "function": lambda: model_of(ORDINARY, functions=[function_of("local", "Look", FOREIGN)]),
    "branch in a function": lambda: model_of(
        ORDINARY, functions=[function_of("local", "Look", branch(FOREIGN))]
    ),
    "domain of a function": lambda: model_of(
        FOREIGN, functions=[function_of("com.example", "Whisper", ORDINARY)]
    ),
    # It names a compiled file that an execution provider opens.
    "in onnxruntime": lambda: model_of(helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")),
}


@pytest.mark.parametrize("case", STRANGE)
def test_operators_that_need_a_library_are_refused(tmp_path, case):
    path = saved(tmp_path / "m.onnx", STRANGE[case]())
    for refuse in (check_model_file, Session):
        with pytest.raises(InputError, match=r"uses the operators com\.\w+\.(Shout|EPContext), expected"):
            refuse(path)


def test_a_function_that_is_written_out_in_onnx_operators_is_taken(tmp_path):
    call = helper.make_node("Twice", ["x"], ["y"], domain="com.example")
    function = function_of("com.example", "Twice", helper.make_node("Add", ["x", "x"], ["y"]))
    path = saved(tmp_path / "m.onnx", model_of(call, functions=[function], domains=["com.example"]))
    check_model_file(path)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": np.ones(SIZE, np.float32)})[0], 2)


def test_large_files_are_refused_and_the_limit_can_be_set(folder, monkeypatch):
    path = saved(folder / "m.onnx", model_of(ORDINARY, weights=[outside("w.bin")]))
    alone = path.stat().st_size
    check_model_file(path, max_bytes=alone + 4 * SIZE)
    with pytest.raises(InputError, match=f"has {alone + 16} bytes with its external data, expected at most"):
        check_model_file(path, max_bytes=alone + 4 * SIZE - 1)
    with pytest.raises(InputError, match=f"has {alone} bytes, expected at most {alone - 1} "):
        Session(path, max_bytes=alone - 1)
    monkeypatch.setenv(MAX_BYTES_VARIABLE, str(alone))
    with pytest.raises(InputError, match=MAX_BYTES_VARIABLE):
        check_model_file(path)
    check_model_file(path, max_bytes=10_000)
    for bad in ("2 GB", "0", "-1", ""):
        monkeypatch.setenv(MAX_BYTES_VARIABLE, bad)
        with pytest.raises(InputError, match=f"{MAX_BYTES_VARIABLE} is '{bad}', expected a number of bytes"):
            check_model_file(path)


def test_a_large_file_is_not_even_read(tmp_path):
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 2**40)
    with pytest.raises(InputError, match=f"has {2**40} bytes"):
        check_model_file(path)


@pytest.mark.parametrize("name", ["m.onnx", "m.json", "m.onnxtxt", "m.textproto"])
def test_what_is_no_model_is_refused_in_one_line(tmp_path, name):
    whole = model_of(ORDINARY, weights=[inside()]).SerializeToString()
    path = tmp_path / name
    bodies = (b"", b"hello", b"{}", whole[: len(whole) // 2], whole[:-1], b"\0" * 100, whole[3:])
    for body in bodies:
        path.write_bytes(body)
        with pytest.raises(InputError, match=rf"{name}: not a readable ONNX model \(") as error:
            check_model_file(path)
        assert "\n" not in str(error.value)
    path.write_bytes(whole)
    check_model_file(path)
    with pytest.raises(InputError, match="is a folder, expected an ONNX artifact"):
        check_model_file(tmp_path)


def test_a_contract_that_stands_twice_is_refused(tmp_path):
    model = model_of(ORDINARY, weights=[inside()])
    for text in ("one", "other"):
        model.metadata_props.add(key="ptychonnx.contract", value=text)
    with pytest.raises(InputError, match=r"key 'ptychonnx\.contract' occurs 2 times, expected once"):
        check_model_file(saved(tmp_path / "m.onnx", model))


def test_the_hash_covers_the_graph_and_not_its_metadata():
    model = model_of(ORDINARY, weights=[inside()])
    plain = graph_sha256(model)
    helper.set_model_props(model, {"ptychonnx.contract": "anything"})
    assert graph_sha256(model) == plain
    assert model.metadata_props[0].value == "anything"
    assert graph_sha256(onnx.load_from_string(model.SerializeToString())) == plain
    lowest_bit = np.full(SIZE, 7, np.float32).view(np.uint32)
    lowest_bit[0] ^= 1
    changes = [
        model_of(ORDINARY, weights=[numpy_helper.from_array(lowest_bit.view(np.float32), "w")]),
        model_of(helper.make_node("Sub", ["x", "w"], ["y"]), weights=[inside()]),
    ]
    with_padding = onnx.load_from_string(model.SerializeToString() + b"\xfa\x3e\x04more")
    assert len({plain, graph_sha256(with_padding), *map(graph_sha256, changes)}) == 4
