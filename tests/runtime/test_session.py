from __future__ import annotations

import dataclasses
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.errors import DeviceError, InputError
from ptychonnx.runtime.inference import Session, available
from ptychonnx.runtime.progress import Callback
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import cut_windows
from ptychonnx.runtime.scan.grouping import nearest_groups

SIZE = 16


def contract(gridsize=1, n=SIZE, **parts) -> Contract:
    return Contract.model_validate(
        {
            "label": "pinn_identity",
            "architecture": "identity",
            "n": n,
            "gridsize": gridsize,
            "input": {"scale": 1.0, "scale_rule": "none"},
            "stitching": {"weighting": "uniform"},
            "probe": {"sha256": None, "modes": 1, "flux": 1.0},
            "provenance": {
                "framework": "foreign",
                "versions": {},
                "git_commit": None,
                "parameters": 0,
                "training_data_sha256": "",
                "seed": 0,
                "epochs": 0,
                "loss": "none",
                "final_loss": 0.0,
            },
            "conversion": {
                "exporter": "test",
                "opset": 17,
                "ir_version": 10,
                "lowering": "none",
                "passes": [],
            },
        }
        | parts
    )


def write_identity(
    path, stamp, gridsize=1, n=SIZE, counts=False, graph_n=None, output="object", offsets=False
):
    """A network whose patch is its input, times 1 + 0.5i; with counts, of their square root; with offsets, plus
    row + i column.
    """
    side, channels = graph_n or n, gridsize**2
    dtype = TensorProto.UINT16 if counts else TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["diffraction"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Sqrt" if counts else "Identity", ["cast"], ["amplitude"]),
        helper.make_node("Transpose", ["amplitude"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Unsqueeze", ["last", "axis"], ["real"]),
        helper.make_node("Mul", ["real", "half"], ["imag"]),
        helper.make_node("Concat", ["real", "imag"], ["parts" if offsets else output], axis=4),
    ]
    inputs = [helper.make_tensor_value_info("diffraction", dtype, ["batch", channels, side, side])]
    if offsets:
        inputs.append(helper.make_tensor_value_info("offsets", TensorProto.FLOAT, ["batch", channels, 2]))
        nodes.append(helper.make_node("Unsqueeze", ["offsets", "plane"], ["places"]))
        nodes.append(helper.make_node("Add", ["parts", "places"], [output]))
    graph = helper.make_graph(
        nodes,
        "identity",
        inputs,
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", side, side, channels, 2])],
        [
            numpy_helper.from_array(np.array([4], np.int64), "axis"),
            numpy_helper.from_array(np.array([1, 2], np.int64), "plane"),
            numpy_helper.from_array(np.array(0.5, np.float32), "half"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    if stamp is not None:
        text = stamp if isinstance(stamp, str) else stamp.to_json()
        helper.set_model_props(model, {CONTRACT_KEY: text})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture
def artifact(tmp_path):
    return write_identity(tmp_path / "identity.onnx", contract())


@pytest.fixture
def oracle(truth, positions) -> Scan:
    """A scan whose patterns are the windows of a real object, so that the identity network is exact."""
    return Scan(cut_windows(np.abs(truth), positions, SIZE), positions, name="oracle")


def error_of(reconstruction, truth):
    stitched = reconstruction.stitched
    rows, columns = np.nonzero(stitched.covered)
    first, second = map(int, stitched.origin)
    expected = np.abs(truth)[rows + first, columns + second] * (1 + 0.5j)
    return np.abs(stitched.object[rows, columns] - expected).max()


def test_an_artifact_knows_its_contract(artifact):
    session = Session(artifact)
    assert session.contract == contract()
    assert session.provider == "CPUExecutionProvider" or "cuda" in available()


def test_the_operators_are_counted_by_provider(artifact):
    placement = Session(artifact, provider="cpu").placement()
    assert set(placement) == {"CPUExecutionProvider"}
    assert placement["CPUExecutionProvider"]["Transpose"] == 1


@pytest.mark.parametrize("gridsize", [1, 2])
def test_oracle_patches_give_the_object_back(tmp_path, oracle, truth, gridsize):
    path = write_identity(tmp_path / "g.onnx", contract(gridsize), gridsize)
    result = reconstruct(Session(path), oracle, batch=7)
    assert result.patterns == 20
    assert result.stitched.covered.sum() > 900
    assert error_of(result, truth) < 1e-6


@pytest.mark.parametrize("batch", [1, 3, 16, 20, 64])
def test_a_ragged_tail_changes_nothing(artifact, oracle, batch):
    session = Session(artifact)
    groups = np.arange(len(oracle))[:, None]
    whole = np.concatenate([patches for _, patches in session.batches(oracle, groups, 20)])
    parts = list(session.batches(oracle, groups, batch))
    assert np.concatenate([index for index, _ in parts])[:, 0].tolist() == list(range(20))
    np.testing.assert_array_equal(np.concatenate([patches for _, patches in parts]), whole)
    np.testing.assert_array_equal(whole[:, 0], oracle.diffraction * np.complex64(1 + 0.5j))


def test_progress_counts_every_group(artifact, oracle):
    done = []
    reconstruct(Session(artifact), oracle, batch=8, progress=Callback(done.append))
    assert [(step.done, step.total) for step in done] == [(8, 20), (16, 20), (20, 20)]


def test_counts_are_fed_as_counts(tmp_path, oracle):
    domain = {"domain": "counts", "dtype": "uint16", "scale": 1.0, "scale_rule": "none"}
    path = write_identity(tmp_path / "c.onnx", contract(input=domain), counts=True)
    scan = dataclasses.replace(oracle, diffraction=np.rint(oracle.diffraction * 100))
    session = Session(path)
    (_, patches), *_ = session.batches(scan, np.arange(20)[:, None], 20)
    np.testing.assert_allclose(patches[:, 0].real, scan.diffraction, rtol=1e-6)
    with pytest.raises(InputError, match="takes counts as uint16, got float32"):
        session.predict(scan.diffraction[:, None])
    bright = dataclasses.replace(scan, diffraction=scan.diffraction + np.float32(300))
    with pytest.raises(InputError, match="takes uint16, at most 65535"):
        list(session.batches(bright, np.arange(20)[:, None], 20))


def fix_batch(path, size, promised):
    """Give the graph a batch of one size, and let the contract promise one."""
    model = onnx.load(path)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = size
    helper.set_model_props(model, {CONTRACT_KEY: contract(batch=promised).to_json()})
    onnx.save(model, path)


def test_a_fixed_batch_that_the_contract_does_not_promise_is_refused(artifact):
    fix_batch(artifact, 1, None)
    with pytest.raises(
        InputError, match="promises any batch of input 'diffraction', the graph has a batch of 1"
    ):
        Session(artifact)


def test_a_fixed_batch_gives_what_any_batch_gives_and_its_filling_is_dropped(artifact, oracle):
    scan = oracle
    expected = Session(artifact).predict(scan.diffraction[:13, None])
    fix_batch(artifact, 4, 4)
    fixed = Session(artifact)
    np.testing.assert_array_equal(fixed.predict(scan.diffraction[:13, None]), expected)
    np.testing.assert_array_equal(fixed.predict(scan.diffraction[:4, None]), expected[:4])
    assert fixed.predict(scan.diffraction[:0, None]).shape == (0, 1, SIZE, SIZE)


def test_other_types_and_shapes_are_refused(artifact, oracle):
    session = Session(artifact)
    good = oracle.diffraction[:2, None]
    assert session.predict(good).shape == (2, 1, SIZE, SIZE)
    for bad in (good.astype(np.float64), good.astype(np.uint16)):
        with pytest.raises(InputError, match="takes amplitude as float32"):
            session.predict(bad)
    for bad in (good[:, 0], np.concatenate([good, good], axis=1), good[..., :-1]):
        with pytest.raises(InputError, match=r"expected \[batch, 1, 16, 16\]"):
            session.predict(bad)
    with pytest.raises(InputError, match="batch is 0"):
        list(session.batches(oracle, np.arange(20)[:, None], 0))


def test_a_scan_that_does_not_fit_is_refused(tmp_path, artifact, oracle):
    other = Scan(np.ones((5, 8, 8), np.float32), np.zeros((5, 2)), name="small")
    with pytest.raises(InputError, match=r"small: patterns are 8 x 8 pixels, identity\.onnx takes 16 x 16"):
        reconstruct(Session(artifact), other)
    pairs = Session(write_identity(tmp_path / "g.onnx", contract(2), 2))
    with pytest.raises(InputError, match=r"3 patterns.*gridsize 2 and needs at least 4"):
        reconstruct(pairs, oracle.subset(slice(0, 3)))
    with pytest.raises(InputError, match="needs a probe"):
        reconstruct(Session(artifact), oracle, ReconstructOptions(weighting="probe"))


@pytest.mark.parametrize("output", [{"representation": "amp_phase"}, {"quantity": "exit_wave"}])
def test_an_output_that_cannot_be_stitched_is_refused(tmp_path, oracle, output):
    session = Session(write_identity(tmp_path / "o.onnx", contract(output=output)))
    with pytest.raises(InputError, match="reconstructs from object patches as real_imag"):
        reconstruct(session, oracle)


def test_a_network_of_patterns_with_the_direct_beam_in_the_corner_is_refused(tmp_path, oracle):
    written = contract().model_dump(mode="json")
    session = Session(
        write_identity(
            tmp_path / "o.onnx",
            Contract.model_validate(written | {"input": written["input"] | {"dc": "corner"}}),
        )
    )
    with pytest.raises(InputError, match="direct beam in the corner"):
        reconstruct(session, oracle)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ('"scale": ', "Infinity", r"input\.scale"),
        ('"flux": ', "Infinity", r"probe\.flux"),
        ('"window": ', "1000", r"window: 1000, expected at most n"),
    ],
)
def test_a_contract_of_impossible_values_is_refused(tmp_path, key, value, message):
    text = re.sub(rf"({key})[^,}}]+", rf"\g<1>{value}", contract().to_json())
    with pytest.raises(InputError, match=message):
        Session(write_identity(tmp_path / "x.onnx", text))


def test_a_graph_that_does_not_state_its_axes_is_refused(tmp_path):
    path = write_identity(tmp_path / "x.onnx", contract())
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"x\.onnx: contract promises input 'diffraction' with axes"):
        Session(path)


def test_a_file_without_a_contract_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"bare\.onnx: no ptychonnx\.contract in its metadata"):
        Session(write_identity(tmp_path / "bare.onnx", None))


@pytest.mark.parametrize("text", ["{}", "not json", '{"version": 2}'])
def test_a_contract_that_is_none_is_refused(tmp_path, text):
    with pytest.raises(InputError, match=r"x\.onnx: contract not understood"):
        Session(write_identity(tmp_path / "x.onnx", text))


def test_a_contract_of_a_later_version_is_refused(tmp_path):
    later = contract().to_json().replace('"version": 1', '"version": 2')
    with pytest.raises(InputError, match="contract not understood: version"):
        Session(write_identity(tmp_path / "x.onnx", later))


def test_what_is_no_model_is_refused(tmp_path, artifact):
    content = artifact.read_bytes()
    for name, body in (
        ("cut.onnx", content[: len(content) // 2]),
        ("text.onnx", b"hello"),
        ("empty.onnx", b""),
    ):
        (tmp_path / name).write_bytes(body)
        with pytest.raises(InputError, match=rf"{name}: ") as error:
            Session(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no such file"):
        Session(tmp_path / "absent.onnx")
    with pytest.raises(InputError, match="is a folder"):
        Session(tmp_path)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"graph_n": 8}, r"promises input 'diffraction' of shape \[batch, 1, 16, 16\]"),
        ({"gridsize": 2}, "promises input 'diffraction'"),
        ({"output": "patch"}, r"names output 'object', the graph has \['patch'\]"),
    ],
)
def test_a_graph_that_breaks_its_contract_is_refused(tmp_path, graph, message):
    with pytest.raises(InputError, match=message):
        Session(write_identity(tmp_path / "x.onnx", contract(), **graph))


def test_the_type_of_the_input_must_keep_to_the_contract(tmp_path):
    with pytest.raises(InputError, match=r"x\.onnx: contract promises input 'diffraction' of type float"):
        Session(write_identity(tmp_path / "x.onnx", contract(), counts=True))


def test_a_provider_without_a_device_is_refused_and_auto_works(artifact):
    if "cuda" in available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(DeviceError, match="'cuda' has no device"):
        Session(artifact, provider="cuda")
    assert Session(artifact, provider="auto").provider == "CPUExecutionProvider"
    assert Session(artifact, threads=1).provider == "CPUExecutionProvider"


@pytest.mark.gpu
@pytest.mark.skipif(
    "cuda" not in available(), reason="no CUDA device that onnxruntime can use on this machine"
)
def test_cuda_agrees_with_the_cpu_and_nothing_falls_back(artifact):
    on_cpu, on_cuda = Session(artifact, "cpu"), Session(artifact, "cuda")
    patterns = np.random.default_rng(0).random((5, 1, SIZE, SIZE), dtype=np.float32)
    assert np.abs(on_cuda.predict(patterns) - on_cpu.predict(patterns)).max() < 1e-5
    assert list(on_cuda.placement()) == ["CUDAExecutionProvider"]


@pytest.mark.gpu
@pytest.mark.skipif(
    "cuda" not in available(), reason="no CUDA device that onnxruntime can use on this machine"
)
def test_a_replayed_cuda_graph_agrees_with_the_cpu(artifact):
    fix_batch(artifact, 4, 4)
    on_cpu, replayed = Session(artifact, "cpu"), Session(artifact, "cuda-graph")
    for seed in range(5):
        patterns = np.random.default_rng(seed).random((7, 1, SIZE, SIZE), dtype=np.float32)
        assert np.abs(replayed.predict(patterns) - on_cpu.predict(patterns)).max() < 1e-5


def patches_with_offsets(patterns, offsets):
    """What `write_identity` gives for them."""
    places = offsets[..., 0] + 1j * offsets[..., 1]
    return patterns * np.complex64(1 + 0.5j) + places[..., None, None]


@pytest.mark.parametrize("batch", [None, 4])
@pytest.mark.parametrize("bound", [False, True])
def test_offsets_reach_the_graph_with_their_patterns(tmp_path, batch, bound):
    path = write_identity(tmp_path / "o.onnx", contract(2, offsets={}), 2, offsets=True)
    if batch is not None:
        model = onnx.load(path)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = batch
        helper.set_model_props(model, {CONTRACT_KEY: contract(2, offsets={}, batch=batch).to_json()})
        onnx.save(model, path)
    rng = np.random.default_rng(3)
    patterns = rng.random((6, 4, SIZE, SIZE), dtype=np.float32)
    offsets = rng.normal(size=(6, 4, 2)).astype(np.float32)
    found = Session(path, "cpu", bound=bound).predict(patterns, offsets)
    np.testing.assert_allclose(found, patches_with_offsets(patterns, offsets), rtol=1e-6, atol=1e-6)


def test_a_scan_gives_the_offsets_of_each_group(tmp_path):
    rng = np.random.default_rng(4)
    positions = rng.uniform(20, 60, (9, 2))
    scan = Scan(rng.random((9, SIZE, SIZE), dtype=np.float32), positions, name="scan")
    session = Session(write_identity(tmp_path / "o.onnx", contract(2, offsets={}), 2, offsets=True), "cpu")
    groups = nearest_groups(positions, 4)
    for index, patches in session.batches(scan, groups, 4):
        moved = (positions[index] - positions[index[:, :1]]).astype(np.float32)
        expected = patches_with_offsets(scan.diffraction[index], moved)
        np.testing.assert_allclose(patches, expected, rtol=1e-6, atol=1e-5)


def test_inputs_that_the_contract_does_not_have_are_refused(tmp_path):
    path = write_identity(tmp_path / "o.onnx", contract(2, offsets={}), 2, offsets=True)
    session, patterns = Session(path, "cpu"), np.zeros((3, 4, SIZE, SIZE), np.float32)
    with pytest.raises(InputError, match="got 1 array, expected diffraction and offsets"):
        session.predict(patterns)
    with pytest.raises(InputError, match=r"shape \(2, 4, 2\), expected \[3, 4, 2\]"):
        session.predict(patterns, np.zeros((2, 4, 2), np.float32))
    with pytest.raises(InputError, match="takes offsets as float32, got float64"):
        session.predict(patterns, np.zeros((3, 4, 2)))
    undeclared = write_identity(tmp_path / "u.onnx", contract(2), 2, offsets=True)
    with pytest.raises(InputError, match="the graph takes offsets too, which the contract does not name"):
        Session(undeclared, "cpu")
    missing = write_identity(tmp_path / "m.onnx", contract(2, offsets={}), 2)
    with pytest.raises(InputError, match="contract names input 'offsets', the graph has"):
        Session(missing, "cpu")


def test_groups_that_cover_the_scan_are_enough(tmp_path, monkeypatch):
    session = Session(write_identity(tmp_path / "i.onnx", contract(2), 2), "cpu")
    scan = Scan(
        np.ones((100, SIZE, SIZE), np.float32), np.argwhere(np.ones((10, 10))) * 4.0 + 20, name="raster"
    )
    asked, done = [], []
    predict = Session.predict
    monkeypatch.setattr(
        Session,
        "predict",
        lambda self, patterns, beam: asked.append(len(patterns)) or predict(self, patterns, beam=beam),
    )
    reconstruct(session, scan, progress=Callback(done.append))
    assert 25 <= sum(asked) <= 45
    assert len(done) == len(asked)
    assert done[-1].done == 100
