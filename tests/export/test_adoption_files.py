"""Foreign files of every kind: old and new opsets, types, batches, Fourier operators, outputs and sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ptychonnx.export.adoption import Specification, adopt, read_specification
from ptychonnx.export.adoption.dft_products import replace_dft
from ptychonnx.export.adoption.interpolation import interpolate, interpolation_matrix
from ptychonnx.export.artifact.artifact_checks import check_artifact
from ptychonnx.runtime.errors import InputError, UnsupportedError
from ptychonnx.runtime.inference import Session

N = 16
ROOT = Path(__file__).parents[2]
AMPLITUDE = np.sqrt(np.random.default_rng(4).poisson(40, (3, 1, N, N))).astype(np.float32)
COUNTS = np.rint(AMPLITUDE**2)
KERNEL = np.random.default_rng(5).normal(size=(1, 1, 3, 3)).astype(np.float32) * 0.01
node = helper.make_node


def file_of(
    path,
    nodes,
    *,
    shape=("b", 1, N, N),
    outputs=("y",),
    constants=(),
    opset=18,
    ir_version=8,
    kind=TensorProto.FLOAT,
    out_kind=TensorProto.FLOAT,
    weights_among_inputs=False,
):
    """A foreign file with the input `x`."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants]
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    if weights_among_inputs:
        inputs += [helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in tensors]
    results = [helper.make_tensor_value_info(name, out_kind, None) for name in outputs]
    graph = helper.make_graph(nodes, "theirs", inputs, results, tensors)
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version), path)
    return path


def specified(folder, **content):
    basic = {"label": "theirs", "n": N, "flux": 1e4, "output": {"channels": ["phase"]}}
    path = folder / "theirs.yaml"
    path.write_text(yaml.safe_dump(basic | content))
    return read_specification(path)


def adopted(path, tmp_path, **content):
    return adopt(path, specified(tmp_path, **content), tmp_path / "ours.onnx")


def patches_of(path, amplitude=AMPLITUDE):
    return Session(path, "cpu").predict(amplitude)[:, 0]


def convolved(x=AMPLITUDE):
    """phase = 3 x 3 convolution with zero padding, by sums of shifted images."""
    padded = np.pad(x[:, 0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    side = x.shape[-1]
    return sum(
        KERNEL[0, 0, row, column] * padded[:, row : row + side, column : column + side]
        for row in range(3)
        for column in range(3)
    )


def convolution(kind=np.float32):
    return [node("Conv", ["x", "w"], ["y"], pads=[1] * 4)], [("w", KERNEL.astype(kind))]


@pytest.mark.parametrize("opset", [7, 9, 11, 17, 21, 24, 25, 26])
def test_files_of_old_and_new_opsets_are_adopted(opset, tmp_path):
    nodes, constants = convolution()
    old = opset < 9
    path = file_of(
        tmp_path / "t.onnx",
        nodes,
        constants=constants,
        opset=opset,
        ir_version=3 if old else min(13, max(8, opset - 11)),
        weights_among_inputs=old,
    )
    result = adopted(path, tmp_path)
    assert 18 <= result.contract.conversion.opset <= 23
    np.testing.assert_allclose(patches_of(result.path), np.exp(1j * convolved()), atol=1e-6)


def test_an_operator_without_an_older_form_keeps_its_opset(tmp_path):
    path = file_of(tmp_path / "t.onnx", [node("Swish", ["x"], ["y"])], opset=24, ir_version=11)
    result = adopted(path, tmp_path)
    assert result.contract.conversion.opset == 24
    x = AMPLITUDE[:, 0].astype(np.float64)
    np.testing.assert_allclose(patches_of(result.path), np.exp(1j * x / (1 + np.exp(-x))), atol=1e-5)


@pytest.mark.parametrize("opset", [5, 27])
def test_other_opsets_are_refused_with_a_way_out(opset, tmp_path):
    path = file_of(tmp_path / "t.onnx", [node("Relu", ["x"], ["y"])], opset=opset)
    with pytest.raises(UnsupportedError, match=rf"t\.onnx: opset is {opset}, expected 7 to 26: export"):
        adopted(path, tmp_path)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("factor", [0.5, 1.5, 2])
@pytest.mark.parametrize("opset", [7, 9, 10])
def test_resizing_of_an_old_opset_samples_the_same_points(opset, factor, mode, tmp_path):
    # Before opset 11, output pixel i is at input pixel i / factor; the converter of onnx leaves the later default.
    scales = [1.0, 1.0, factor, factor]
    if opset == 7:
        nodes, constants = [node("Upsample", ["x"], ["y"], mode=mode, scales=scales)], []
    else:
        operator = "Resize" if opset == 10 else "Upsample"
        nodes = [node(operator, ["x", "s"], ["y"], mode=mode)]
        constants = [("s", np.float32(scales))]
    if opset < 10 and factor < 1:
        pytest.skip("Upsample does not make images smaller")
    path = file_of(tmp_path / "t.onnx", nodes, constants=constants, opset=opset, ir_version=4)
    side = int(N * factor)
    result = adopted(path, tmp_path, output={"channels": ["phase"], "side": side, "covers": "window"})
    assert result.contract.parity.max_relative_error < 1e-5


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.DOUBLE, np.float64),
    ],
)
def test_networks_in_half_and_double_precision(kind, weights, tmp_path):
    # onnxruntime has no convolution in double precision, so that the evaluator of ONNX is the reference.
    nodes, constants = convolution(weights)
    path = file_of(tmp_path / "t.onnx", nodes, constants=constants, kind=kind, out_kind=kind)
    result = adopted(path, tmp_path)
    assert result.contract.conversion.passes == ["single precision"]
    atol = 2e-3 if weights == np.float16 else 1e-6
    np.testing.assert_allclose(patches_of(result.path), np.exp(1j * convolved()), atol=atol)


@pytest.mark.parametrize("kind", ["UINT8", "UINT16", "INT32", "INT64", "UINT64"])
def test_whole_numbers_are_rounded_and_limited_to_their_range(kind, tmp_path):
    nodes = [node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), node("Mul", ["f", "c"], ["y"])]
    path = file_of(
        tmp_path / "t.onnx", nodes, constants=[("c", np.float32(1e-4))], kind=getattr(TensorProto, kind)
    )
    result = adopted(path, tmp_path, input={"steps": ["square"]})
    most = 255 if kind == "UINT8" else 65535 if kind == "UINT16" else np.inf
    amplitude = AMPLITUDE.copy()
    amplitude[0, 0, 0, :2] = 20, 400  # 400 and 160,000 counts
    expected = np.exp(1e-4j * np.minimum(np.rint(amplitude[:, 0].astype(np.float64) ** 2), most))
    np.testing.assert_allclose(patches_of(result.path, amplitude), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("FLOAT16", np.float16), ("DOUBLE", np.float64), ("UINT16", np.uint16), ("INT32", np.int32)],
)
def test_outputs_of_other_types(kind, dtype, tmp_path):
    out_kind = getattr(TensorProto, kind)
    nodes = [node("Mul", ["x", "c"], ["s"]), node("Cast", ["s"], ["y"], to=out_kind)]
    path = file_of(tmp_path / "t.onnx", nodes, constants=[("c", np.float32(0.3))], out_kind=out_kind)
    result = adopted(path, tmp_path)
    phase = (np.float32(0.3) * AMPLITUDE[:, 0]).astype(dtype).astype(np.float32)
    atol = 2e-3 if dtype == np.float16 else 1e-6  # half precision becomes single
    np.testing.assert_allclose(patches_of(result.path), np.exp(1j * phase), atol=atol)


def test_weights_in_another_file(tmp_path):
    nodes, constants = convolution()
    path = file_of(tmp_path / "t.onnx", nodes, constants=constants)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").exists()
    result = adopted(path, tmp_path)
    np.testing.assert_allclose(patches_of(result.path), np.exp(1j * convolved()), atol=1e-6)
    assert all(check.passed for check in check_artifact(result.path))


def test_an_input_without_shape_or_with_an_unnamed_batch(tmp_path):
    nodes, constants = convolution()
    for shape in (None, (None, 1, N, N), ("batch", 1, "rows", "columns")):
        path = file_of(tmp_path / "t.onnx", nodes, constants=constants, shape=shape)
        result = adopted(path, tmp_path)
        assert result.contract.batch is None
        np.testing.assert_allclose(patches_of(result.path), np.exp(1j * convolved()), atol=1e-6)


def test_a_network_of_one_pattern_takes_any_number_if_that_changes_nothing(tmp_path):
    # As exported with a batch of one: a view of [1, -1], a linear layer, and back.
    matrix = np.random.default_rng(6).normal(size=(N * N, N * N)).astype(np.float32) * 0.01
    nodes = [
        node("Reshape", ["x", "flat"], ["f"]),
        node("MatMul", ["f", "m"], ["g"]),
        node("Reshape", ["g", "image"], ["y"]),
    ]
    constants = [("flat", np.int64([1, -1])), ("m", matrix), ("image", np.int64([1, 1, N, N]))]
    path = file_of(tmp_path / "t.onnx", nodes, constants=constants, shape=(1, 1, N, N))
    result = adopted(path, tmp_path)
    assert result.contract.batch is None
    assert "dynamic batch" in result.contract.conversion.passes
    expected = (AMPLITUDE.reshape(3, -1).astype(np.float64) @ matrix).reshape(3, N, N)
    np.testing.assert_allclose(patches_of(result.path), np.exp(1j * expected), atol=1e-5)


@pytest.mark.parametrize("batch", [1, "b"])
def test_a_network_that_mixes_patterns_is_run_one_by_one(batch, tmp_path, caplog):
    # Divides by the maximum over the whole batch.
    nodes = [node("ReduceMax", ["x"], ["m"], keepdims=1), node("Div", ["x", "m"], ["y"])]
    path = file_of(tmp_path / "t.onnx", nodes, shape=(batch, 1, N, N))
    result = adopted(path, tmp_path, input={"steps": [{"add": 0.1}]})
    assert result.contract.batch == 1
    if batch == "b":
        assert "differs by" in caplog.text
        assert "several patterns together and is run one by one" in caplog.text
    shifted = AMPLITUDE[:, 0] + np.float32(0.1)
    expected = np.exp(1j * shifted / shifted.max((1, 2), keepdims=True))
    np.testing.assert_allclose(patches_of(result.path), expected, atol=1e-6)


def fourier_graph(opset, *, axis, inverse=0, onesided=0, parts=1, length=None, shape=(2, 3, 8, 7)):
    inputs, constants = ["x"], []
    if length is not None:
        constants.append(numpy_helper.from_array(np.int64(length), "length"))
        inputs.append("length")
    attributes = {"inverse": inverse, "onesided": onesided}
    if opset < 20:
        attributes["axis"] = axis
    else:
        constants.append(numpy_helper.from_array(np.int64(axis), "axis"))
        inputs += ([""] if length is None else []) + ["axis"]
    graph = helper.make_graph(
        [node("DFT", inputs, ["y"], **attributes)],
        "dft",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", *shape[1:], parts])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("axis", [2, 3, -2])
@pytest.mark.parametrize(
    ("options", "transform"),
    [
        ({}, np.fft.fft),
        ({"parts": 2}, np.fft.fft),
        ({"onesided": 1}, np.fft.rfft),
        ({"inverse": 1, "parts": 2}, np.fft.ifft),
        ({"inverse": 1, "onesided": 1, "parts": 2}, np.fft.irfft),
    ],
)
@pytest.mark.parametrize("length", [None, 6, 11])
def test_a_dft_becomes_a_product(opset, axis, options, transform, length):
    model, count = replace_dft(fourier_graph(opset, axis=axis, length=length, **options))
    assert count == 1
    assert "DFT" not in {node.op_type for node in model.graph.node}
    parts = options.get("parts", 1)
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 7, parts)).astype(np.float32)
    values = x[..., 0] + (1j * x[..., 1] if parts == 2 else 0)
    along = {2: 2, 3: 3, -2: 3}[axis]
    if length is None and transform is np.fft.irfft:
        length = 2 * (values.shape[along] - 1)
    expected = transform(values, length, axis=along)
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    found = y[..., 0] + (1j * y[..., 1] if y.shape[-1] == 2 else 0)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_network_with_fourier_operators_is_adopted(tmp_path):
    # The low-pass filter of an image: DFT along both axes, a product, and back.
    row, column = (np.abs(np.fft.fftfreq(N)) for _ in range(2))
    kept = ((row[:, None] < 0.25) & (column < 0.25)).astype(np.float32)[None, None, :, :, None]
    nodes = [
        node("Unsqueeze", ["x", "last"], ["r"]),
        node("DFT", ["r", "", "rows"], ["f1"]),
        node("DFT", ["f1", "", "columns"], ["f2"]),
        node("Mul", ["f2", "kept"], ["f3"]),
        node("DFT", ["f3", "", "columns"], ["g1"], inverse=1),
        node("DFT", ["g1", "", "rows"], ["g2"], inverse=1),
        node("Gather", ["g2", "zero"], ["z"], axis=4),
        node("Mul", ["z", "c"], ["y"]),
    ]
    constants = [
        ("last", np.int64([4])),
        ("rows", np.int64(2)),
        ("columns", np.int64(3)),
        ("kept", kept),
        ("zero", np.int64(0)),
        ("c", np.float32(0.01)),
    ]
    path = file_of(tmp_path / "t.onnx", nodes, constants=constants, opset=20, ir_version=9)
    result = adopted(path, tmp_path)
    assert result.contract.conversion.lowering == "DFT as products with constant matrices"
    filtered = np.fft.ifft2(np.fft.fft2(AMPLITUDE[:, 0]) * kept[0, 0, :, :, 0]).real
    np.testing.assert_allclose(patches_of(result.path), np.exp(0.01j * filtered), atol=1e-5)


def test_a_dft_of_unknown_length_is_refused():
    model = fourier_graph(20, axis=2, shape=(2, 3, "rows", 7))
    with pytest.raises(UnsupportedError, match=r"DFT 'y': has rows points along axis 2, expected a constant"):
        replace_dft(model)


def two_heads(path):
    """amplitude and its uncertainty, phase and its uncertainty."""
    nodes = [
        node("Concat", ["x", "junk"], ["amp"], axis=1),
        node("Mul", ["x", "c"], ["scaled"]),
        node("Concat", ["junk", "scaled"], ["ph"], axis=1),
        node("Add", ["x", "thousand"], ["junk"]),
    ]
    nodes.insert(0, nodes.pop())
    constants = [("c", np.float32(0.1)), ("thousand", np.float32(1000))]
    return file_of(path, nodes, outputs=("amp", "ph"), constants=constants)


HEADS = {"amp": ["amplitude", "amplitude_uncertainty"], "ph": ["ignored", "phase"]}


def test_heads_with_uncertainties_are_named_channel_by_channel(tmp_path, caplog):
    caplog.set_level("INFO")
    result = adopted(two_heads(tmp_path / "t.onnx"), tmp_path, output={"heads": HEADS})
    x = AMPLITUDE[:, 0]
    np.testing.assert_allclose(patches_of(result.path), x * np.exp(0.1j * x), atol=1e-5)
    assert "left out of the artifact: amplitude_uncertainty, ignored" in caplog.text


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            {"names": {"amplitude": "amp", "phase": "ph"}},
            r"t\.onnx: the foreign output 'amp' has 2 channels and the specification names 1 \(amplitude\): name all",
        ),
        ({"heads": HEADS | {"ph": ["phase"]}}, r"output 'ph' has 2 channels"),
        ({"heads": HEADS | {"gone": ["ignored"]}}, r"has outputs \['amp', 'ph'\], but .* names 'gone'"),
        ({"channels": ["amplitude", "phase"]}, r"expected output\.names, one per channel, or output\.heads"),
    ],
)
def test_channels_that_nobody_named_are_refused(output, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        adopted(two_heads(tmp_path / "t.onnx"), tmp_path, output=output)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ({"names": {"amplitude": "y", "phase": "y"}}, r"one tensor for two channels"),
        ({"channels": ["amplitude", "phase"], "layout": "BNN"}, r"layout BNN has no axis of channels"),
        ({"channels": ["phase", "phase"]}, r"once each"),
        ({"channels": ["phase"], "heads": {"y": ["phase"]}}, r"expected either names"),
        ({"channels": ["phase"], "steps": {"amplitude": ["exp"]}}, r"steps are for amplitude, which is no"),
        (
            {"channels": ["phase"], "steps": {"phase": [{"crop": 4}]}},
            r"step 'crop' of the phase moves pixels",
        ),
    ],
)
def test_outputs_that_contradict_themselves_are_refused(output, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        specified(tmp_path, output=output)


def test_four_channels_with_steps_of_their_own(tmp_path):
    # log amplitude, phase / pi, and an uncertainty of each.
    nodes = [
        node("Log", ["x"], ["log"]),
        node("Mul", ["x", "c"], ["ph"]),
        node("Concat", ["log", "ph", "x", "x"], ["y"], axis=1),
    ]
    path = file_of(tmp_path / "t.onnx", nodes, constants=[("c", np.float32(0.1))])
    output = {
        "channels": ["amplitude", "phase", "amplitude_uncertainty", "phase_uncertainty"],
        "steps": {"amplitude": ["exp"], "phase": [{"multiply": float(np.pi)}]},
    }
    result = adopted(path, tmp_path, input={"steps": [{"add": 0.5}]}, output=output)
    x = AMPLITUDE[:, 0].astype(np.float64) + 0.5
    np.testing.assert_allclose(patches_of(result.path), x * np.exp(0.1j * np.pi * x), atol=2e-5)


def ramp(side, slope):
    """exp(i slope row) about the middle of an image."""
    rows = np.arange(side) - (side - 1) / 2
    return np.broadcast_to(np.exp(1j * slope * rows)[:, None], (side, side))


@pytest.mark.parametrize(
    ("steps", "side", "output", "window", "pixel"),
    [
        ([{"crop": 8}], 8, {}, 16, 2),
        ([{"pad": 32}], 32, {}, 16, 0.5),
        ([{"rebin_sum": 2}, {"pad": 16}], 16, {}, 8, 0.5),
        ([{"crop": 12}, {"rebin_mean": 3}], 4, {}, 5, 4 / 3),
        ([{"resample": 10}], 10, {}, 10, 1),
        ([{"resample": 8}, {"pad": 16}], 16, {}, 8, 0.5),
        ([], 8, {"side": 8, "covers": "centre"}, 8, 1),
        ([], 8, {"side": 8, "covers": "window"}, 16, 2),
        ([], 16, {"crop": 10}, 10, 1),
    ],
)
def test_the_pixel_size_follows_the_steps(steps, side, output, window, pixel, tmp_path):
    # A network that knows the answer: a phase ramp, sampled in its own pixels.
    slope = 0.04
    patch = ramp(side, slope * pixel)
    pattern_side = N
    for step in steps:
        ((name, argument),) = step.items()
        pattern_side = pattern_side // argument if name.startswith("rebin") else argument
    nodes = [
        node("ReduceSum", ["x"], ["s"], keepdims=1),
        node("Mul", ["s", "zero"], ["n"]),
        node("Add", ["n", "patch"], ["y"]),
    ]
    constants = [
        ("zero", np.float32(0)),
        ("patch", np.stack([patch.real, patch.imag]).astype(np.float32)[None]),
    ]
    nodes[0] = node("ReduceSum", ["x", "axes"], ["s"], keepdims=1)
    constants.append(("axes", np.int64([1, 2, 3])))
    path = file_of(
        tmp_path / "t.onnx", nodes, constants=constants, shape=("b", 1, pattern_side, pattern_side)
    )
    content = {"channels": ["real", "imag"], **output}
    result = adopted(path, tmp_path, input={"steps": steps}, output=content)
    assert result.contract.stitching.window == (None if window == N else window)
    start = N // 2 - window // 2
    found = patches_of(result.path)[0, start : start + window, start : start + window]
    inside = slice(1, -1) if pixel > 1 else slice(None)  # interpolation repeats the outermost pixels
    expected = ramp(window, slope)
    np.testing.assert_allclose(found[inside], expected[inside], atol=5e-3)


def test_interpolation_in_loops_and_as_a_matrix_agree_and_keep_a_straight_line():
    for source, target in ((9, 16), (16, 9), (16, 5), (7, 30)):
        step = source / target
        centres = source // 2, target // 2
        matrix = interpolation_matrix(source, target, step, *centres)
        images = np.random.default_rng(0).normal(size=(2, source, source))
        expected = matrix @ images @ matrix.T
        np.testing.assert_allclose(interpolate(images, target, step, *centres), expected, atol=1e-12)
        line = matrix @ np.arange(source)
        inside = slice(target // 4, -target // 4)
        positions = source // 2 + (np.arange(target) - target // 2) * step
        np.testing.assert_allclose(line[inside], positions[inside], atol=0.51 if step > 1 else 1e-12)


def test_masks_and_patterns_are_read_from_files_next_to_the_specification(tmp_path):
    mask = np.random.default_rng(0).random((N, N)) > 0.3
    np.save(tmp_path / "mask.npy", mask)
    path = file_of(tmp_path / "t.onnx", [node("Mul", ["x", "c"], ["y"])], constants=[("c", np.float32(0.1))])
    result = adopted(path, tmp_path, input={"steps": [{"mask": "mask.npy"}]})
    expected = np.exp(0.1j * AMPLITUDE[:, 0] * mask)
    np.testing.assert_allclose(patches_of(result.path), expected, atol=1e-6)
    with pytest.raises(InputError, match=r"step mask: argument is 3, expected a \.npy file"):
        adopted(path, tmp_path, input={"steps": [{"mask": 3}]})


def test_inputs_on_which_the_network_itself_is_not_finite_are_named(tmp_path, caplog):
    nodes = [
        node("ReduceSum", ["x", "axes"], ["s"], keepdims=1),
        node("Div", ["x", "s"], ["y"]),
    ]
    path = file_of(tmp_path / "t.onnx", nodes, constants=[("axes", np.int64([1, 2, 3]))])
    result = adopted(path, tmp_path)
    assert "returns NaN or infinity for all-zero inputs" in caplog.text
    assert "all-zero" not in {case.inputs for case in result.report.cases}


def test_the_published_schema_is_that_of_the_specification():
    published = json.loads((ROOT / "docs" / "reference" / "adoption.schema.json").read_text())
    assert published == Specification.model_json_schema()
    assert "folder" not in published["properties"]
