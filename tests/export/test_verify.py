"""Faults of a graph or its weights are found, and reported with figures."""

from __future__ import annotations

import hashlib
import re
import tracemalloc
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from ptychonnx.export.graph.inspection import check_graph
from ptychonnx.export.verification.engines import open_onnxruntime, open_reference
from ptychonnx.export.verification.inputs import VerificationInputs
from ptychonnx.export.verification.reference_pair import reference_pair, reference_patterns
from ptychonnx.export.verification.report_files import report_text
from ptychonnx.export.verification.trained_weights import count_found, prove_weights
from ptychonnx.export.verification.verdict import report_lines
from ptychonnx.export.verification.verify import relative_difference, verify
from ptychonnx.runtime.errors import VerificationError
from ptychonnx.train.run import fingerprint
from tests.export.graphs import model_of

WEIGHT = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
INPUTS = np.random.default_rng(1).normal(size=(20, 1, 4, 4)).astype(np.float32)


def network(weight=WEIGHT, **changes):
    """[batch, 1, 4, 4] @ weight, as an artifact."""
    return model_of(
        [helper.make_node("MatMul", ["diffraction", "weight"], ["object"])],
        [("diffraction", [changes.get("batch", "batch"), 1, 4, 4])],
        [("object", [changes.get("batch", "batch"), 1, 4, 6])],
        [("weight", weight)],
    )


def native(x):
    return x @ WEIGHT


def record(trained, initial):
    return SimpleNamespace(trained_tensors=fingerprint(trained), initial_tensors=fingerprint(initial))


def report_of(artifact, network=native, **settings):
    """A report on inputs of one kind in one engine; `artifact` is a graph or a function."""

    def load():
        if isinstance(artifact, onnx.ModelProto):
            return open_onnxruntime(artifact.SerializeToString())
        artifact.name = "onnxruntime, or what stands for it"
        return artifact

    return verify(
        "some",
        {"onnxruntime": load},
        network,
        [VerificationInputs("held-out", "seeded", (INPUTS,))],
        **settings,
    )


def test_parity_of_equal_networks_is_measured_on_every_batch():
    report = report_of(network())
    parity = report.parity()
    assert not report.failures
    assert parity.max_relative_error < 1e-6
    assert parity.rms_relative_error <= parity.max_relative_error
    assert parity.batches == [1, 3, 16]
    assert parity.patterns == "seeded"


def test_one_changed_weight_is_found_with_its_place():
    weight = WEIGHT.copy()
    weight[2, 5] += 0.01
    report = report_of(network(weight))
    with pytest.raises(
        VerificationError, match=r"^parity: relative error .*worst element \(\d+, 0, \d, 5\)"
    ) as caught:
        report.raise_on_refusal()
    # The largest of the three batches, each on its own scale.
    errors = []
    for start, size in ((0, 1), (1, 3), (4, 16)):
        inputs = INPUTS[start : start + size]
        errors.append(0.01 * np.abs(inputs[:, 0, :, 2]).max() / np.abs(native(inputs)).max())
    figure = float(re.search(r"relative error (\S+)", str(caught.value)).group(1))
    assert figure == pytest.approx(max(errors), rel=0.02)
    assert report_of(network(weight), tolerance=0.1).worst_case().worst.index[-1] == 5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_never_pass(value):
    def broken(x):
        output = native(x)
        output[-1, 0, 0, 0] = value
        return output

    for artifact, network in ((broken, native), (lambda x: native(x), broken), (broken, broken)):
        with pytest.raises(VerificationError, match=r"^parity"):
            report_of(artifact, network).raise_on_refusal()
    assert relative_difference(broken(INPUTS), native(INPUTS)) != 0
    assert relative_difference(native(INPUTS), broken(INPUTS)) == np.inf


def test_another_shape_is_no_parity():
    with pytest.raises(VerificationError, match=r"artifact returns \(1, 1, 4, 6, 1\)"):
        report_of(lambda x: native(x)[..., None]).raise_on_refusal()


def test_an_engine_that_cannot_load_the_graph_fails_every_case():
    report = report_of(with_node(helper.make_node("Nonsense", ["a"], ["b"])))
    assert [case.passed for case in report.cases] == [False] * 3
    with pytest.raises(VerificationError, match=r"onnxruntime .* refuses it: .*Nonsense"):
        report.raise_on_refusal()


@pytest.mark.parametrize("large", [True, False])
def test_a_difference_in_a_large_output_is_located_by_its_worst_element_alone(monkeypatch, large):
    monkeypatch.setattr("ptychonnx.export.verification.verify._LARGE", 0 if large else 2**19)
    located = []

    def artifact(x):
        # Wrong for one pattern of the batch of three.
        return native(x) + np.all(x == INPUTS[2], axis=(1, 2, 3), keepdims=True)

    report = report_of(artifact, locate=lambda engine, batch: located.append(batch))
    assert not all(case.passed for case in report.cases)
    assert np.array_equal(located[0], INPUTS[2:3] if large else INPUTS[1:4])


def test_the_evaluator_keeps_no_value_longer_than_it_is_read():
    """A chain of 40 sums of 1 MB each needs a few of them at a time; the first is read again in a branch at its end."""
    size = 2**18
    nodes = [helper.make_node("Add", [f"x{step}", "one"], [f"x{step + 1}"]) for step in range(40)]
    value = helper.make_tensor_value_info("taken", onnx.TensorProto.FLOAT, [size])
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("Add", ["x1", "x40"], ["taken"])], name, [], [value]
        )
        for name in ("then", "else")
    }
    nodes.append(helper.make_node("If", ["yes"], ["out"], **branches))
    model = model_of(
        nodes,
        [("x0", [size])],
        [("out", [size])],
        [("one", np.ones(1, dtype=np.float32)), ("yes", np.array(True))],
    )
    engine = open_reference(model.SerializeToString())
    start = np.zeros(size, dtype=np.float32)
    tracemalloc.start()
    try:
        result = engine(start)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.all(result == 41)
    assert peak < 10 * start.nbytes


@pytest.mark.parametrize("axis", [1, -2])
def test_the_evaluator_gathers_from_more_than_64_entries(axis):
    generator = np.random.default_rng(0)
    data = generator.normal(size=(2, 100, 3)).astype(np.float32)
    indices = generator.integers(-100, 100, (1, 70, 2))
    model = model_of(
        [helper.make_node("GatherElements", ["data", "indices"], ["out"], axis=axis)],
        [("data", [2, 100, 3])],
        [("out", [1, 70, 2])],
        [("indices", indices)],
    )
    expected = [[[data[0, indices[0, row, column], column] for column in (0, 1)] for row in range(70)]]
    np.testing.assert_array_equal(open_reference(model.SerializeToString())(data), expected)
    np.testing.assert_array_equal(open_onnxruntime(model.SerializeToString())(data), expected)


def engine(name, answer=native):
    """A function that loads something with the interface of an engine."""

    def run(x):
        if isinstance(answer, str):
            raise VerificationError(answer)
        return answer(x)

    run.name = name
    return lambda: run


@pytest.mark.parametrize(
    ("openvino", "reason"),
    [(native, None), (lambda x: 2 * native(x), "64 array objects"), ("limit of its own", "64 array objects")],
)
def test_an_engine_that_cannot_run_a_graph_does_not_decide_if_two_others_agree(openvino, reason):
    engines = {
        "onnxruntime": engine("onnxruntime"),
        "openvino": engine("OpenVINO", openvino),
        "reference": engine("onnx reference evaluator", "64 array objects"),
    }
    report = verify("some", engines, native, [VerificationInputs("random", "seeded", (INPUTS,))])
    assert [case.could_not_run for case in report.cases if case.engine.startswith("onnx ")] == [True]
    assert "onnx reference evaluator: could not run: 64 array objects" in report_lines(report)
    if reason is None:
        report.raise_on_refusal()
        return
    with pytest.raises(VerificationError, match=reason):
        report.raise_on_refusal()


def test_a_wrong_answer_decides_although_two_others_agree():
    engines = {
        "onnxruntime": engine("onnxruntime"),
        "openvino": engine("OpenVINO"),
        "reference": engine("onnx reference evaluator", lambda x: 2 * native(x)),
    }
    report = verify("some", engines, native, [VerificationInputs("random", "seeded", (INPUTS,))])
    with pytest.raises(VerificationError, match=r"relative error 1\.00e\+00"):
        report.raise_on_refusal()


def test_tiny_outputs_are_judged_on_the_scale_of_the_first_kind():
    faint = 1e-6 * INPUTS

    def artifact(x):
        return native(x) + np.float32(1e-9)

    artifact.name = "onnxruntime"
    inputs = [
        VerificationInputs("held-out", "", (INPUTS,)),
        VerificationInputs("all-zero", "", (0 * INPUTS,)),
        VerificationInputs("faint", "", (faint,)),
    ]
    report = verify("some", {"onnxruntime": lambda: artifact}, native, inputs)
    assert not report.failures
    by_kind = {case.inputs: case.scale for case in report.cases if case.batch == 16}
    assert by_kind["held-out"] == pytest.approx(np.abs(native(INPUTS[4:20])).max())
    assert by_kind["all-zero"] == by_kind["faint"] == pytest.approx(1e-3 * np.abs(native(INPUTS[:16])).max())


def test_the_text_of_a_report_begins_with_the_verdict():
    good = report_text(report_of(network()))
    assert good.startswith("some: verified, 3 of 3 cases pass\nlargest relative error ")
    weight = WEIGHT.copy()
    weight[2, 5] += 0.01
    bad = report_text(report_of(network(weight)))
    assert bad.startswith("some: refused, 0 of 3 cases pass\nFAILED relative error ")
    assert bad.count("FAILED\n") == 3


def with_node(node, opset_domain=None):
    model = network()
    model.graph.node[0].output[0] = "inner"
    node.input[0], node.output[0] = "inner", "object"
    model.graph.node.append(node)
    if opset_domain:
        model.opset_import.append(helper.make_opsetid(opset_domain, 1))
    return model


def complex_constant():
    model = network()
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.complex64), "unused"))
    return model


def external_constant():
    model = network()
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location="weights.bin")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    return model


def renamed_output():
    model = network()
    model.graph.node[0].output[0] = model.graph.output[0].name = "patches"
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            with_node(helper.make_node("Custom", ["a"], ["b"], domain="com.microsoft"), "com.microsoft"),
            "Custom",
        ),
        (with_node(helper.make_node("Nonsense", ["a"], ["b"])), "checker refuses"),
        (with_node(helper.make_node("DFT", ["a"], ["b"], axis=2, inverse=0)), "DFT"),
        (complex_constant(), "complex"),
        (external_constant(), "checker refuses|another file"),
        (network(batch=3), "batch of input 'diffraction' is fixed"),
        (renamed_output(), r"outputs are \['patches'\]"),
    ],
    ids=["custom", "unknown", "dft", "complex", "external", "fixed", "names"],
)
def test_graphs_that_would_not_run_everywhere_are_refused(model, reason):
    with pytest.raises(VerificationError, match=rf"^graph: .*({reason})"):
        check_graph(model.SerializeToString())


def test_bytes_that_are_no_model_are_refused():
    for data in (b"", b"not a model", network().SerializeToString()[:-40]):
        with pytest.raises(VerificationError, match=r"^graph"):
            check_graph(data)


def test_weights_are_found_whatever_their_order_and_only_if_equal():
    complex_weight = np.array([[1 + 2j, 3 - 4j]], np.complex64)
    real, imaginary = complex_weight.real, complex_weight.imag
    model = network()
    block = np.block([[real, imaginary], [-imaginary, real]]).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(block, "mixing"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(6, np.float32), "bias"))
    tensors = {"kernel": WEIGHT.T.copy(), "spectral": complex_weight, "bias": np.zeros(6, np.float32)}
    assert count_found(tensors, model) == 2
    changed = WEIGHT.copy()
    changed[0, 0] = np.nextafter(changed[0, 0], np.float32(9))
    assert count_found({"kernel": changed}, model) == 0


def test_trained_weights_are_proved():
    trained, initial = {"a": WEIGHT, "b": np.ones(3)}, {"a": WEIGHT + 1, "b": np.ones(3)}
    proof = prove_weights(record(trained, initial), trained, network(), 0.5, 1e-4)
    assert (proof.changed_tensors, proof.trainable_tensors, proof.found_bit_for_bit) == (1, 2, 1)
    assert proof.checkpoint_sha256 != proof.initial_sha256
    assert proof.initial_output_distance == 0.5


@pytest.mark.parametrize(
    ("trained", "initial", "loaded", "distance", "reason"),
    [
        ({"a": WEIGHT}, {"a": WEIGHT + 1}, {"a": WEIGHT + 1}, 0.5, "not those that training wrote, a first"),
        (
            {"a": WEIGHT, "b": WEIGHT},
            {"a": WEIGHT + 1},
            {"a": WEIGHT},
            0.5,
            "not those that training wrote, b",
        ),
        ({"a": WEIGHT}, {"a": WEIGHT}, {"a": WEIGHT}, 0.5, "none of 1 trainable tensors was changed"),
        ({"a": 2 * WEIGHT}, {"a": WEIGHT}, {"a": 2 * WEIGHT}, 0.5, "is in the graph"),
        ({"a": WEIGHT}, {"a": WEIGHT + 1}, {"a": WEIGHT}, 2e-4, "initial weights .* the same output"),
        ({"a": WEIGHT}, {"a": WEIGHT + 1}, {"a": WEIGHT}, float("nan"), "initial weights .* the same output"),
    ],
    ids=["other", "missing", "untrained", "not in graph", "same output", "nan"],
)
def test_weights_that_are_not_the_trained_ones_are_refused(trained, initial, loaded, distance, reason):
    with pytest.raises(VerificationError, match=f"^weights: .*{reason}"):
        prove_weights(record(trained, initial), loaded, network(), distance, 1e-4)


def test_the_reference_pair_can_be_made_again_from_its_rule():
    engine = open_onnxruntime(network().SerializeToString())
    pair = reference_pair(engine, *reference_patterns(1, 4, 48.0))
    rule = re.search(r"poisson\((\S+), (\(.*\))\)$", pair.rule)
    shape = tuple(int(size) for size in rule.group(2).strip("()").split(","))
    counts = np.random.RandomState(0).poisson(float(rule.group(1)), shape)
    assert counts.mean() == pytest.approx(3, rel=0.3)
    inputs = np.sqrt(counts).astype(np.float32)
    assert hashlib.sha256(inputs.tobytes()).hexdigest() == pair.input_sha256
    assert np.sqrt(np.mean(native(inputs) ** 2)) == pytest.approx(pair.output_rms, rel=1e-5)
