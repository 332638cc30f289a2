"""An adopted network agrees with the foreign network between its own preprocessing steps."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from ptychonnx.export.adoption import adopt, read_specification
from ptychonnx.export.adoption.preprocessing import STEPS
from ptychonnx.export.adoption.wrapped_graph import orient_in_graph
from ptychonnx.export.artifact.artifact_checks import check_artifact
from ptychonnx.export.graph.editing import GraphTape
from ptychonnx.export.verification import report_files
from ptychonnx.export.verification.engines import open_onnxruntime
from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.errors import EnvironmentFailure, InputError, VerificationError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.orientation import orient_image, orient_pattern

N = 16
ROOT = Path(__file__).parents[2]


def rng():
    return np.random.default_rng(3)


def run_nodes(record, x):
    """Output of the nodes that `record` adds to a tape for x [B, 1, n, n]."""
    value = ir.val("x", ir.DataType.FLOAT, ["batch", *x.shape[1:]])
    graph = ir.Graph([value], [], nodes=[], opset_imports={"": 20}, name="steps")
    tape = GraphTape(graph, "p")
    result = tape.add("Identity", record(tape, value))
    result.name, result.type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph.extend(tape.nodes)
    graph.outputs.append(result)
    return open_onnxruntime(ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString())(x)


COUNTS = rng().poisson(40, (3, 1, N, N)).astype(np.float32)
PATTERN = rng().normal(size=(N, N)).astype(np.float32)
MASK = rng().random((N, N)) > 0.2


def blurred(x, axis):
    """(1, 2, 1) / 4 along one axis; the first pixel, which has one neighbour, has (2, 1) / 3."""
    x = np.moveaxis(x.astype(np.float64), axis, -1)
    inside = (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4
    first = (2 * x[..., :1] + x[..., 1:2]) / 3
    return np.moveaxis(np.concatenate([first, inside, x[..., -1:]], axis=-1), -1, axis)


EXPECTED = {
    "square": (None, lambda x: x**2),
    "round": (None, np.round),
    "dc_to_corner": (None, lambda x: np.roll(x, (-(N // 2), -(N // 2)), (-2, -1))),
    "crop": (6, lambda x: x[..., 5:11, 5:11]),
    "rebin_mean": (
        2,
        lambda x: (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4,
    ),
    "rebin_sum": (2, lambda x: x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]),
    "threshold": (40, lambda x: x * (x >= 40)),
    "add": (2.5, lambda x: x + 2.5),
    "subtract": (PATTERN, lambda x: x - PATTERN),
    "multiply": (0.01, lambda x: x * 0.01),
    "divide": (PATTERN, lambda x: x / PATTERN),
    "log1p": (None, lambda x: np.log(1 + x)),
    "standardise": (
        None,
        lambda x: np.stack([[(one[0] - one[0].mean()) / one[0].std()] for one in x.astype(np.float64)]),
    ),
    "divide_by_max": (None, lambda x: np.stack([one / one.max() for one in x])),
    "divide_by_mean": (None, lambda x: np.stack([one / one.mean() for one in x])),
    "divide_by_sum": (None, lambda x: np.stack([one / one.sum() for one in x])),
    "divide_by_norm": (None, lambda x: np.stack([one / np.linalg.norm(one) for one in x])),
    "unit_range": (None, lambda x: np.stack([(one - one.min()) / np.ptp(one) for one in x])),
    "minimum": (40, lambda x: x.clip(40)),
    "maximum": (40, lambda x: x.clip(None, 40)),
    "mask": (MASK, lambda x: x * MASK),
    "power": (0.5, np.sqrt),
    "exp": (None, lambda x: np.exp(x.astype(np.float64))),
    "log": (None, np.log),
    "log10": (None, np.log10),
    "pad": (20, lambda x: np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))),
    # Halving the side keeps every second pixel, averaged with half of its neighbours.
    "resample": (8, lambda x: blurred(blurred(x, -2), -1)[..., ::2, ::2]),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_computes_its_formula_in_numpy_and_in_the_graph(name):
    argument, formula = EXPECTED[name]
    x = COUNTS + np.float32(0.3)
    if name == "exp":
        x = x / np.float32(20)
    found = run_nodes(lambda tape, value: STEPS[name].graph(tape, value, N, argument), x)
    expected = formula(x)
    np.testing.assert_allclose(STEPS[name].numpy(x, argument), expected, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-5)
    assert found.shape[-1] == STEPS[name].side(N, argument)


@pytest.mark.parametrize(
    ("orientation", "formula"),
    [
        ("identity", lambda a: a),
        ("flip-rows", np.flipud),
        ("flip-columns", np.fliplr),
        ("rot180", lambda a: np.rot90(a, 2)),
        ("transpose", lambda a: a.T),
        ("rot90", np.rot90),
        ("rot270", lambda a: np.rot90(a, 3)),
        ("antitranspose", lambda a: np.rot90(a, 2).T),
    ],
)
def test_the_eight_orientations(orientation, formula):
    found = run_nodes(lambda tape, value: orient_in_graph(tape, value, orientation), COUNTS)
    expected = np.stack([[formula(one[0])] for one in COUNTS])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(orient_image(COUNTS, orientation), expected)
    for n in (N, N - 1):
        # A pattern is turned like its own inverse transform, and its direct beam stays.
        spectrum = np.fft.fftshift(np.fft.fft2(rng().random((2, 1, n, n)), axes=(-2, -1)), axes=(-2, -1))
        pattern = np.abs(spectrum).astype(np.float32)
        pattern[..., n // 2, n // 2] = 1e3
        found = run_nodes(
            lambda tape, value, n=n: orient_in_graph(tape, value, orientation, keeps_first=n % 2 == 0),
            pattern,
        )
        assert (found[..., n // 2, n // 2] == 1e3).all()
        np.testing.assert_array_equal(found, orient_pattern(pattern, orientation))
        inside = pattern[0, 0, 1 - n % 2 :, 1 - n % 2 :]
        np.testing.assert_array_equal(found[0, 0, 1 - n % 2 :, 1 - n % 2 :], formula(inside))


def foreign_network(path, nodes, shape, outputs, constants=(), opset=12, kind=TensorProto.FLOAT):
    """A file as others write it: an old opset, names of its own, no metadata."""
    make = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "theirs",
        [make("input.1", kind, shape)],
        [make(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6), path)
    return path


@pytest.fixture
def phase_only(tmp_path):
    """phase = 0.01 x, fixed batch of 2, at 16 pixels."""
    nodes = [helper.make_node("Mul", ["input.1", "c"], ["94"])]
    return foreign_network(tmp_path / "theirs.onnx", nodes, [2, 1, N, N], ["94"], [("c", np.float32(0.01))])


def specified(folder, **content):
    basic = {"label": "theirs", "n": N, "flux": 1e4, "output": {"channels": ["phase"]}}
    path = folder / "theirs.yaml"
    path.write_text(yaml.safe_dump(basic | content))
    return read_specification(path)


def patches_of(path, amplitude):
    return Session(path, "cpu").predict(amplitude)[:, 0]


def test_a_phase_is_an_object_of_amplitude_one(phase_only, tmp_path):
    result = adopt(
        phase_only, specified(tmp_path, input={"steps": ["square", "round"]}), tmp_path / "ours.onnx"
    )
    contract = Session(result.path, "cpu").contract
    assert (contract.label, contract.batch, contract.provenance.framework) == ("theirs", 2, "foreign")
    assert contract.parity.max_relative_error < 1e-6
    assert result.path.with_suffix(".verification.txt").exists()
    assert all(check.passed for check in check_artifact(result.path))
    amplitude = np.sqrt(COUNTS)
    np.testing.assert_allclose(patches_of(result.path, amplitude), np.exp(0.01j * COUNTS[:, 0]), atol=1e-6)


def test_layouts_channel_order_and_orientation_are_theirs_inside_and_ours_outside(tmp_path):
    # [B, N, N, 1] in; [B, N, N, 2] out: phase first, then amplitude; everything mirrored.
    nodes = [
        helper.make_node("Mul", ["input.1", "p"], ["phase"]),
        helper.make_node("Add", ["input.1", "one"], ["amplitude"]),
        helper.make_node("Concat", ["phase", "amplitude"], ["both"], axis=3),
    ]
    constants = [("p", np.float32(0.1)), ("one", np.float32(1))]
    path = foreign_network(tmp_path / "t.onnx", nodes, ["batch", N, N, 1], ["both"], constants)
    specification = specified(
        tmp_path,
        input={"layout": "BNNC", "orientation": "flip-rows"},
        output={"channels": ["phase", "amplitude"], "layout": "BNNC", "orientation": "transpose"},
    )
    adopt(path, specification, tmp_path / "ours.onnx")
    x = rng().random((3, 1, N, N), dtype=np.float32)
    theirs = np.roll(x[:, 0, ::-1], 1, axis=1)
    expected = ((1 + theirs) * np.exp(0.1j * theirs)).transpose(0, 2, 1)
    np.testing.assert_allclose(patches_of(tmp_path / "ours.onnx", x), expected, atol=1e-6)


def test_outputs_under_names_of_their_own_and_an_exit_wave(tmp_path):
    # The network knows the answer: the exit wave P * O of one object, whatever it sees.
    row, column = np.mgrid[:N, :N] - N // 2
    probe = (np.exp(-(row**2 + column**2) / 30 + 0.05j * row)).astype(np.complex64)
    known = (1 - 0.3 * rng().random((N, N))) * np.exp(1j * rng().random((N, N)))
    wave = (probe * known).astype(np.complex64)
    np.save(tmp_path / "probe.npy", probe)
    nodes = [helper.make_node("Mul", ["input.1", "zero"], ["nothing"])]
    nodes += [helper.make_node("Add", ["nothing", part], [f"{part}_out"]) for part in ("re", "im")]
    constants = [("zero", np.float32(0)), ("re", wave.real), ("im", wave.imag)]
    path = foreign_network(tmp_path / "t.onnx", nodes, ["b", 1, N, N], ["re_out", "im_out"], constants)
    output = {
        "names": {"imag": "im_out", "real": "re_out"},
        "quantity": "exit_wave",
        "probe": "probe.npy",
    }
    adopt(path, specified(tmp_path, output=output), tmp_path / "ours.onnx")
    found = patches_of(tmp_path / "ours.onnx", np.ones((2, 1, N, N), np.float32))
    lit = np.abs(probe) ** 2 > 1e-3
    np.testing.assert_allclose(found[:, lit], np.stack([known[lit]] * 2), atol=1e-5)


def test_a_cropped_detector_covers_the_same_window_with_larger_pixels(tmp_path):
    nodes = [helper.make_node("Mul", ["input.1", "c"], ["y"])]
    path = foreign_network(tmp_path / "t.onnx", nodes, ["b", 1, 8, 8], ["y"], [("c", np.float32(0.0))])
    result = adopt(path, specified(tmp_path, input={"steps": [{"crop": 8}]}), tmp_path / "ours.onnx")
    assert result.contract.stitching.weighting == "probe"
    found = patches_of(result.path, np.ones((1, 1, N, N), np.float32))
    np.testing.assert_allclose(found, np.ones((1, N, N)), atol=1e-6)


def test_a_rebinned_detector_covers_the_middle_of_the_window(tmp_path):
    nodes = [helper.make_node("Mul", ["input.1", "c"], ["y"])]
    path = foreign_network(tmp_path / "t.onnx", nodes, ["b", 1, 8, 8], ["y"], [("c", np.float32(0.0))])
    result = adopt(path, specified(tmp_path, input={"steps": [{"rebin_sum": 2}]}), tmp_path / "ours.onnx")
    assert result.contract.stitching.weighting == "crop"
    found = patches_of(result.path, np.ones((1, 1, N, N), np.float32))[0]
    expected = np.zeros((N, N))
    expected[4:12, 4:12] = 1
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("weighting", [None, "probe", "uniform", "window"])
def test_binning_by_more_than_two_stitches_the_window_that_is_left(weighting, tmp_path):
    nodes = [helper.make_node("Mul", ["input.1", "c"], ["y"])]
    path = foreign_network(tmp_path / "t.onnx", nodes, ["b", 1, 4, 4], ["y"], [("c", np.float32(0.0))])
    content = {"input": {"steps": [{"rebin_sum": 4}]}, "stitching": weighting}
    result = adopt(path, specified(tmp_path, **content), tmp_path / "ours.onnx")
    assert result.contract.stitching.window == 4
    positions = np.stack(np.divmod(np.arange(25), 5), -1) * 2.0 + N // 2
    scan = Scan(np.full((25, N, N), 20, np.float32), positions, np.ones((1, N, N), np.complex64), name="flat")
    stitched = reconstruct(Session(result.path, "cpu"), scan).stitched
    # No zero from outside of the windows is mixed in.
    np.testing.assert_allclose(stitched.object[stitched.covered], 1, atol=1e-6)
    assert stitched.covered.sum() == (4 * 2 + 4) ** 2


def test_an_adopted_network_reconstructs_like_any_other(phase_only, tmp_path):
    result = adopt(phase_only, specified(tmp_path), tmp_path / "ours.onnx")
    # An odd number of patterns for a network of a fixed batch of two.
    positions = np.stack(np.divmod(np.arange(9), 3), -1) * 4.0 + N // 2
    patterns = np.full((9, N, N), 20, np.float32)
    scan = Scan(patterns, positions, np.ones((1, N, N), np.complex64), name="flat")
    stitched = reconstruct(Session(result.path, "cpu"), scan).stitched
    np.testing.assert_allclose(stitched.object[stitched.covered], np.exp(0.2j), atol=1e-6)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"n": "many"}, r"theirs.yaml: n: .*integer"),
        ({"output": {}}, r"output: .*expected either names"),
        ({"output": {"channels": ["amplitude"]}}, r"expected phase, amplitude and phase, or real and imag"),
        ({"output": {"channels": ["phase"], "quantity": "exit_wave"}}, r"a probe belongs to an exit wave"),
        ({"input": {"steps": ["blur"]}}, r"step 'blur' is unknown, expected one of square"),
        ({"input": {"steps": ["crop"]}}, r"step 'crop' takes a size"),
        ({"input": {"steps": [{"square": 2}]}}, r"step 'square' takes no argument"),
        ({"input": {"steps": [{"crop": 8, "add": 1}]}}, r"has 2 names, expected one"),
        ({"surprise": 1}, r"surprise: Extra inputs"),
    ],
)
def test_an_incomplete_specification_is_refused(content, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        specified(tmp_path, **content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"n": 32}, r"input 'input.1' is \[2, 1, 16, 16\], the specification leads to \[batch, 1, 32, 32\]"),
        ({"input": {"layout": "BNN"}}, r"as BNN"),
        ({"input": {"name": "x"}}, r"has inputs \['input.1'\], expected one input x"),
        (
            {"output": {"names": {"phase": "95"}}},
            r"has outputs \['94'\], but the specification names '95' for the phase",
        ),
        ({"input": {"steps": [{"subtract": "gone.npy"}]}}, r"gone.npy: cannot be read"),
        ({"input": {"steps": [{"divide": "nan.npy"}]}}, r"nan.npy: holds NaN"),
        (
            {"input": {"steps": [{"divide": "small.npy"}]}},
            r"small.npy: is float64 \(2, 2\), expected an array \(16, 16\)",
        ),
        ({"input": {"steps": [{"crop": 17}]}}, r"step crop: 17 does not fit patterns of 16 pixels"),
        ({"input": {"steps": [{"rebin_mean": 3}]}}, r"step rebin_mean: 3 does not fit"),
        ({"input": {"steps": [{"divide": 0}]}}, r"step divide: the divisor is 0"),
        ({"input": {"steps": [{"multiply": ".inf"}]}}, r"\.inf: cannot be read"),
    ],
)
def test_a_specification_that_does_not_fit_the_network_is_refused(content, reason, phase_only, tmp_path):
    np.save(tmp_path / "nan.npy", np.full((N, N), np.nan))
    np.save(tmp_path / "small.npy", np.zeros((2, 2)))
    before = set(tmp_path.iterdir()) | {tmp_path / "theirs.yaml"}
    with pytest.raises(InputError, match=reason):
        adopt(phase_only, specified(tmp_path, **content), tmp_path / "ours.onnx")
    assert set(tmp_path.iterdir()) == before


def test_a_network_of_another_kind_or_with_code_of_its_own_is_refused(phase_only, tmp_path):
    nodes = [helper.make_node("Cast", ["input.1"], ["y"], to=TensorProto.FLOAT)]
    path = foreign_network(tmp_path / "d.onnx", nodes, [1, 1, N, N], ["y"], kind=TensorProto.BOOL)
    with pytest.raises(
        InputError, match=r"d\.onnx: input 'input\.1' is bool, expected whole or real numbers"
    ):
        adopt(path, specified(tmp_path), tmp_path / "ours.onnx")
    with pytest.raises(InputError, match=r"ends in \.onnx"):
        adopt(phase_only, specified(tmp_path), tmp_path / "ours.bin")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError, match=r"text\.onnx"):
        adopt(tmp_path / "text.onnx", specified(tmp_path), tmp_path / "ours.onnx")


def test_a_wrong_graph_is_never_published(phase_only, tmp_path, monkeypatch):
    spoilt = STEPS["square"]
    monkeypatch.setitem(
        STEPS, "square", type(spoilt)("", "none", spoilt.numpy, lambda tape, value, n, _: value)
    )
    with pytest.raises(VerificationError, match=r"^parity: relative error"):
        adopt(phase_only, specified(tmp_path, input={"steps": ["square"]}), tmp_path / "ours.onnx")
    assert not (tmp_path / "ours.onnx").exists()


def test_an_artifact_and_its_report_appear_together_or_not_at_all(phase_only, tmp_path, monkeypatch):
    out = tmp_path / "artifact.onnx"
    adopt(phase_only, specified(tmp_path), out)
    another = specified(tmp_path, label="another")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {"artifact.verification.json", "artifact.verification.txt"} <= set(before)

    def full_disk(report):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(report_files, "report_text", full_disk)
    with pytest.raises(EnvironmentFailure, match="cannot be written"):
        adopt(phase_only, another, out)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_contract_of_a_foreign_network_needs_no_training():
    schema = json.loads((ROOT / "docs" / "reference" / "contract.schema.json").read_text())
    assert schema == Contract.model_json_schema()


def data(name):
    folder = Path(os.environ.get("PTYCHONNX_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / name).exists():
        pytest.skip(f"{name} is not there: set PTYCHONNX_DATA")
    return folder / name


def test_a_published_network_is_adopted(tmp_path):
    theirs = data("sm-ptychonn-downscaled-1.onnx")
    specification = specified(tmp_path, n=128, flux=4.6e5, input={"steps": ["square", "round"]})
    result = adopt(theirs, specification, tmp_path / "ours.onnx")
    # One pattern at a time in the file; any number in the artifact.
    assert result.contract.batch is None
    assert result.contract.parity.max_relative_error < 1e-6
    counts = rng().poisson(28, (2, 1, 128, 128)).astype(np.float32)
    session = ort.InferenceSession(theirs, providers=["CPUExecutionProvider"])
    phase = np.concatenate([session.run(None, {"input.1": one[None]})[0] for one in counts])
    found = patches_of(result.path, np.sqrt(counts))
    np.testing.assert_allclose(found, np.exp(1j * phase[:, 0]), atol=1e-5)
